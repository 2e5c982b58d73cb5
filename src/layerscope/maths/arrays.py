"""What numpy arrays and torch tensors do not spell alike, so that formulas can be written once."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

Array = Any
"""A numpy array or a torch tensor: in `Float[Array, "*batch width"]` only shape and dtype are checked."""


def at_least_float32(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same values in float32, or as they are if they are finer.

    Squares of a state overflow float16 once its norm passes 256, and in bfloat16 a step between two
    depths keeps two digits. Stays in the library and on the device it came from.
    """
    if _is_tensor(values):
        return values.float() if values.element_size() < 4 else values
    return values.astype(np.promote_types(values.dtype, np.float32))


def to_float64(values: Num[Array, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The values as a numpy array in float64, from an array or a tensor on any device."""
    if _is_tensor(values):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def divide(above: Float[Array, "*shape"], below: Num[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """above / below, NaN wherever `below` is zero, and no warning.

    A ratio to nothing is unknown, whatever stands above it: never infinity, which would survive an
    average and a clip.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / (below / (below != 0))


def log_sum_exp(values: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """ln Σ exp along the last axis, safe for values of any size."""
    return largest(values) + log_sum_exp_above(values)


def log_sum_exp_above(values: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """ln Σ exp along the last axis, less the largest value.

    Of a tensor by its library's softmax, which goes over each row once while it lies in the cache.
    """
    if _is_tensor(values):
        return -largest(values.softmax(-1)).log()  # the largest share is 1 / Σ exp (z − highest)
    return np.log(np.exp(values - largest(values)[..., None]).sum(-1))


def largest(values: Num[Array, "*shape"]) -> Num[Array, "*rest"]:
    """The largest value along the last axis."""
    return values.amax(-1) if _is_tensor(values) else values.max(-1)


def at_least(
    values: Float[Array, "*rest n"], bound: Float[Array, "*rest one"], *, overwrite: bool = False
) -> Shaped[Array, "*rest n"]:
    """1 or True where a value reaches a bound; in the values' own place where they may be overwritten."""
    if _is_tensor(values):  # summing truth values is several times slower; float32 counts to 16 million
        import torch

        return torch.ge(values, bound, out=values if overwrite else torch.empty_like(values))
    return values >= bound


def count(ones: Shaped[Array, "*rest n"]) -> Int[Array, "*rest"]:
    """How many ones there are along the last axis."""
    return ones.sum(-1).long() if _is_tensor(ones) else ones.sum(-1)


def product(
    values: Float[Array, "*shape"], by: Float[Array, "*shape"], *, overwrite: bool = False
) -> Float[Array, "*shape"]:
    """values x by; in the values' own place where they may be overwritten."""
    if not overwrite:
        return values * by
    values *= by
    return values


def log_softmax(values: Float[Array, "*rest n"]) -> Float[Array, "*rest n"]:
    """ln (exp z / Σ exp z) along the last axis, safe for values of any size."""
    if _is_tensor(values):
        return values.log_softmax(-1)
    # From the largest on: float32 holds a difference of large numbers to few digits.
    above = values - largest(values)[..., None]
    return above - np.log(np.exp(above).sum(-1))[..., None]


def chosen(values: Num[Array, "*rest n"], places: Int[Array, "*rest k"]) -> Num[Array, "*rest k"]:
    """The values at some places along the last axis."""
    return values.gather(-1, places) if _is_tensor(values) else np.take_along_axis(values, places, -1)


def exp(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """e to the power of each value."""
    return values.exp() if _is_tensor(values) else np.exp(values)


def _is_tensor(values: Array) -> bool:
    return hasattr(values, "detach")
