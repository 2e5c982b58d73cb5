"""Least squares, planted and by hand."""

import numpy as np
import pytest

from layerscope.maths.regression import regress


def test_planted_effects_are_found_and_absent_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    distance, odds, group = rng.normal(size=(3, 200))
    outcome = 3 + 2 * distance - 2 * odds + rng.normal(size=200) * 0.5

    terms, n = regress(outcome, {"distance": distance, "odds": odds, "group": group}, per_term=1)

    assert n == 200
    assert [round(term.value) for term in terms[:2]] == [2, -2]
    assert all(term.low < true < term.high for term, true in zip(terms, (2, -2, 0), strict=True))
    assert terms[0].p < 1e-6
    assert terms[2].p > 0.01


def test_a_line_through_points_by_hand() -> None:
    terms, n = regress(
        np.array([1.0, 3.0, 5.0, np.nan, 8.0]), {"x": np.array([0.0, 1.0, 2.0, 9.0, 3.0])}, per_term=1
    )

    # Means 1.5 and 4.25: sum of products 11.5 over sum of squares 5.
    assert terms[0].value == pytest.approx(2.3)
    assert n == 4


def test_what_cannot_be_told_apart_is_nan() -> None:
    x = np.arange(8.0)

    terms, _ = regress(x**2, {"x": x, "twice": 2 * x, "constant": np.ones(8)}, per_term=1)

    assert np.isfinite(terms[0].value)
    assert np.isnan([terms[1].value, terms[2].p]).all()


def test_a_unit_that_decides_alone_gives_nothing() -> None:
    terms, n = regress(
        np.array([1.0, 2.0, 1.5, 9.0]), {"only one": np.array([0.0, 0.0, 0.0, 1.0])}, per_term=1
    )

    assert n == 4
    assert np.isnan(terms[0].value)


def test_fewer_than_ten_units_a_term_are_not_fitted() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 20))

    enough, n = regress(x + other, {"x": x, "other": other})
    few, _ = regress((x + other)[:19], {"x": x[:19], "other": other[:19]})

    assert n == 20
    assert np.isfinite([term.value for term in enough]).all()
    assert np.isnan([term.value for term in few]).all()
