"""What heads' mean patterns give at fixed queries: their distances, with the keys of each text weighted anew.

Sums over queries are linear in the pattern, so the mean over texts of such a sum, kept key by key, is the sum
of the mean pattern. Heads x 8 x T numbers stand for heads x queries x T, and no pattern is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from layerscope.maths.attention import DISTANCE_BINS, OFFSETS, band_name
from layerscope.models.attention import AttentionCall
from layerscope.models.layered import LayeredModel
from layerscope.runs.attention_columns import Asked, Columns, Sums
from layerscope.runs.attention_questions import asked_of
from layerscope.runs.attention_statistics import attend_by, attended

FIXED_SUMS = (
    "fixed", "query position, fixed", *(band_name(first) for first, last in DISTANCE_BINS if last is not None),
)  # fmt: skip
"""Sums over fixed queries that are kept for each key: all mass, the same times the query's position, and the
mass in each distance bin but the last, which is what the others leave."""


@torch.no_grad()
def fixed_columns(
    model: LayeredModel, ids: Sequence[Sequence[int]], fixed: tuple[int, int]
) -> tuple[tuple[int, ...], Tensor]:
    """What each key gets of fixed queries, summed over texts.

    Args:
        model: the model.
        ids: texts of one length, which hold the fixed queries.
        fixed: queries first .. last + 1.

    Returns:
        The layer of each head, and [head sum key], the sums being FIXED_SUMS, the heads of all layers side
        by side.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    asked = asked_of(ids, fixed=fixed, device=model.device)
    found: dict[int, Tensor] = {}

    def summing(layer: int) -> Callable[[AttentionCall], Tensor]:
        def attend(call: AttentionCall) -> Tensor:
            columns, head_out = Columns(asked, call.q.shape[1]), []
            for block in asked.blocks:
                pattern, _, out = attended(call, block.start, block.stop)
                if block.stop > fixed[0]:  # earlier queries are in no sum that is asked for here
                    columns.add(block, pattern)
                head_out.append(out)
            found[layer] = _chosen(asked, columns.whole().sum(0))
            return torch.cat(head_out, dim=2)

        return attend

    layers = attend_by(model, asked.ids, summing)
    return (
        tuple(layer for layer in layers for _ in found[layer]),
        torch.cat([found[layer] for layer in layers]),
    )


def _chosen(asked: Asked, columns: Tensor) -> Tensor:
    """FIXED_SUMS of all columns [head sum key]; near bins are sums over distances that are kept one by one."""
    places = {name: place for place, name in enumerate(asked.names)}
    parts = [columns[:, places[name]] for name in FIXED_SUMS[:2]]
    for first, last in DISTANCE_BINS[:-1]:
        if last is not None and last < OFFSETS:
            near = [places[f"offset {offset}"] for offset in range(first, last + 1)]
            parts.append(columns[:, near].sum(1))
        else:
            parts.append(columns[:, places[band_name(first)]])
    return torch.stack(parts, dim=1)


def fixed_sums(columns: Tensor, weights: Tensor) -> Sums:
    """Columns [head sum key] of mean patterns with the keys of texts weighted [text head definition key].

    Returns:
        By name [definition text head]: FIXED_SUMS, and the first two with each key counted by its position.
    """
    weights = weights[..., : columns.shape[-1]]
    columns = columns[..., : weights.shape[-1]].to(weights)
    position = torch.arange(weights.shape[-1]).to(weights)
    linear = (weights @ columns.transpose(-1, -2)).movedim(2, 0)
    positions = (weights @ (columns[:, :1] * position).transpose(-1, -2)).movedim(2, 0)
    sums = {name: linear[..., place] for place, name in enumerate(FIXED_SUMS)}
    return sums | {f"key position, {FIXED_SUMS[0]}": positions[..., 0]}
