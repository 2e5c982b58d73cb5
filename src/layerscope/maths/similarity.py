"""How alike are two states?"""

from __future__ import annotations

from jaxtyping import Float

from layerscope.maths.arrays import Array, at_least_float32, divide


def norm(states: Float[Array, "*batch width"]) -> Float[Array, "*batch"]:
    """Euclidean length of each state: the root of its summed squares.

    In float32 or finer whatever the states' own precision; float16 could not hold the squares.

    Returns:
        A length ≥ 0 in the units of the state; NaN where the state holds one.

    Source: definition.
    """
    states = at_least_float32(states)
    return (states * states).sum(-1) ** 0.5


def cosine(
    a: Float[Array, "*batch width"],
    b: Float[Array, "*batch width"],
    *,
    lengths: tuple[Float[Array, "*batch"], Float[Array, "*batch"]] | None = None,
) -> Float[Array, "*batch"]:
    """Cosine of the angle between paired states: a·b / (‖a‖ ‖b‖).

    Blind to length, so a state that only grows counts as unmoved. Hidden states share a large
    common direction, which alone makes this number high: see `centred_cosine`.

    Args:
        a: states.
        b: the states they are paired with.
        lengths: their norms, where they are known already.

    Returns:
        A pure number in [-1, 1], clipped against rounding; NaN where either state is zero.

    Source: definition.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    length_a, length_b = (norm(a), norm(b)) if lengths is None else lengths
    return divide(divide((a * b).sum(-1), length_a), length_b).clip(-1, 1)


def centred_cosine(
    a: Float[Array, "*batch width"], b: Float[Array, "*batch width"], *, centre: Float[Array, "*#batch width"]
) -> Float[Array, "*batch"]:
    """Cosine between paired states after removing a common mean from both: cos(a − m, b − m).

    m is the mean state of a corpus at that depth. Hidden states share a large common direction;
    uncentred, nearly every pair looks alike.

    Args:
        a: states.
        b: the states they are paired with.
        centre: the mean to remove, measured on full runs of other text.

    Returns:
        A pure number in [-1, 1]; NaN where a centred state is zero.

    Source: Nanda et al. 2023, "Fact Finding" part 5, set-up.
    """
    centre = at_least_float32(centre)
    return cosine(at_least_float32(a) - centre, at_least_float32(b) - centre)


def cosines_between(states: Float[Array, "*batch depth width"]) -> Float[Array, "*batch depth depth"]:
    """Cosine of the angle between every two states of each row, such as one token's at all depths.

    The same number as `cosine` of each pair, without a copy of the states for every pair.

    Returns:
        Pure numbers in [-1, 1]; NaN beside a zero state.

    Source: definition.
    """
    states = at_least_float32(states)
    units = divide(states, norm(states)[..., None])
    return (units @ units.swapaxes(-1, -2)).clip(-1, 1)
