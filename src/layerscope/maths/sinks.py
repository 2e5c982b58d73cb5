"""Which tokens are attention sinks, told by the length of their states?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from layerscope.maths.arrays import Array

TIMES_THE_MEDIAN = 10.0
"""A state this many times as long as the median of its layer marks a sink."""


def sink_tokens(
    norms: Float[Array, "*batch token"], *, times: float = TIMES_THE_MEDIAN
) -> Bool[Array, "*batch token"]:
    """Tokens whose state is more than `times` as long as the median state of the same text and depth.

    Sinks carry massive activations: their states are tens of times longer than any other, and they
    need not stand first. The median is the lower one of the two middle values, in numpy and torch alike.

    Args:
        norms: lengths of the residual stream's states, the tokens of one text along the last axis.
        times: how many times the median.

    Returns:
        True at sinks; nowhere in a text whose median is zero, and nowhere beside a NaN.

    Source: Sun et al. 2024, "Massive activations in large language models"; the factor of 10 is ours.
    """
    middle = (norms.shape[-1] - 1) // 2
    ordered = norms.sort(-1).values if hasattr(norms, "detach") else np.sort(norms, axis=-1)
    median = ordered[..., middle : middle + 1]
    return (norms > times * median) & (median > 0)
