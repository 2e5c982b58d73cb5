"""Where a run's numbers come from, grouped for reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.results.record import RunRecord


@dataclass(frozen=True)
class Group:
    """A heading and its rows; `mark` is "" or "refused"."""

    heading: str
    rows: tuple[tuple[str, str, str], ...]


def provenance(record: RunRecord) -> list[Group]:
    """Model, text, machine, time, load check and notes of a run; empty groups are left out."""
    groups = [
        _group("Model", _model(record)),
        _group("Text", {"tokenizer": record.asked.tokenizer, "texts": record.asked.texts, **_text(record)}),
        _group("Machine", _machine(record)),
        _group("Time and memory", _cost(record)),
        Group("Load check", tuple(_check(check) for check in record.checks)),
        Group("Notes", tuple(("", note, "") for note in record.notes)),
    ]
    return [group for group in groups if group.rows]


def line_of_facts(record: RunRecord) -> str:
    """The model in one line: architecture, size, what stands first, type of numbers, date."""
    facts, first = record.facts, record.standing_first.get("text")
    heads, shared = facts.get("n_heads"), facts.get("n_kv_heads")
    known = [
        str(facts.get("architecture") or ""),
        f"{_in_millions(facts['n_parameters'])} parameters" if facts.get("n_parameters") else "",
        f"{facts['n_layers']} layers" if facts.get("n_layers") else "",
        f"{heads} heads"
        + (f" on {shared} key-value head{'s' * (shared != 1)}" if shared and shared != heads else "")
        if heads
        else "",
        f"vocabulary {facts['vocabulary']:,}" if facts.get("vocabulary") else "",
        "" if first is None else f"{first} stands first" if first else "nothing stands first",
        str(record.asked.dtype),
        record.created[:10],
    ]
    return " · ".join(one for one in known if one)


def _in_millions(number: int) -> str:
    """As people name sizes of models: 6.2 M, 135 M, 1.5 B."""
    size, letter = (number / 1e9, "B") if number >= 1e9 else (number / 1e6, "M")
    return f"{size:.3g} {letter}"


def _group(heading: str, values: Mapping[str, Any]) -> Group:
    known = {name: value for name, value in values.items() if value not in (None, "", {}, [])}
    return Group(heading, tuple((name, _text_of(value), "") for name, value in known.items()))


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text_of(inner)}" for name, inner in value.items())
    return str(value)


def _model(record: RunRecord) -> dict[str, Any]:
    asked = record.asked
    own = {"asked for": asked.model, "revision": asked.revision, "weights (sha256)": asked.weights}
    facts = {name.replace("_", " "): value for name, value in record.facts.items() if name not in _SAID_ABOVE}
    handed = {} if asked.loadable else {"handed over": "by the caller, as an object"}
    trusted = {"remote code": "trusted"} if asked.trust_remote_code else {}
    return own | handed | trusted | {"dtype": asked.dtype, "device": asked.device} | facts


_SAID_ABOVE = {"source", "loadable", "dtype", "device", "revision", "trust_remote_code"}


def _text(record: RunRecord) -> dict[str, Any]:
    return {
        "what stands first": record.asked.bos,
        "why": record.standing_first.get("reason"),
        "losses that decided": {
            one["text"] or "nothing": f"{one['loss']:.2f}" for one in record.standing_first.get("tried", [])
        },
        "chat template": record.asked.chat or None,
    }


def _machine(record: RunRecord) -> dict[str, Any]:
    machine = record.machine
    return {
        "processor": machine.processor,
        "device": machine.device_name,
        "threads": machine.threads,
        "chunk plan": record.chunk_plan,
        "environment": machine.environment,
        "versions": machine.versions,
        "Layerscope's code (sha256)": machine.code,
        "experiment of": ", ".join(f"{name} {package.version}" for name, package in machine.plugin.items()),
        "its code (sha256)": ", ".join(package.code for package in machine.plugin.values()),
    }


def _cost(record: RunRecord) -> dict[str, Any]:
    stages = {f"stage {name}": f"{s.items} items, {duration(s.seconds)}" for name, s in record.stages.items()}
    peak = f"{record.peak_bytes / 2**30:.2f} GiB" if record.peak_bytes else None
    times = {"begun": record.created, "finished": record.finished, "measuring": duration(record.seconds)}
    return times | stages | {"largest memory": peak}


def _check(check: Mapping[str, Any]) -> tuple[str, str, str]:
    mark = "" if check.get("holds", True) else "refused"
    return str(check.get("name", "check")), str(check.get("detail", "")), mark


def duration(seconds: float) -> str:
    """A time as a person says it: 0.8 s, 2 min 5 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"
