"""Estimates of what exchanging an activation would do, from gradients: one forward, and few backward passes.

To first order, an activation a of the base run that is exchanged for the other run's a' changes a number
read from the logits by (a' − a)·∂number/∂a. One backward pass gives that for every site, block, token and
head at once, where the exact answer takes a run for each. It is a screen, not a result, and it has two known
ways to miss what matters:

- Attention saturates. Where a query looks at one key with nearly all its weight, the softmax has almost no
  gradient, however far another query or key would turn it. So for queries and keys the pattern is computed
  anew, exactly, and only what follows the head's output is taken to first order.
- Effects cancel. Two routes to the answer whose gradients are equal and opposite sum to nothing. So the
  backward pass is repeated with the gradient stopped at what one block adds, block by block, and the
  absolute estimates are averaged (GradDrop).

The model runs by its own code; nothing of it is written again.

Source: Nanda 2023, "Attribution Patching"; Kramár et al. 2024, "AtP*: An efficient and scalable method for
localizing LLM behaviour to components", sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.memory import within_memory
from layerscope.runs._contraction import Contraction
from layerscope.runs._tape import RECOMPUTED, Tape
from layerscope.runs.edits import PutSite
from layerscope.runs.recordings import BaseRun, record

Number = Callable[[Tensor], Tensor]
"""Turns logits [run read vocabulary] into one number for each run [run], by differentiable steps."""

_PATTERN_BYTES = 2**29
"""Bound on the gradients of attention patterns that are held for all stopped blocks together."""


@dataclass
class Attribution:
    """Estimated changes of the number, by site.

    Shapes: "state" [row depth token], "attn_out" and "mlp_out" [row layer token], "head_out" and "q"
    [row layer token head], "k" and "v" [row layer token kv_head]; float32, on the CPU. A row is a row of
    the base run or of the other one, whichever has more.

    Attributes:
        plain: the difference times the gradient.
        recomputed: of "q" and "k", with the attention pattern computed anew.
        dropped: mean of the absolute estimates with each block's contribution stopped in turn ("q" and "k" with
            the pattern computed anew). Of sites inside a block, its own block is left out of the mean, since
            stopping it leaves them nothing. Empty unless asked for.
    """

    plain: dict[str, Tensor] = field(default_factory=dict)
    recomputed: dict[str, Tensor] = field(default_factory=dict)
    dropped: dict[str, Tensor] = field(default_factory=dict)


def attributable(model: LayeredModel) -> tuple[PutSite, ...]:
    """The sites whose exchange can be estimated on this model: those that the load check allows in every block."""
    sites: list[PutSite] = ["state"]
    parts = {"attn_out": "attention", "mlp_out": "mlp"}
    for site in get_args(PutSite)[1:]:
        if site in model.refused:
            continue
        if site in parts:
            there = all(one is not None and getattr(one, parts[site]) for one in model.additions)
        else:
            there = all(module is not None for module in model.attention_modules)
        if there:
            sites.append(site)
    return tuple(sites)


def attribute(
    model: LayeredModel,
    *,
    base: BaseRun,
    other: BaseRun,
    number: Number,
    read_last: int = 1,
    sites: Collection[str] = ("state",),
    drop: bool = False,
    tokens_per_pass: int = 2048,
) -> Attribution:
    """Estimate what exchanging each activation of the base run for the other run's would change.

    Args:
        model: the model.
        base: the run that is changed, at whose activations gradients are taken.
        other: the run that activations come from; as many rows, or one of the two has a single row.
        number: what is read from the logits.
        read_last: how many of the last positions are read.
        sites: which activations.
        drop: also stop each block's contribution in turn.
        tokens_per_pass: bound on the tokens of one pass. Where the device's memory does not hold so many, it is
            halved until it does, and that is kept in `model.halvings`.

    Raises:
        LayerscopeError: a site that the load check refused; `drop` on a model that adds no vectors that could
            be stopped; rows that do not match; a number without gradient.
    """
    for site in sorted({*sites} - {"state"}) + (["attn_out", "mlp_out"] if drop else []):
        model.need(site)
    if base.rows != other.rows and min(base.rows, other.rows) > 1:
        raise LayerscopeError(
            "rows of the two runs do not match",
            found=f"{base.rows} and {other.rows}",
            expected="as many rows, or one",
            hint="BaseRun.of(ids) is a run of one row",
        )

    def attempt(tokens: int) -> Attribution:
        pairs = _pairs(model, base, other, sites, drop, tokens)
        return _joined([_attribute(model, *pair, number, read_last, sites, drop) for pair in pairs])

    return within_memory(model, attempt, tokens_per_pass, least=base.tokens)


def _pairs(
    model: LayeredModel,
    base: BaseRun,
    other: BaseRun,
    sites: Collection[str],
    drop: bool,
    tokens_per_pass: int,
) -> Iterator[tuple[BaseRun, BaseRun]]:
    """Rows of both runs that are taken together."""
    rows, tokens = max(base.rows, other.rows), base.tokens
    at_once = max(1, tokens_per_pass // tokens)
    if set(RECOMPUTED) & set(sites):
        passes = 1 + drop * model.n_layers
        of_a_row = 4 * passes * model.n_layers * (model.facts.n_heads or 1) * tokens**2
        at_once = max(1, min(at_once, _PATTERN_BYTES // of_a_row))
    for start in range(0, rows, at_once):
        yield base.part(start, start + at_once), other.part(start, start + at_once)


def _joined(parts: list[Attribution]) -> Attribution:
    return Attribution(
        **{
            kind: {
                site: torch.cat([getattr(p, kind)[site] for p in parts]) for site in getattr(parts[0], kind)
            }
            for kind in ("plain", "recomputed", "dropped")
        }
    )


@torch.enable_grad()
def _attribute(
    model: LayeredModel,
    base: BaseRun,
    other: BaseRun,
    number: Number,
    read_last: int,
    sites: Collection[str],
    drop: bool,
) -> Attribution:
    recording = record(model, other, keep={*sites} - {"state"})
    tape = Tape(model, base, sites, drop)
    value = number(tape.logits()[:, -read_last:]).sum()
    if not value.requires_grad:
        raise LayerscopeError(
            "this number has no gradient",
            found="a value that does not depend on the logits by differentiable steps",
            expected="torch operations on the logits, without no_grad, detach, argmax or numpy",
            hint="probability, log_probability and logit_difference have gradients",
        )
    contraction = Contraction(tape, recording)
    found = Attribution()
    for blocked in (None, *(range(model.n_layers) if drop else ())):
        contraction.add(tape.gradients(value, blocked=blocked), blocked)
    del value
    found.plain, recomputed = contraction.plain, contraction.recomputed()
    found.recomputed = {site: estimates[0] for site, estimates in recomputed.items()}
    if drop:
        sums = contraction.sums | {site: estimates[1:].abs().sum(0) for site, estimates in recomputed.items()}
        for site, total in sums.items():
            blocks = model.n_layers - (site != "state")
            best = found.recomputed.get(site, found.plain[site])
            found.dropped[site] = total / blocks if blocks else best.abs()
    return found
