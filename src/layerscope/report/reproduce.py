"""How to get a number of the report again: on the command line, and in three lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.contract import Claim, Experiment
from layerscope.report.settings import defaults, differs, written
from layerscope.results.record import RunRecord
from layerscope.results.store import RunFolder

USUAL: dict[str, Any] = {"bos": "auto", "chat": False, "limit": None, "longest": 256}
"""How texts are read where nothing else is asked: the defaults of a Request."""


@dataclass(frozen=True)
class Recipe:
    """Commands to copy.

    Attributes:
        replay: computes this very run again and says whether it agrees; empty where the model was handed
            over by the caller.
        command: asks the same of the model anew; empty where no command does.
        python: the same in Python, down to the cell that a claim rests on.
    """

    replay: str
    command: str
    python: str


def recipe(
    run: RunFolder, record: RunRecord, experiment: Experiment, where: str, claim: Claim | None = None
) -> Recipe:
    """The recipe of a run, or of one of its claims.

    Args:
        run: the run.
        record: its record.
        experiment: what was run.
        where: how the page names the run folder.
        claim: the claim whose cell Python should end with.
    """
    asked = record.asked
    changed = {
        name: value for name, value in asked.settings.items() if differs(name, value, defaults(experiment))
    }
    texts = _texts(record, experiment)
    if not asked.loadable:
        return Recipe("", "", _python(record, changed, texts, claim))
    replay = f"layerscope {'replay' if run.has_result else 'resume'} {shlex.quote(where)}"
    return Recipe(replay, _command(record, changed, texts), _python(record, changed, texts, claim))


def _texts(record: RunRecord, experiment: Experiment) -> dict[str, str]:
    """What the run was given, by kind: the name it was asked by, or a word to be replaced."""
    return {kind: record.named.get(kind) or f"THE_{kind.upper()}" for kind in sorted(experiment.takes)}


def _command(record: RunRecord, changed: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    asked, twins = record.asked, _twins(record)
    # The twin of the run's own seed, which older versions ran: no command asks for it.
    if twins == 0:
        return ""
    words = ["layerscope", "run", asked.experiment, "--model", asked.model]
    for kind, name in texts.items():
        words += [f"--{kind}", name]
    for name, value in changed.items():
        words += ["--seed", written(value)] if name == "seed" else ["--set", f"{name}={written(value)}"]
    twin = {} if twins is None else {"twins": twins}
    for option, value in (_unusual(record) | _about_texts(record) | twin).items():
        words += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    return " ".join(shlex.quote(word) for word in words)


def _twins(record: RunRecord) -> int | None:
    """Of how many twins a twin's run is the last: their seeds follow the run's own, one by one."""
    seed = record.asked.untrained
    return None if seed is None else max(0, seed - int(record.asked.settings.get("seed", 0)))


def _unusual(record: RunRecord) -> dict[str, str]:
    """Device and dtype where they are not the usual ones."""
    given = {"device": record.asked.device, "dtype": record.asked.dtype}
    return {name: value for name, value in given.items() if value not in ("cpu", "float32")}


def _about_texts(record: RunRecord) -> dict[str, Any]:
    """How texts were read, where that is not the usual way."""
    asked = record.asked
    given = {"bos": asked.bos.get("policy", "auto"), "chat": asked.chat} | record.options
    return {name: value for name, value in given.items() if name in USUAL and value != USUAL[name]}


def _python(
    record: RunRecord, changed: Mapping[str, Any], texts: Mapping[str, str], claim: Claim | None
) -> str:
    asked = record.asked
    options = "".join(f", {name}={value!r}" for name, value in _unusual(record).items())
    model = f"ls.load_model({asked.model!r}{options})" if asked.loadable else "model"
    if asked.untrained is not None:
        model = f"ls.untrained_twin({model}, seed={asked.untrained})"
    inputs = "".join(f", ls.load_{kind}({name!r})" for kind, name in texts.items())
    settings = "".join(
        f", {name}={value!r}" for name, value in (_about_texts(record) | dict(changed)).items()
    )
    last = "result" + _selected(claim.select) if claim and claim.select else "ls.draw(result)"
    run = f"result = ls.run({asked.experiment!r}, {model}{inputs}{settings})"
    return "\n".join(["import layerscope as ls", run, last])


def _selected(select: Mapping[str, Any]) -> str:
    labels = {name: value for name, value in select.items() if name != "variable"}
    variable = f"[{select['variable']!r}]" if "variable" in select else ""
    return variable + (f".sel({labels!r})" if labels else "")
