"""What holds at a few tokens is tried again at the longest text that a run will read.

Windows, chosen keys, scaled positions and rotary frequencies that depend on the length of the text differ only
there. Where a text's length changes what its own beginning means, a state of a longer run is not the state of
the shorter one, and everything that takes one for the other is refused beyond the length up to which it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.models import verdicts
from layerscope.models.attention import Attended, watched
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.models.memory import ran_out
from layerscope.models.noting import note, reason
from layerscope.models.probe import probe_ids
from layerscope.models.sites import THROUGH_ATTENTION

_PER_TOKEN = {torch.float64: 1e-6, torch.float32: 2e-3}
_OF_HALVES, _IN_ONE_PASS = 0.2, 2e-3
_FEW = 9


@torch.no_grad()
def check_length(model: LayeredModel, tokens: int) -> None:
    """Try a model on texts of so many tokens; adds to its `checks`, `refused` and `prefixes_to`.

    Args:
        model: a model that has passed the load check.
        tokens: of the longest text that will be read; no more than the model's context is tried.

    Raises:
        LayerscopeError: at this length the model looks ahead, lets rows of a batch influence each other,
            depends on what it read before, or cannot be run.
    """
    tokens = min(tokens, model.facts.context or tokens)
    if tokens <= max(model.checked_to, _FEW) or verdicts.recall(model, checked_to=tokens):
        return
    ids = probe_ids(model, tokens)[:1]
    try:
        _try(model, ids)
    except LayerscopeError:
        raise
    except Exception as error:
        if ran_out(error):
            raise
        raise _refused(model, tokens, "cannot be run", reason(error)) from error
    model.checked_to = tokens
    verdicts.keep(model)


def need_prefixes(model: LayeredModel, tokens: int) -> None:
    """Refuse to take states of a longer run for those of its beginning where they differ.

    Raises:
        LayerscopeError: in texts of so many tokens, the first ones mean something else than alone, or the model's
            context is shorter, beyond which nothing is tried.
    """
    context = model.facts.context
    if context is not None and tokens > context:
        raise LayerscopeError(
            f"this text is longer than the context of {model.facts.name}",
            found=f"a text of {tokens} tokens; the context is {context}",
            expected=f"at most {context} tokens, beyond which positions may mean something else",
            hint=f"--longest {context}",
        )
    limit = prefixes_hold_to(model, tokens)
    if tokens > limit:
        raise LayerscopeError(
            f"the length of a text changes what its beginning means to {model.facts.name}",
            found=f"a text of {tokens} tokens; from {limit + 1} tokens on, all its states change",
            expected=f"texts of at most {limit} tokens, where states are compared with those of a cut text",
            hint=f"--longest {limit}",
        )


def prefixes_hold_to(model: LayeredModel, tokens: int) -> int:
    """So many tokens, or the fewer that the context holds or up to which a text's beginning is read as it is alone."""
    tokens = min(tokens, model.facts.context or tokens)
    if tokens > model.checked_to:
        check_length(model, at_least(tokens))
    return tokens if model.prefixes_to is None else min(tokens, model.prefixes_to)


def at_least(tokens: int) -> int:
    """A length at which to try a model that will read so many tokens, where no run has told its longest text.

    A power of two, so that texts that grow token by token are not tried one by one.
    """
    return max(_FEW, 1 << (tokens - 1).bit_length())


