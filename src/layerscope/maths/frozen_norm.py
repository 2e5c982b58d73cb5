"""A norm whose scale stays what it was in one run: then it is linear, and every vector has its part in what it gives.

A norm gives gain · c(x) / s(x) + shift, where c takes off the mean over entries (LayerNorm) or nothing (RMSNorm), and
s is a length of x. With s as it was for the whole state, a state that is a sum gives the sum of what its parts give,
and the shift once.
"""

from __future__ import annotations

from jaxtyping import Float

from layerscope.maths.arrays import Array


def scaled_by_gain(
    vectors: Float[Array, "*batch width"], gain: Float[Array, "width"], *, centres: bool
) -> Float[Array, "*batch width"]:
    """What a norm makes of vectors before it divides by a length: gain · (v, less its mean where it centres)."""
    if centres:
        vectors = vectors - vectors.mean(-1)[..., None]
    return vectors * gain


def frozen_scale(
    before: Float[Array, "*batch width"],
    after: Float[Array, "*batch width"],
    gain: Float[Array, "width"],
    shift: Float[Array, "width"],
    *,
    centres: bool,
) -> Float[Array, "*batch"]:
    """The length s by which a norm divided: gain · c(before) / s + shift = after, by least squares.

    Told from what the norm gave, so that its epsilon and its rounding are in it.

    Args:
        before: states that a norm was given.
        after: what it gave.
        gain, shift: of the norm.
        centres: whether it takes off the mean over entries.

    Source: Elhage et al. 2021, "A mathematical framework for transformer circuits", on freezing layer norm.
    """
    scaled = scaled_by_gain(before, gain, centres=centres)
    return (scaled * scaled).sum(-1) / (scaled * (after - shift)).sum(-1)
