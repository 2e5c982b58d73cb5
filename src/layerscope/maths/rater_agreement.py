"""Do people who judged the same things agree more than chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from layerscope.maths.bootstrap import Interval, bootstrap_statistic


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float:
    """Krippendorff's alpha for nominal answers: 1 - observed over expected disagreement.

    Any number of raters; missing answers are simply not there. Units with fewer than two answers
    do not count.

    Args:
        units: the answers that each unit got.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less; NaN where no unit has two
        answers, or where everybody always gave the same one (nothing can be expected then).

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability"; Hayes & Krippendorff 2007.
    """
    paired = [Counter(answers) for answers in units if len(answers) > 1]
    totals = sum(paired, Counter[str]())
    n = totals.total()
    if not n:
        return float("nan")
    observed = sum(_unequal_pairs(counts) / (counts.total() - 1) for counts in paired) / n
    expected = _unequal_pairs(totals) / (n * (n - 1))
    return 1 - observed / expected if expected else float("nan")


def _unequal_pairs(counts: Counter[str]) -> int:
    """Ordered pairs of answers that differ."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())


def alpha_interval(
    units: Sequence[Sequence[str]], groups: Sequence[str], *, seed: int, level: float, resamples: int
) -> Interval:
    """Krippendorff's alpha with a bootstrap interval over groups of units.

    Args:
        units: the answers that each unit got.
        groups: what is independent: contexts of one key are not.
        seed, level, resamples: see `bootstrap_statistic`.
    """
    members: Mapping[str, list[int]] = {name: [] for name in dict.fromkeys(groups)}
    for place, group in enumerate(groups):
        members[group].append(place)
    names = list(members)

    def alpha(rows: np.ndarray) -> np.ndarray:
        chosen = [units[place] for row in rows.astype(int) for place in members[names[row]]]
        return np.array(krippendorff_alpha(chosen))

    places = np.arange(len(names), dtype=np.float64)
    return bootstrap_statistic(places, alpha, seed=seed, level=level, resamples=resamples)
