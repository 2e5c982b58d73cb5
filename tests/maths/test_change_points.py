"""Change points against all cuts tried one by one, and staircases told from slopes."""

from itertools import combinations

import numpy as np
import pytest

from layerscope.maths.change_points import cut, phases, phases_in_resamples, standardised


def squares_left(rows: np.ndarray, places: tuple[int, ...]) -> float:
    return sum(((part - part.mean(axis=0)) ** 2).sum() for part in np.split(rows, places))


@pytest.mark.parametrize("changes", [0, 1, 2, 3])
def test_the_cut_is_the_best_of_all_cuts(changes: int) -> None:
    rng = np.random.default_rng(changes)
    for _ in range(20):
        rows = rng.standard_normal((9, 2)).cumsum(axis=0)

        found = cut(rows, changes)

        best = min(squares_left(rows, places) for places in combinations(range(1, 9), changes))
        assert squares_left(rows, found) == pytest.approx(best)


def test_a_large_level_costs_no_digits() -> None:
    rows = np.array([[0.0], [0.0], [0.0], [1.0], [1.0]]) * 1e-3 + 1e6

    assert cut(rows, 1) == (3,)


def test_a_staircase_is_found_and_beats_a_slope() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat([0.0, 3.0, 1.0], [4, 5, 3])[:, None] * [1, -1] + rng.normal(0, 0.2, (12, 2))

    found = phases(rows)

    assert found.changes == (4, 9)
    assert found.better_than_drift
    assert found.explained > 0.95


@pytest.mark.parametrize("power", [1, 2])
def test_a_slope_is_no_staircase(power: int) -> None:
    rng = np.random.default_rng(0)
    places = np.linspace(0, 2, 24) ** power
    better = [phases((places + rng.normal(0, 0.1, 24))[:, None]).better_than_drift for _ in range(100)]

    assert sum(better) <= 5


def test_a_level_curve_has_no_phases() -> None:
    rng = np.random.default_rng(3)
    assert phases(np.ones((8, 2))).changes == ()
    better = [phases(rng.standard_normal((16, 3))).better_than_drift for _ in range(200)]
    assert sum(better) <= 10


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="changes"):
        cut(np.zeros((3, 1)), 3)
    with pytest.raises(ValueError, match="NaN"):
        phases(np.array([[1.0], [np.nan], [2.0]]))


def resamples(rows: np.ndarray, noise: float) -> np.ndarray:
    return rows + np.random.default_rng(1).normal(0, noise, (200, *rows.shape))


def test_where_phases_begin_has_an_interval_over_resamples() -> None:
    rows = np.repeat([0.0, 3.0, 1.0], [4, 5, 3])[:, None] * [1, -1] + np.random.default_rng(0).normal(
        0, 0.2, (12, 2)
    )

    found = phases_in_resamples(rows, resamples(rows, 0.1), units=30)

    assert found.begins.value.tolist() == found.begins.low.tolist() == found.begins.high.tolist() == [4, 9]
    assert found.better == 1.0


def test_a_slope_has_no_phases_in_any_resample() -> None:
    rows = np.linspace(0, 3, 12)[:, None] * [1, -1, 0.5] + np.random.default_rng(0).normal(0, 0.05, (12, 3))

    assert phases_in_resamples(rows, resamples(rows, 0.02), units=30).better == 0.0


def test_curves_are_standardised_one_by_one_and_a_level_one_is_zero() -> None:
    curves = np.stack([np.array([1.0, 2.0, 3.0]), np.full(3, 5.0)], axis=-1)

    np.testing.assert_allclose(standardised(curves)[:, 0], np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert standardised(curves)[:, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(
        standardised(np.stack([curves, 2 * curves])), np.stack([standardised(curves)] * 2)
    )
