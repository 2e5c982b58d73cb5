"""How many of its last tokens decide a state?"""

from __future__ import annotations

import numpy as np
import xarray as xr

_MOST_LENGTHS = 24


def reach_lengths(cut: xr.Dataset) -> list[int]:
    """Context lengths among which the shortest is sought: all that were measured, or a geometric choice of many."""
    known = np.isfinite(cut.similarity.values).any(axis=(0, 2))
    lengths = cut.kept_tokens.values[known]
    if len(lengths) <= _MOST_LENGTHS:
        return [int(length) for length in lengths]
    wanted = np.geomspace(lengths[0], lengths[-1], _MOST_LENGTHS)
    nearest = np.abs(lengths[:, None] - wanted).argmin(axis=0)
    return [int(lengths[place]) for place in np.unique(nearest)]


def shortest_enough(similarity: np.ndarray, lengths: list[int], enough: float) -> np.ndarray:
    """The shortest of the lengths from which on all reach a similarity [... length depth]; NaN where none does."""
    # Counted from the longest: how many in a row are enough; a length that is unknown is passed over.
    held = (similarity >= enough) | np.isnan(similarity)
    in_a_row = np.cumprod(np.flip(held, axis=-2), axis=-2).sum(axis=-2)
    known = np.isfinite(similarity).any(axis=-2)
    places = np.clip(len(lengths) - in_a_row, 0, len(lengths) - 1)
    return np.asarray(np.where(known & (in_a_row > 0), np.array(lengths, dtype=np.float64)[places], np.nan))
