"""What the checks of a model found, kept on disk, so that they cost once.

A verdict is kept for what decides it: the bytes of the weights, the configuration, Layerscope's own code,
versions, device and dtype; inside of it, for the lengths of text at which the model was tried. It holds names,
numbers and sentences, nothing that runs; one that is damaged, or names what this model does not have, is as good
as none. A model object that a caller handed over, and code that came with weights, are tried every time.

They lie where `results/remembered.py` keeps answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from layerscope.models.hooks import has_hooks
from layerscope.models.layered import LayeredModel
from layerscope.models.structure import Addition
from layerscope.results import remembered
from layerscope.results.own_code import sources_digest
from layerscope.results.record import digest

_KIND = "verdicts"
_ROOMS = ("maths", "models", "runs")


class Verdict(BaseModel):
    """All that checks have written on a model, by names of its modules.

    Attributes:
        tried: lengths of the longest texts at which the model and its branches were tried.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    tried: list[int]
    prefixes_to: int | None
    checks: list[dict[str, bool | str]]
    refused: dict[str, str]
    after: list[str]
    logit_map: list[tuple[str, float]]
    additions: list[tuple[str | None, str | None, float] | None]
    attention: list[str | None]
    axes: list[list[tuple[list[str | int], int | None]]]
    takes_positions: bool
    keeps_last: bool


class Verdicts(BaseModel):
    """Verdicts on one model, by the lengths that they are about."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by_length: dict[str, Verdict] = {}


def recall(model: LayeredModel, *, checked_to: int | None = None, branches_to: int | None = None) -> bool:
    """Write a kept verdict on a model; whether there was one.

    Args:
        model: the model as it was loaded, or as far as it has been tried.
        checked_to, branches_to: lengths that it shall have been tried at; None leaves what was.
    """
    about = _asked_about(model)
    if about is None:
        return False
    kept = _kept(about).by_length
    wanted = (
        model.checked_to if checked_to is None else checked_to,
        model.branches_to if branches_to is None else branches_to,
    )
    found = _covering(kept, wanted)
    if found is None:
        return False
    try:
        _restore(model, found)
    except (AttributeError, ValueError, IndexError, KeyError, TypeError):
        return False
    return True


def keep(model: LayeredModel) -> None:
    """Keep what is now known of a model, at the lengths at which it has been tried."""
    about = _asked_about(model)
    if about is not None:
        verdict, kept = _verdict(model), _kept(about)
        kept.by_length[_key(tuple(verdict.tried))] = verdict
        remembered.keep(_KIND, about, kept.model_dump(mode="json"))


def _covering(kept: dict[str, Verdict], wanted: tuple[int, int]) -> Verdict | None:
    """The verdict for these lengths, or for longer ones at which nothing more was refused."""
    first = kept.get(_key((0, 0)))
    longer = [
        verdict
        for verdict in kept.values()
        if first is not None
        and verdict.tried[0] >= wanted[0]
        and verdict.tried[1] >= wanted[1]
        and verdict.prefixes_to is None
        and verdict.refused == first.refused
    ]
    return max(longer, key=lambda verdict: verdict.tried, default=kept.get(_key(wanted)))


def _key(tried: tuple[int, ...]) -> str:
    return " ".join(map(str, tried))


def _verdict(model: LayeredModel) -> Verdict:
    names = {module: name for name, module in model.module.named_modules()}
    return Verdict(
        tried=[model.checked_to, model.branches_to],
        prefixes_to=model.prefixes_to,
        checks=model.checks,
        refused=model.refused,
        after=[names[module] for module in model.structure.after],
        logit_map=list(model.structure.logit_map),
        additions=[None if a is None else (a.attention, a.mlp, a.multiplier) for a in model.additions],
        attention=[None if module is None else names[module] for module in model.attention_modules],
        axes=[[(list(path), axis) for path, axis in axes.items()] for axes in model.axes],
        takes_positions=model.takes_positions,
        keeps_last=model.keeps_last,
    )


def _restore(model: LayeredModel, kept: Verdict) -> None:
    n, find = model.n_layers, model.module.get_submodule
    if not len(kept.additions) == len(kept.attention) == n or len(kept.axes) not in (0, n):
        raise ValueError("a verdict on a model of another depth")
    attention = tuple(None if name is None else find(name) for name in kept.attention)
    additions = tuple(None if entry is None else Addition(*entry) for entry in kept.additions)
    for block, addition in zip(model.blocks, additions, strict=True):
        for name in () if addition is None else filter(None, (addition.attention, addition.mlp)):
            block.get_submodule(name)
    after = tuple(find(name) for name in kept.after)
    model.structure = replace(model.structure, after=after, logit_map=tuple(kept.logit_map))
    model.attention_modules, model.additions = attention, additions
    model.axes = tuple({tuple(path): axis for path, axis in axes} for axes in kept.axes)
    model.takes_positions, model.keeps_last = kept.takes_positions, kept.keeps_last
    model.checks, model.refused = [dict(check) for check in kept.checks], dict(kept.refused)
    (model.checked_to, model.branches_to), model.prefixes_to = kept.tried, kept.prefixes_to


def _kept(about: dict[str, Any]) -> Verdicts:
    try:
        return Verdicts.model_validate_json(json.dumps(remembered.recalled(_KIND, about)))
    except (ValidationError, ValueError, RecursionError):
        return Verdicts()


def _asked_about(model: LayeredModel) -> dict[str, Any] | None:
    """What decides a verdict on this model; None where none are kept."""
    if _ANEW.get() or not model.facts.loadable or model.facts.trust_remote_code or has_hooks(model.module):
        return None
    now = f"{model.fingerprint()} {model.facts.context}"
    known = _ABOUT.get(model)
    if known is None or known[0] != now:
        known = _ABOUT[model] = (now, _about(model))
    return known[1]


_ABOUT: WeakKeyDictionary[LayeredModel, tuple[str, dict[str, Any]]] = WeakKeyDictionary()
"""What decides the verdicts on each model, while its tensors are what they were."""


def know_weights(model: LayeredModel) -> None:
    """Take the digest of weights that were just built from files, where the same files were built before.

    The same files make the same weights under the same code; that these have the same sums besides holds against
    files that were written while they were read.
    """
    if not model.facts.files or model.facts.trust_remote_code:
        return
    gguf = version("gguf") if model.facts.dequantised else ""
    about = {"files": model.facts.files, "sums": digest(model.sums()), "made": [*_made(model), gguf]}
    kept = remembered.recalled("weights", about)
    if isinstance(kept, str):
        model.take_digest(kept)
    else:
        remembered.keep("weights", about, model.weights_digest())


def _about(model: LayeredModel) -> dict[str, Any]:
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else ""
    return {
        "weights": model.weights_digest(),
        "configuration": model.config_digest(),
        "device": [str(model.device), device],
        "context": model.facts.context,
        "made": _made(model),
    }


def _made(model: LayeredModel) -> list[str]:
    """What decides, beside files and device, which numbers a model is made of and how it is tried."""
    kind = type(model.module)
    versions = (version(name) for name in ("torch", "transformers"))
    return [f"{kind.__module__}.{kind.__qualname__}", model.facts.dtype, *versions, sources_digest(_ROOMS)]


@contextmanager
def tried_anew() -> Iterator[None]:
    """Neither take nor keep a verdict meanwhile."""
    before = _ANEW.set(True)
    try:
        yield
    finally:
        _ANEW.reset(before)


_ANEW = ContextVar("tried anew", default=False)
