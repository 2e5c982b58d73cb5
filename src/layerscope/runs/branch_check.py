"""May branches be trusted on this model? A few of them against whole forward passes, and a cut edge by hand.

What mixes tokens outside the attention function (recurrence, convolution, attention of a family's own)
shows here, and then every patched run takes the plain path. No list of families decides. Both are tried on a
few tokens and again at the length of the texts that are run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models import verdicts
from layerscope.models.attention import AttentionCall, Replacement, attend, replaced
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import at_least
from layerscope.models.memory import ran_out
from layerscope.models.noting import note, reason
from layerscope.models.probe import probe_ids
from layerscope.models.rounding import close
from layerscope.models.sites import THROUGH_ATTENTION
from layerscope.runs._edited_attention import HeadEdits, attend_from
from layerscope.runs.branches import run_branches
from layerscope.runs.edits import Branch, Put
from layerscope.runs.plain import run_plainly
from layerscope.runs.recordings import BaseRun, record

NAME = "branches equal whole forward passes"
EDGE = "one cut attention edge equals an own softmax"
_WHOLE = "whole forward passes are taken"
_FEW = 9


@torch.no_grad()
def check_branches(model: LayeredModel, tokens: int | None = None) -> None:
    """Try branches and a cut edge; adds to the model's `checks`, and to `refused` where they differ.

    Args:
        model: the model.
        tokens: length of the longest text that will be run; None tries a few tokens only.
    """
    tokens = min(tokens or 0, model.facts.context or tokens or 0)
    for length, where in ((_FEW, ""), (tokens, f" at {tokens} tokens")):
        if length > model.branches_to and not verdicts.recall(model, branches_to=length):
            _check(model, length, where)
            model.branches_to = length
            verdicts.keep(model)


def check_branches_of(model: LayeredModel, tokens: int) -> None:
    """The same where no run has told its longest text."""
    check_branches(model, None if tokens <= model.branches_to else at_least(tokens))


def _check(model: LayeredModel, tokens: int, where: str) -> None:
    if not set(THROUGH_ATTENTION) & set(model.refused):
        holds, detail = _guarded(_try_edge, model, tokens)
        note(model, EDGE + where, holds, detail, THROUGH_ATTENTION)
    if where and "branches" in model.refused:
        return
    holds, detail = _cannot(model) or _guarded(_try, model, tokens)
    note(model, NAME + where, holds, detail if holds else f"{detail}; {_WHOLE}")
    if not holds:
        model.refused["branches"] = f"{detail}; {_WHOLE}"


def _guarded(trial: Any, model: LayeredModel, tokens: int) -> tuple[bool, str]:
    try:
        found: tuple[bool, str] = trial(model, probe_ids(model, tokens))
    except Exception as error:
        if ran_out(error):
            raise
        return False, reason(error)
    return found


def _cannot(model: LayeredModel) -> tuple[bool, str] | None:
    for site in ("branches", "pattern", "unembed"):
        if site in model.refused:
            return False, model.refused[site]
    without = [str(layer) for layer, module in enumerate(model.attention_modules) if module is None]
    if without:
        return False, f"layer {', '.join(without[:4])} mixes tokens without attention"
    return None


# -- a cut edge ------------------------------------------------------------------------------------------


def _try_edge(model: LayeredModel, ids: Tensor) -> tuple[bool, str]:
    """In every layer, cut the last token from the key that weighs most, so that its loss shows."""
    gaps: dict[int, float] = {}

    def keeper(layer: int) -> Replacement:
        def compute(call: AttentionCall) -> Tensor:
            key = int(own_softmax(call, None)[0].sum((0, 1))[:-1].argmax())
            by_hand = own_softmax(call, key)[1]
            cut = torch.zeros(1, 1, 1, call.k.shape[2], dtype=torch.bool, device=call.q.device)
            cut[..., key] = True
            mask = None if call.mask is None else call.mask[..., -1:, : call.k.shape[2]]
            edits = HeadEdits(cuts={"renormalise": cut})
            ours = attend_from(call, call.q[:, :, -1:], call.k, call.v, prefix=None, mask=mask, edits=edits)
            if not close(ours[:, :, 0], by_hand):
                gaps[layer] = float((ours[:, :, 0] - by_hand).abs().max())
            return attend(call).head_out

        return compute

    modules = enumerate(model.attention_modules)
    keepers = {module: keeper(layer) for layer, module in modules if module is not None}
    with replaced(model.module, keepers):
        model.logits(ids[:1], last=True)
    if gaps:
        return False, f"in layer {min(gaps)} heads without one edge differ by {max(gaps.values()):.2g}"
    return True, f"the last token's strongest edge in {len(keepers)} layers"


def own_softmax(call: AttentionCall, key: int | None) -> tuple[Tensor, Tensor]:
    """Attention of the last query, written out once more for comparison, without one key.

    Returns:
        Its shares [row head key] and the heads' outputs [row head head_width].
    """
    heads = call.q.shape[1] // call.k.shape[1]
    k, v = (x.repeat_interleave(heads, dim=1) for x in (call.k, call.v))
    scores = torch.einsum("bhd,bhkd->bhk", call.q[:, :, -1], k).float() * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.mask is not None:
        scores = scores + call.mask[..., -1, : k.shape[2]].float()
    if key is not None:
        scores[..., key] = -torch.inf
    if call.sinks is not None:
        scores = torch.cat([scores, call.sinks.float()[None, :, None].expand(*scores.shape[:2], 1)], dim=-1)
    shares = scores.softmax(-1)[..., : k.shape[2]]
    return shares, torch.einsum("bhk,bhkd->bhd", shares.to(v.dtype), v)


# -- branches --------------------------------------------------------------------------------------------


def _try(model: LayeredModel, ids: Tensor) -> tuple[bool, str]:
    base, other = (BaseRun.of(row.tolist()) for row in ids[:2])
    tokens, depths = ids.shape[1], model.n_layers
    places = sorted({(0, 1), (depths // 2, tokens // 2), (depths - 1, tokens // 3)})
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth, token in places]
    flips, choices, whole, fast = _both(model, branches, base, other)
    experts = f"; {flips} of {choices} expert choices flipped by rounding" if choices else ""
    if not close(fast, whole) and not flips:
        return False, f"logits differ by {float((fast - whole).abs().max()):.2g}"
    return True, f"{len(branches)} branches give the same logits{experts}"


def _both(
    model: LayeredModel, branches: list[Branch], base: BaseRun, other: BaseRun
) -> tuple[int, int, Tensor, Tensor]:
    flips = choices = 0
    whole, fast = [], []
    base_recording, other_recording = record(model, base, keep=("k", "v", "calls")), record(model, other)
    for branch in branches:
        results = []
        for path in (run_plainly, run_branches):
            with _expert_choices(model) as chosen:
                logits = path(
                    model,
                    [branch],
                    base=base_recording,
                    other=other_recording,
                    read=lambda said, _: said.logits()[:, -1],
                )
            results.append((logits, {name: rows[-1] for name, rows in chosen.items()}))
        (logits, experts), (ours, our_experts) = results
        whole.append(logits)
        fast.append(ours)
        # A branch passes only the blocks from its own on.
        for name in our_experts:
            choices += 1
            flips += not torch.equal(experts[name].sort().values, our_experts[name].sort().values)
    return flips, choices, torch.cat(whole), torch.cat(fast)


@contextmanager
def _expert_choices(model: LayeredModel) -> Iterator[dict[str, Tensor]]:
    """The last choices of modules that give whole numbers, as routers of mixtures of experts do."""
    chosen: dict[str, Tensor] = {}

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            for entry in output if isinstance(output, tuple | list) else ():
                if isinstance(entry, Tensor) and entry.dtype == torch.int64 and entry.dim() == 2:
                    chosen[name] = entry.detach()

        return keep

    with ExitStack() as stack:
        for number, block in enumerate(model.blocks):
            for name, module in block.named_modules():
                stack.callback(module.register_forward_hook(keeper(f"{number}.{name}")).remove)
        yield chosen
