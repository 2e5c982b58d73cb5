"""One outcome against several explanations at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64

UNITS_PER_TERM = 10
"""Units that each explanation needs for a regression to be fitted at all."""


@dataclass(frozen=True)
class Term:
    """One coefficient of a regression, NaN where it cannot be told.

    Attributes:
        name: of the explanation.
        value: change of the outcome per unit of the explanation, the others held fixed.
        low, high: its interval.
        p: two-sided, of no effect.
    """

    name: str
    value: float
    low: float
    high: float
    p: float


def regress(
    outcome: Float[Array, "unit"],
    explanations: Mapping[str, Float[Array, "unit"]],
    *,
    level: float = 0.95,
    per_term: int = UNITS_PER_TERM,
) -> tuple[list[Term], int]:
    """Ordinary least squares with an intercept and errors that may differ from unit to unit (HC3).

    Units with a NaN anywhere are left out. An explanation that does not vary, or that the others determine,
    gets NaN: its effect is not to be told from this data. So do all where one unit alone decides a term, and
    where there are fewer than `per_term` units for each term: such a fit describes its units and no others.

    Args:
        outcome: one value per unit.
        explanations: one column each.
        level: of the intervals.
        per_term: units that each explanation needs.

    Returns:
        One term for each explanation, in order, and the number of units used.

    Source: MacKinnon & White 1985 (HC3), as in statsmodels; Harrell 2015, "Regression Modeling Strategies", 4.4, for
    ten units a term.
    """
    names = list(explanations)
    columns = np.stack([to_float64(explanations[name]) for name in names], axis=1)
    y = to_float64(outcome)
    known = np.isfinite(y) & np.isfinite(columns).all(axis=1)
    y, columns = y[known], columns[known]
    told = _told_apart(columns)
    terms = dict.fromkeys(names, (np.nan,) * 4)
    design = np.column_stack([np.ones(len(y)), columns[:, told]])
    enough = len(y) > design.shape[1] and len(y) >= per_term * len(told)
    if told and enough and _no_unit_decides_alone(design):
        from statsmodels.regression.linear_model import (
            OLS,
        )  # most of a second, which one prompt need not wait

        fit = OLS(y, design).fit(cov_type="HC3", use_t=True)
        spans = fit.conf_int(1 - level)
        for place, column in enumerate(told, start=1):
            terms[names[column]] = (
                float(fit.params[place]),
                float(spans[place][0]),
                float(spans[place][1]),
                float(fit.pvalues[place]),
            )
    return [Term(name, *terms[name]) for name in names], len(y)


def _no_unit_decides_alone(design: Float[np.ndarray, "unit column"]) -> bool:
    """Whether every unit's leverage is below one: HC3 divides by what is left."""
    directions, _ = np.linalg.qr(design)
    return bool(((directions**2).sum(axis=1) < 1 - 1e-9).all())


def _told_apart(columns: Float[np.ndarray, "unit column"]) -> list[int]:
    """Columns that vary and that no others determine: from left to right, those that raise the rank."""
    if not len(columns):
        return []
    kept: list[int] = []
    for column in range(columns.shape[1]):
        tried = np.column_stack([np.ones(len(columns)), columns[:, [*kept, column]]])
        if np.linalg.matrix_rank(tried / np.abs(tried).max(axis=0).clip(1e-300)) == tried.shape[1]:
            kept.append(column)
    return kept
