"""At which depth does information cross from the noised token to the last one?

Two rows over depth, 0 to n blocks: recovery when the noised token's state is restored there, which
falls, and when the last token's is, which rises. All depths are interpolated linearly and counted in
blocks already applied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from layerscope.maths.arrays import Array, to_float64


@dataclass(frozen=True)
class Transition:
    """Where, how sharply and how cleanly the two rows change places; NaN is unknown.

    Attributes:
        layer: depth of the last upward crossing of last − noised through zero, in [0, n].
        onset: depth of the last upward crossing of the last token's row through 0.1, in [0, n].
        width: blocks from that crossing of 0.1 to the last upward crossing of 0.9, ≥ 0.
        crossings: sign changes of last − noised, a whole number: 1 is one clean change of places, an
            even number means that the last token's row ended below, so `layer` is not a handover.
    """

    layer: float
    onset: float
    width: float
    crossings: float


def transition(noised_row: Float[Array, "depth"], last_row: Float[Array, "depth"]) -> Transition:
    """The handover between two rows of recovery, of one prompt or of a mean over prompts.

    `layer` needs no threshold, being where both tokens matter equally; `onset` and `width` read the
    last token's row alone. For a logistic row of scale s the width is 4.39 s.

    Args:
        noised_row: recovery when the noised token is restored at each depth.
        last_row: recovery when the last token is restored at each depth.

    Returns:
        A `Transition`. All NaN when a row it rests on holds a NaN. The width is NaN when either
        crossing is missing, or when the row fell back below 0.1 after its last rise through 0.9.

    Source: Kinniment 2022, transition layers read by eye; the definitions are ours.
    """
    ahead = to_float64(last_row) - to_float64(noised_row)
    onset = last_rise_through(last_row, 0.1)
    width = last_rise_through(last_row, 0.9) - onset
    return Transition(
        layer=last_rise_through(ahead, 0.0),
        onset=onset,
        width=width if width >= 0 else math.nan,
        crossings=_sign_changes(ahead),
    )


def last_rise_through(row: Float[Array, "depth"], level: float) -> float:
    """Depth of the last upward crossing of a level, interpolated linearly.

    A crossing goes from a depth strictly below the level to the next one strictly above it. Depths
    exactly at the level lie on neither side: one between the two is where the row crosses, of
    several the middle counts, and a row that only touches the level, starts or ends on it does not
    cross there.

    Returns:
        A depth in (0, n); NaN when the row never crosses upwards or holds a NaN.

    Source: definition.
    """
    height = to_float64(row) - level
    beside = np.flatnonzero(height)
    rises = np.flatnonzero((height[beside][:-1] < 0) & (height[beside][1:] > 0))
    if np.isnan(height).any() or not rises.size:
        return math.nan
    below, above = beside[rises[-1]], beside[rises[-1] + 1]
    if above - below > 1:
        return float(below + above) / 2
    return float(below + height[below] / (height[below] - height[above]))


def _sign_changes(row: Float[np.ndarray, "depth"]) -> float:
    if np.isnan(row).any():
        return math.nan
    signs = np.sign(row[row != 0])
    return float((signs[1:] != signs[:-1]).sum())


def routed_elsewhere(
    recoveries: Float[Array, "token depth"], *, noised: Sequence[int] | Int[Array, "noised"], last: int
) -> float:
    """Share of the recovery that passes through tokens which are neither noised nor last.

    Positive recoveries are summed over depths 1 to n − 1; the two ends are left out because there
    the answer is known (all of it is at the noised tokens, then at the last one). Near 0: the two
    rows tell the whole story. Beware: keeping only positive values turns noise into a share; compare
    with the same number from a null.

    Args:
        recoveries: recovery when one token is restored at one depth, for every token.
        noised: positions of the noised tokens.
        last: position of the last token, which may be counted from the end (-1).

    Returns:
        A share in [0, 1]; NaN when nothing recovers between the ends, when the model has one block,
        and when a cell between the ends is NaN.

    Source: ours; Kinniment 2022 averages only the two rows.
    """
    area = np.maximum(to_float64(recoveries)[:, 1:-1], 0).sum(axis=1)
    elsewhere = np.ones(len(area), dtype=bool)
    elsewhere[[*map(int, noised), last]] = False
    total = area.sum()
    return float(area[elsewhere].sum() / total) if total != 0 else math.nan
