"""How much of what noise destroyed does a patch bring back?"""

from __future__ import annotations

from jaxtyping import Bool, Float

from layerscope.maths.arrays import Array, at_least_float32, divide, to_float64


def recovery(
    patched: Float[Array, "*batch"], *, noised: Float[Array, "*#batch"], clean: Float[Array, "*#batch"]
) -> Float[Array, "*batch"]:
    """Where a patched run stands between the noised run (0) and the clean run (1).

    (p_patched − p_noised) / (p_clean − p_noised), for a probability or any other read-out. The scale
    makes prompts of different confidence comparable, and is meaningless where noise changed little:
    leave such prompts out with `range_is_large_enough`.

    Args:
        patched: read-out with one state restored; the other two broadcast to its shape.
        noised: read-out of the noised run.
        clean: read-out of the clean run.

    Returns:
        A pure number; below 0 the patch harms, above 1 it helps beyond the clean run; NaN where the
        clean and the noised run agree exactly.

    Source: Kinniment 2022, "Recall and Regurgitation in GPT2", normalised patching score.
    """
    patched, noised, clean = (at_least_float32(value) for value in (patched, noised, clean))
    return divide(patched - noised, clean - noised)


def range_is_large_enough(
    clean: Float[Array, "*batch"], noised: Float[Array, "*#batch"], smallest: float
) -> Bool[Array, "*batch"]:
    """Whether noise lowered the read-out by at least `smallest`: clean − noised ≥ smallest.

    A small range magnifies every wobble of the patched run. A negative one, where noise helped,
    turns harm into recovery; it is never large enough.

    Args:
        clean: read-out of the clean run.
        noised: read-out of the noised run.
        smallest: in the units of the read-out, above 0.

    Returns:
        True or False; False where either run is NaN.

    Source: Kinniment 2022 (weak noise "breaks normalisation"); the threshold is ours.
    """
    if not smallest > 0:
        raise ValueError(f"expected a smallest range above 0, found {smallest}")
    return at_least_float32(clean) - at_least_float32(noised) >= smallest


def recovery_by_draw(
    patched: Float[Array, "draw *rest"],
    *,
    noised: Float[Array, "#draw *#rest"],
    clean: Float[Array, "#draw *#rest"],
) -> Float[Array, "draw *rest"]:
    """What each draw contributes to a recovery whose read-outs are averaged over draws first.

    R + ((a − A) − (1 − R)(b − B) − R(c − C)) / (C − B), where a, b, c are one draw's read-outs, A, B, C their
    means over draws and R = (A − B) / (C − B): the ratio of means, to first order in each draw. The mean over
    draws is R, and the spread over draws says how far R would move with other draws (the delta method).

    Args:
        patched: read-out with one state restored, by draw; the other two broadcast to its shape.
        noised: read-out where a patch does nothing; one for all draws where noise does not touch it.
        clean: read-out where it does everything, likewise.

    Returns:
        A pure number for each draw, in units of recovery; NaN where the mean range is 0.

    Source: Cochran 1977, "Sampling Techniques", section 6.4 (variance of a ratio of means).
    """
    draws = [to_float64(value) for value in (patched, noised, clean)]
    means = [values.mean(axis=0, keepdims=True) for values in draws]
    ratio = recovery(means[0], noised=means[1], clean=means[2])
    a, b, c = (values - mean for values, mean in zip(draws, means, strict=True))
    return ratio + divide(a - (1 - ratio) * b - ratio * c, means[2] - means[1])


def between_floor_and_ceiling(
    value: Float[Array, "*batch"], floor: Float[Array, "*#batch"], ceiling: Float[Array, "*#batch"]
) -> Float[Array, "*batch"]:
    """(value − floor) / (ceiling − floor): 0 at the floor, 1 at the ceiling; NaN where they are within 1e-6.

    Source: definition; the same scale as `recovery`, for values between two references that may touch.
    """
    room = ceiling - floor
    return divide(value - floor, room * (room > 1e-6))
