"""How many of its last tokens keep a state as it is?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def shortest_enough(
    similarity: Float[np.ndarray, "*rest length"], lengths: Sequence[float], enough: float
) -> Float[np.ndarray, "*rest"]:
    """The shortest of increasing context lengths from which on all reach a similarity.

    A length that is unknown (NaN) is passed over.

    Args:
        similarity: by context length, last axis.
        lengths: what that axis stands for, increasing.
        enough: the similarity that must be reached there and at every longer length.

    Returns:
        A length; NaN where even the longest is not enough, or nothing is known.

    Source: ours.
    """
    # Counted from the longest: how many in a row are enough.
    held = (similarity >= enough) | np.isnan(similarity)
    in_a_row = np.cumprod(np.flip(held, axis=-1), axis=-1).sum(axis=-1)
    known = np.isfinite(similarity).any(axis=-1)
    places = np.clip(len(lengths) - in_a_row, 0, len(lengths) - 1)
    return np.asarray(np.where(known & (in_a_row > 0), np.array(lengths, dtype=np.float64)[places], np.nan))


def spread_lengths(lengths: Sequence[int], most: int) -> list[int]:
    """At most so many of increasing lengths: all of them, or those nearest to a geometric progression.

    Source: ours.
    """
    if len(lengths) <= most:
        return [int(length) for length in lengths]
    every = np.asarray(lengths)
    wanted = np.geomspace(every[0], every[-1], most)
    nearest = np.abs(every[:, None] - wanted).argmin(axis=0)
    return [int(every[place]) for place in np.unique(nearest)]
