"""May branches be trusted on this model? A few of them against whole forward passes.

What mixes tokens outside the attention function (recurrence, convolution, attention of a family's own)
shows here, and then every patched run takes the plain path. No list of families decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models.check import close, probe_ids
from layerscope.models.layered import LayeredModel
from layerscope.runs.branches import run_branches
from layerscope.runs.edits import Branch, Put
from layerscope.runs.plain import run_plainly
from layerscope.runs.recordings import BaseRun, record

NAME = "branches equal whole forward passes"


@torch.no_grad()
def check_branches(model: LayeredModel) -> None:
    """Try branches once on a model; adds to its `checks`, and to `refused` where they differ."""
    if any(check["name"] == NAME for check in model.checks):
        return
    holds, detail = _try(model)
    model.checks.append({"name": NAME, "holds": holds, "detail": detail})
    if not holds:
        model.refused["branches"] = detail


def _try(model: LayeredModel) -> tuple[bool, str]:
    if "branches" in model.refused:
        return False, f"{model.refused['branches']}; whole forward passes are taken"
    if "pattern" in model.refused:
        return False, f"{model.refused['pattern']}; whole forward passes are taken"
    without = [str(layer) for layer, module in enumerate(model.attention_modules) if module is None]
    if without:
        return (
            False,
            f"block {', '.join(without[:4])} mixes tokens without attention; whole forward passes are taken",
        )
    if "unembed" in model.refused:
        return False, f"{model.refused['unembed']}; whole forward passes are taken"
    ids = probe_ids(model)
    base, other = (BaseRun.of(row.tolist()) for row in ids[:2])
    tokens, depths = ids.shape[1], model.n_layers
    places = {(0, 1), (depths // 2, tokens // 2), (depths - 1, tokens // 3)}
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth, token in sorted(places)]
    try:
        flips, choices, whole, fast = _both(model, branches, base, other)
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        return False, f"{type(error).__name__}: {first_line}; whole forward passes are taken"
    experts = f"; {flips} of {choices} expert choices flipped by rounding" if choices else ""
    if not close(fast, whole) and not flips:
        gap = float((fast - whole).abs().max())
        return False, f"logits differ by {gap:.2g}; whole forward passes are taken"
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
                    read=lambda logits, _: logits[:, -1],
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
