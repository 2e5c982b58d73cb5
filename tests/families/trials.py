"""What is tried on one small model: everything that the experiments rest on, against computations of another kind.

`try_case` gives an `Outcome`: what the load check refused and why, the path of patched runs, and what went wrong.
Going wrong is a number that differs and was not refused, or any exception that is not a LayerscopeError.
"""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

import zoo
from families import bare_loop, configurations
from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import check_length
from layerscope.models.load import load_model
from layerscope.models.sites import Site
from layerscope.runs.branch_check import check_branches
from layerscope.runs.edits import Branch, Cut, Put
from layerscope.runs.patching import run_patched
from layerscope.runs.reading import read_sites, read_states
from layerscope.runs.recordings import BaseRun
from layerscope.runs.windows import full_run, read_truncated, takes_positions

LENGTHS = (9, 40)
CLOSE = 1e-5
"""In probability, and in cosine and attention shares."""
HALF = "bfloat16: error of branches over that of whole passes"
_TEXTS_IN_HALF = 8
OWN = "attention against the model's own"
BOUNDS = {HALF: 1.5, OWN: 1e-4}
"""What may be off by more than `CLOSE`."""
REFUSABLE = ("unembed", "attn_out", "mlp_out", "head_out", "pattern", "branches", "state")


@dataclass
class Outcome:
    """What came of one kind.

    Attributes:
        refused: why the model as a whole was refused, or an empty string.
        sites: what is refused on it, with the reason.
        failed: exceptions that are no LayerscopeError, with their tracebacks.
        off: the most that each comparison was off by.
    """

    refused: str = ""
    sites: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    off: dict[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """What failed, and what differs by more than it may; empty if all is well."""
        far = [
            f"{name}: off by {off:.2g}"
            for name, off in self.off.items()
            if not off <= BOUNDS.get(name, CLOSE)
        ]
        return self.failed + far

    @property
    def path(self) -> str:
        """How patched runs are computed."""
        return "whole passes" if "branches" in self.sites else "branches"


def text(length: int, start: int = 0) -> list[int]:
    """Well-spread token ids behind a first token that stays."""
    return [0, *((start * 7919 + 101 + place * 37) % 300 + 3 for place in range(1, length))]


def try_case(
    case: configurations.Case, lengths: Sequence[int] = LENGTHS, *, leaving_out: Sequence[str] = ()
) -> Outcome:
    """Build a model and try everything on it but some of `TRIALS`, at some lengths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about what small configurations leave open
        return try_module(configurations.build(case.kind, **dict(case.over)), lengths, leaving_out)


def try_module(module: Any, lengths: Sequence[int] = LENGTHS, leaving_out: Sequence[str] = ()) -> Outcome:
    """Everything, on a model object."""
    outcome = Outcome()
    try:
        model = load_model(module, tokenizer=zoo.tokenizer())
        check_length(model, max(lengths))
        check_branches(model, max(lengths))
    except LayerscopeError as refusal:
        problem = str(refusal).splitlines()[0].removeprefix(f"{type(module).__name__}: ")
        outcome.refused = reason(f"{problem}: {refusal.found}")
        return outcome
    except Exception:
        outcome.failed.append(f"load: {traceback.format_exc(limit=-2)}")
        return outcome
    for length in lengths:
        for name, trial in TRIALS.items():
            if name in leaving_out:
                continue
            try:
                trial(model, text(length), outcome)
            except LayerscopeError as refusal:
                outcome.sites.setdefault(name, reason(str(refusal.found)))
            except Exception:
                outcome.failed.append(f"{name} at {length} tokens: {traceback.format_exc(limit=-3)}")
    outcome.sites |= {site: reason(why) for site, why in model.refused.items() if site in REFUSABLE}
    return outcome


def reason(words: str) -> str:
    """A reason in one line, without numbers that rounding decides."""
    words = " ".join(words.split())
    return re.sub(r"\b\d+\.\d+(e-?\d+)?\b|\b\d+e-?\d+\b", "…", words)


def _see(outcome: Outcome, name: str, off: Tensor | float) -> None:
    outcome.off[name] = max(float(off), outcome.off.get(name, 0.0))


def _run(model: LayeredModel, branches: Sequence[Branch], ids: list[int], *, plain: bool) -> Tensor:
    return run_patched(
        model,
        branches,
        base=BaseRun.of(ids),
        other=BaseRun.of(text(len(ids), start=1)),
        read=lambda said, _: said.logits()[:, -1].float().softmax(-1),
        plain=plain,
    )


def _places(model: LayeredModel, tokens: int) -> Iterator[tuple[int, int]]:
    depths = model.n_layers
    yield from ((0, 1), (0, tokens - 1), (1, tokens // 2), (depths // 2, 2), (depths // 2, tokens - 2))
    yield from ((depths - 1, tokens // 3), (depths, tokens - 1))


def _patched_states(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    places = list(_places(model, len(ids)))
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth, token in places]
    whole = _run(model, branches, ids, plain=True)
    fast = _run(model, branches, ids, plain=False)
    other = bare_loop.states(model.module, text(len(ids), start=1))
    bare = torch.stack(
        [bare_loop.patched(model.module, ids, other[d][0, token], d, token) for d, token in places]
    )
    _see(outcome, "whole passes against the bare loop", float((whole - bare).abs().max()))
    _see(outcome, "branches against the bare loop", float((fast - bare).abs().max()))


def _read_residual_stream(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    ours, bare = read_states(model, ids), bare_loop.states(model.module, ids)
    gap = max(
        float((a - b[0]).abs().max() / b.abs().max().clamp_min(1)) for a, b in zip(ours, bare, strict=True)
    )
    _see(outcome, "states", gap)


def _lens(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    model.need("unembed")
    logits = model.unembed(read_states(model, ids)[-1])
    own = bare_loop.forward(model.module, ids).logits[0]
    _see(outcome, "lens at the last depth", float((logits.softmax(-1) - own.softmax(-1)).abs().max()))


def _knockout(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    model.need("pattern")
    last = len(ids) - 1
    layers = [layer for layer, module in enumerate(model.attention_modules) if module is not None]
    # What another query reads in the last layer cannot matter to the last token.
    elsewhere = Branch((Cut((layers[-1],), (last - 2,), (1,)),))
    own = Branch((Cut((layers[0],), (last,), (last - 1,)),))
    nothing = Branch(())
    only_attention = layers[-1] == model.n_layers - 1 and "without attention" not in model.refused.get(
        "branches", ""
    )
    for plain in (True, False):
        cut, other, base = _run(model, [own, elsewhere, nothing], ids, plain=plain)
        if only_attention:
            _see(outcome, "an edge of another query cut in the last layer", float((other - base).abs().max()))
        if plain:
            first = cut
    _see(outcome, "an edge cut, by either path", float((first - cut).abs().max()))


def _patterns(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    model.need("pattern")
    layers = [layer for layer, module in enumerate(model.attention_modules) if module is not None]
    kinds = ("pattern", "v", "head_out")
    got = read_sites(model, ids, [Site(kind, layer) for layer in layers for kind in kinds])
    given = bare_loop.own_attention(model.module, ids)
    if given is not None and len(given) == len(layers):
        for layer, own in zip(layers, given, strict=True):
            ours = got[Site("pattern", layer)]
            if own.shape == ours.shape:  # families with a sink show rows with or without its share
                gap = ours / ours.sum(-1, keepdim=True) - own / own.sum(-1, keepdim=True)
                _see(outcome, OWN, gap.abs().max())
    for layer in layers:
        pattern, values = got[Site("pattern", layer)], got[Site("v", layer)]
        _see(outcome, "attention rows above one", float((pattern.sum(-1) - 1).max()))
        values = values.repeat_interleave(len(pattern) // len(values), dim=0)
        gap = (torch.matmul(pattern, values) - got[Site("head_out", layer)]).abs().max() / values.abs().max()
        _see(outcome, "head outputs", float(gap))


def _truncated(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    """Cells that keep the whole context are the states themselves; a shorter one is a run of its own."""
    run, last = full_run(model, ids), len(ids) - 1
    positions = "original" if takes_positions(model) else "shifted"

    def alone(target: int, kept: int) -> Tensor:
        """States [depth width], asked for without any other cell beside them."""
        found: dict[int, Tensor] = {}
        keep = partial(_keep_depth, found)
        read_truncated(model, run, [(target, kept)], keep, positions=positions)
        return torch.stack([found[depth].float() for depth in range(model.n_layers + 1)])

    for target in (last, last // 2, min(last, 10)):
        whole = run.states[:, target].float()
        cosine = torch.cosine_similarity(alone(target, target), whole, dim=-1)
        _see(outcome, "a state with itself", (1 - cosine).abs().max())
    if run.masks:
        return  # a window counts from where tokens stood, which a pass over the short context alone cannot
    kept = [0, *range(last - 3, last + 1)]
    more = {"position_ids": torch.tensor([kept])} if positions == "original" else {}
    bare = torch.stack(
        [s[0, -1].float() for s in bare_loop.states(model.module, [ids[i] for i in kept], **more)]
    )
    cosine = torch.cosine_similarity(alone(last, 4), bare, dim=-1)
    _see(outcome, "a short context against a run over it alone", (1 - cosine).abs().max())


def _keep_depth(found: dict[int, Tensor], depth: int, _: Any, states: Tensor) -> None:
    found[depth] = states[0]


def _bfloat16(model: LayeredModel, ids: list[int], outcome: Outcome) -> None:
    if "branches" in model.refused:
        return
    half = load_model(copy.deepcopy(model.module).bfloat16(), tokenizer=zoo.tokenizer())
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth, token in _places(model, len(ids))]
    errors: dict[bool, list[float]] = {True: [], False: []}
    # Branches of one text share its rounding: several texts, or the ratio is that of two single draws. Of each the
    # median over branches: an expert that rounding flips, in either run, moves one of them by far more.
    for start in range(_TEXTS_IN_HALF):
        ids = text(len(ids), start=2 * start)
        exact = _run(model, branches, ids, plain=True)
        for plain, found in errors.items():
            off = (_run(half, branches, ids, plain=plain) - exact).square().mean(-1).sqrt()
            found.append(float(off.median()))
    own, ours = (sum(errors[plain]) for plain in (True, False))
    _see(outcome, HALF, ours / max(own, 1e-6))


TRIALS: dict[str, Callable[[LayeredModel, list[int], Outcome], None]] = {
    "states": _read_residual_stream,
    "patched states": _patched_states,
    "logit lens": _lens,
    "attention knockout": _knockout,
    "attention": _patterns,
    "truncated contexts": _truncated,
    "bfloat16": _bfloat16,
}
