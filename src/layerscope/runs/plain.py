"""The plain path: patched runs as whole forward passes, batched by equal length.

It serves every decoder and is the reference that every fast path is tested against. Rows of a batch
are runs of one prompt under different edits; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch


class Restoration(NamedTuple):
    """One patched run: a noise draw, and the states that are put back in it, all at one depth.

    Without tokens nothing is restored: the noised run itself.
    """

    sample: int
    tokens: tuple[int, ...] = ()
    depth: int = 0


def restored_log_probabilities(
    model: LayeredModel,
    ids: Sequence[int],
    restorations: Sequence[Restoration],
    *,
    noise: Float[Tensor, "sample noised width"],
    noised: Sequence[int],
    clean: Float[Tensor, "depth token width"],
    answer: int,
    tokens_per_pass: int,
) -> Float[Tensor, "restoration"]:
    """Log-probability of the answer in each patched run.

    Args:
        model: the model.
        ids: the prompt.
        restorations: the runs wanted.
        noise: added to resid_pre 0 at the noised tokens. Positions are added to a token's contribution,
            so this equals noise on the contribution itself, in every family.
        noised: positions of the noised tokens.
        clean: states of the clean run, at every depth.
        answer: id of the answer's token.
        tokens_per_pass: bound on rows times tokens of one forward pass; with the prompt's length it
            alone decides how runs are grouped.

    Returns:
        Log-probabilities in nats, float32, on the CPU.
    """
    rows = max(1, tokens_per_pass // len(ids))
    pieces = [
        _one_pass(model, ids, restorations[start : start + rows], noise, noised, clean, answer)
        for start in range(0, len(restorations), rows)
    ]
    return torch.cat(pieces) if pieces else torch.empty(0)


def _one_pass(
    model: LayeredModel,
    ids: Sequence[int],
    restorations: Sequence[Restoration],
    noise: Tensor,
    noised: Sequence[int],
    clean: Tensor,
    answer: int,
) -> Tensor:
    changes = {0: _noise_then_restore(restorations, noise, noised, clean[0])}
    for depth in sorted({run.depth for run in restorations if run.tokens} - {0}):
        changes[depth] = _restore(restorations, depth, clean[depth])
    with at_depth(model.blocks, changes):
        logits = model.logits(as_batch(ids, len(restorations)), last=True)
    return logits[:, -1].float().log_softmax(-1)[:, answer].cpu()


def _noise_then_restore(
    restorations: Sequence[Restoration], noise: Tensor, noised: Sequence[int], clean: Tensor
) -> Callable[[Tensor], Tensor]:
    restore = _restore(restorations, 0, clean)
    draws = noise[[run.sample for run in restorations]]

    def change(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[:, list(noised)] += draws.to(stream)
        return restore(stream)

    return change


def _restore(restorations: Sequence[Restoration], depth: int, clean: Tensor) -> Callable[[Tensor], Tensor]:
    cells = [
        (row, token) for row, run in enumerate(restorations) if run.depth == depth for token in run.tokens
    ]
    rows, tokens = [row for row, _ in cells], [token for _, token in cells]

    def change(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[rows, tokens] = clean[tokens].to(stream)
        return stream

    return change