def _try(model: LayeredModel, ids: Tensor) -> None:
    tokens = ids.shape[1]
    name = f"the beginning of a text of {tokens} tokens is read as it is alone"
    starts = {first: _final(model, ids[:, :first]) for first in _beginnings(tokens)}
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.facts.vocabulary
    both = _final(model, torch.cat([ids, changed]))
    whole, other = both[:1], both[1:]
    again = _final(model, ids[:, : tokens // 2])
    if not _same(model, again, starts[tokens // 2]):
        raise _refused(model, tokens, "depends on what was read before", "another text came between")
    if not _same(model, other[:, :-1], whole[:, :-1], in_one_pass=True):
        raise _refused(model, tokens, "looks ahead", "a later token changes earlier states")
    if all(_same(model, start, whole[:, :first]) for first, start in starts.items()):
        note(model, name, True, "tried at four lengths")
    else:
        model.prefixes_to = _longest_that_holds(model, ids)
        detail = f"up to {model.prefixes_to} tokens only: what stands first depends on the length"
        note(model, name, False, detail)
        _final(model, ids[:, :1])  # what grew with the text shrinks again
    # Where our attention gives for the text alone what the model gave for it in a batch, so would its own.
    if not _attention_agrees(model, ids, whole) and not _same(model, _final(model, ids), whole):
        raise _refused(model, tokens, "gives other states in a batch", "rows influence each other")


def _beginnings(tokens: int) -> list[int]:
    """In rising order: a model that keeps the longest length so far would hide that it depends on it."""
    return sorted({first for first in (2, _FEW, tokens // 2, tokens - 1) if first < tokens})


def _longest_that_holds(model: LayeredModel, ids: Tensor) -> int:
    holds, fails = 1, ids.shape[1]
    while fails - holds > 1:
        middle = (holds + fails) // 2
        starts = {first: _final(model, ids[:, :first]) for first in _beginnings(middle)}
        whole = _final(model, ids[:, :middle])
        if all(_same(model, start, whole[:, :first]) for first, start in starts.items()):
            holds = middle
        else:
            fails = middle
    return holds


def _attention_agrees(model: LayeredModel, ids: Tensor, whole: Tensor) -> bool:
    """Whether our attention gives the model's own states; False too where it cannot be tried."""
    if set(THROUGH_ATTENTION) & set(model.refused):
        return False
    name, sums = f"our attention gives the model's own states at {ids.shape[1]} tokens", [0.0]

    def watch(call: Attended) -> None:
        sums.append(float((call.pattern.sum(-1) + call.sink - 1).abs().max()))

    modules = [module for module in model.attention_modules if module is not None]
    try:
        with watched(model.module, dict.fromkeys(modules, watch)):
            ours = _final(model, ids)
    except Exception as error:
        if ran_out(error):
            raise
        note(model, name, False, reason(error), THROUGH_ATTENTION)
        return False
    agrees, detail = _same(model, ours, whole), "rows and sinks sum to 1"
    if not agrees:
        detail = f"states differ from {ids.shape[1]} tokens on"
    elif max(sums) > 1e-4:
        detail = f"attention rows and sink shares sum to 1 only within {max(sums):.2g}"
    note(model, name, agrees and max(sums) <= 1e-4, detail, THROUGH_ATTENTION)
    return agrees


def _final(model: LayeredModel, ids: Tensor) -> Tensor:
    """What every token ends in: the state after the last block, or logits where there are no such states."""
    if "resid_post" in model.refused:
        return model.logits(ids)
    found: list[Tensor] = []
    with at_depth(model, {model.n_layers: lambda stream: found.append(stream.detach().clone())}):
        model.logits(ids, last=True)
    return found[0]


def _same(model: LayeredModel, a: Tensor, b: Tensor, *, in_one_pass: bool = False) -> bool:
    """Whether states [row token width] agree at every token.

    Rounding may flip a choice of experts: of a model that has some, one token in 50 may differ, and in half
    precision, whatever the model, half of them; but never the last, whose predictions are what is read most.
    Rows of one pass are rounded alike, so that half precision excuses little there.
    """
    apart = (a.float() - b.float()).norm(dim=-1) / b.float().norm(dim=-1).clamp_min(1e-30)
    if not apart.numel():
        return True
    most, agreeing = _PER_TOKEN.get(b.dtype, _IN_ONE_PASS if in_one_pass else _OF_HALVES), 0.5
    if b.dtype in _PER_TOKEN or in_one_pass:
        agreeing = 0.98 if _has_experts(model.module.config.to_dict()) else 1.0
    in_order = apart.flatten().sort().values
    return bool(in_order[int(agreeing * (len(in_order) - 1))] <= most and apart[:, -1].max() <= most)


def _has_experts(config: Mapping[object, object]) -> bool:
    """Whether a configuration, or one inside it, counts experts; every family does so in words of its own."""
    return any(
        _has_experts(value)
        if isinstance(value, Mapping)
        else "experts" in str(name) and isinstance(value, int) and value > 1
        for name, value in config.items()
    )


def _refused(model: LayeredModel, tokens: int, problem: str, found: str) -> LayerscopeError:
    return LayerscopeError(
        f"{model.facts.name} {problem} at {tokens} tokens",
        found=f"{model.facts.architecture}: {found}",
        expected="what it does at a few tokens",
        hint=f"shorter texts: --longest {tokens // 2}",
    )
