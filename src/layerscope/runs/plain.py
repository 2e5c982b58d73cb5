"""The plain path: patched runs as whole forward passes, batched by equal length.

It serves every decoder and is the reference that every fast path is tested against. Rows of a batch
are runs of one prompt under different edits; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch

NOWHERE = -1


class Restoration(NamedTuple):
    """One patched run: a noise draw, and the state that is restored in it.

    `depth` NOWHERE restores nothing: the noised run itself.
    """

    sample: int
    token: int = NOWHERE
    depth: int = NOWHERE


@dataclass(frozen=True)
class _Pass:
    """The rows of one forward pass, as index tensors."""

    sample: Tensor
    token: Tensor
    depth: Tensor


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
    sample, token, depth = torch.tensor(restorations).T
    rows = _Pass(sample, token, depth)
    changes = {0: _noise_then_restore(rows, noise, noised, clean[0])}
    for wanted in sorted(set(depth.tolist()) - {0, NOWHERE}):
        changes[wanted] = _restore(rows, wanted, clean[wanted])
    with at_depth(model.blocks, changes):
        logits = model.logits(as_batch(ids, len(restorations)), last=True)
    return logits[:, -1].float().log_softmax(-1)[:, answer].cpu()


def _noise_then_restore(
    rows: _Pass, noise: Tensor, noised: Sequence[int], clean: Tensor
) -> Callable[[Tensor], Tensor]:
    restore = _restore(rows, 0, clean)

    def change(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[:, list(noised)] += noise[rows.sample].to(stream)
        return restore(stream)

    return change


def _restore(rows: _Pass, depth: int, clean: Tensor) -> Callable[[Tensor], Tensor]:
    here = (rows.depth == depth).nonzero()[:, 0]
    tokens = rows.token[here]

    def change(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[here.to(stream.device), tokens.to(stream.device)] = clean[tokens].to(stream)
        return stream

    return change
