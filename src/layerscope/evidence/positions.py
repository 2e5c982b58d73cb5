"""Which position ids a cut text gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def resolved(
    model: LayeredModel, positions: Literal["auto", "original", "shifted"]
) -> Literal["original", "shifted"]:
    """Original positions wherever the family takes position ids, unless something else is asked for."""
    from layerscope import runs

    if positions == "auto":
        return "original" if runs.takes_positions(model) else "shifted"
    runs.need_positions(model, positions)
    return positions
