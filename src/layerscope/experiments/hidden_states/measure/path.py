"""What is measured of a state's path, once for tokens of passages and once for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from layerscope.evidence import named
from layerscope.maths.arrays import divide
from layerscope.maths.path import share_of_step, steps
from layerscope.maths.similarity import cosine, cosines_between, norm

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.runs import Contributions

OVER_DEPTH = {
    "norm": "norm of the residual stream",
    "centred_norm": "distance of the state from the mean state",
    "norm_without": "norm without the massive dimensions",
    "massive_share": "share of the squared norm in the state's own largest entries",
}
OVER_LAYERS = {
    "step": "length of a layer's step",
    "relative_step": "length of a layer's step over that of the state",
    "turn": "cosine between a layer's step and the step before it",
    "successive_cosine": "cosine between the states before and after a layer",
    "centred_cosine": "centred cosine between the states before and after a layer",
    "relative_step_without": "relative step without the massive dimensions",
    "cosine_without": "cosine before and after a layer, without the massive dimensions",
    "step_direction": "cosine between a layer's step and the state before it",
    "attention_share": "share of attention in a layer's step",
    "mlp_share": "share of the MLP in a layer's step",
    "attention_length": "length of what attention adds over that of the state",
    "mlp_length": "length of what the MLP adds over that of the state",
    "attention_direction": "cosine between what attention adds and the state before the layer",
    "mlp_direction": "cosine between what the MLP adds and the state before the layer",
}
RATIOS = frozenset({"norm", "centred_norm", "norm_without", "step", "relative_step", "relative_step_without",
                    "attention_length", "mlp_length"})  # fmt: skip
"""Lengths and their ratios: positive, and averaged as logarithms."""


def long_name(name: str) -> str:
    """What a quantity is."""
    return (OVER_DEPTH | OVER_LAYERS)[name]


def axis_of(name: str) -> str:
    """Whether a quantity lies along depth or layer."""
    return "depth" if name in OVER_DEPTH else "layer"


def path(
    found: Contributions, *, centre: Tensor, massive: Sequence[int], dimension: str, prefix: str = ""
) -> list[xr.DataArray]:
    """Every quantity of the tokens of one text, over a dimension and depth or layer.

    Args:
        found: the text's states and what was added to them.
        centre: mean state at every depth [depth width].
        massive: dimensions that are left out for the quantities "without" them.
        dimension: "token" or "prompt".
        prefix: put before the variables' names.
    """
    states, attention, mlp = (part.transpose(0, 1) for part in (found.states, found.attention, found.mlp))
    return [
        named(value.float(), f"{prefix}{name}", long_name(name), dims=(dimension, axis_of(name)))
        for name, value in _measured(states, attention, mlp, centre, massive).items()
    ]


def _measured(
    states: Tensor, attention: Tensor, mlp: Tensor, centre: Tensor, massive: Sequence[int]
) -> dict[str, Tensor]:
    """Every quantity; each length is taken once, because that is what takes the time."""
    moves, before = steps(states), states[:, :-1]
    lengths, step = norm(states), norm(moves)
    parts = {"attention": attention, "mlp": mlp}
    reach = {name: norm(part) for name, part in parts.items()}
    return {
        "norm": lengths,
        "massive_share": _largest_share(states, len(massive)),
        "step": step,
        "relative_step": divide(step, lengths[:, :-1]),
        "turn": _after_the_first(cosine(moves[:, :-1], moves[:, 1:], lengths=(step[:, :-1], step[:, 1:]))),
        "step_direction": cosine(moves, before, lengths=(step, lengths[:, :-1])),
        **_neighbours(states, lengths, "norm", "successive_cosine"),
        **_neighbours(states - centre, None, "centred_norm", "centred_cosine"),
        **_without_massive(states, moves, massive),
        **{f"{name}_share": share_of_step(part, moves) for name, part in parts.items()},
        **{f"{name}_length": divide(reach[name], lengths[:, :-1]) for name in parts},
        **{
            f"{name}_direction": cosine(part, before, lengths=(reach[name], lengths[:, :-1]))
            for name, part in parts.items()
        },
    }


def _neighbours(states: Tensor, lengths: Tensor | None, length: str, cosine_: str) -> dict[str, Tensor]:
    lengths = norm(states) if lengths is None else lengths
    both = (lengths[:, :-1], lengths[:, 1:])
    return {length: lengths, cosine_: cosine(states[:, :-1], states[:, 1:], lengths=both)}


def _without_massive(states: Tensor, moves: Tensor, massive: Sequence[int]) -> dict[str, Tensor]:
    others = _without(states, massive)
    found = _neighbours(others, None, "norm_without", "cosine_without")
    step = norm(_without(moves, massive))
    return found | {"relative_step_without": divide(step, found["norm_without"][:, :-1])}


def _without(states: Tensor, massive: Sequence[int]) -> Tensor:
    if not massive:
        return states
    states = states.clone()
    states[..., list(massive)] = 0
    return states


def _largest_share(states: Tensor, count: int) -> Tensor:
    squares = states * states
    return squares.topk(count, dim=-1).values.sum(-1) / squares.sum(-1)


def _after_the_first(turns: Tensor) -> Tensor:
    """Turns lie between two layers; each is given to the later one."""
    import torch

    return torch.nn.functional.pad(turns, (1, 0), value=torch.nan)


def pair_cosines(states: Tensor, centre: Tensor, dimension: str, prefix: str = "") -> list[xr.DataArray]:
    """Cosines between the states of one token at every two depths, as they are and centred.

    Args:
        states: [depth token width].
        centre: [depth width].
        dimension: name of the tokens' dimension.
        prefix: put before the variables' names.
    """
    rows, dims = states.transpose(0, 1), (dimension, "depth", "other_depth")
    what = "cosine between the states at two depths"
    return [
        named(cosines_between(rows), f"{prefix}pair_cosine", what, dims=dims),
        named(
            cosines_between(rows - centre),
            f"{prefix}pair_cosine_centred",
            f"{what}, the mean state taken away",
            dims=dims,
        ),
    ]
