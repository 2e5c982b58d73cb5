"""Whole curves compared: by hand, on planted differences, and on nulls where nothing may be found."""

import numpy as np
import pytest
import scipy.stats

from layerscope.maths.max_statistic import _paired, _welch, compare_curves, compare_pairs


def test_signs_by_hand() -> None:
    # Three pairs, one cell: 8 deals; |mean| / error is largest for +++ and ---, so p = 2 / 8.
    assert compare_pairs(np.array([[1.0], [2.0], [3.0]]), seed=0)[0] == pytest.approx(0.25)
    # The same deals, but a second cell that ties with it in every deal changes nothing.
    both = compare_pairs(np.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]), seed=0)
    np.testing.assert_allclose(both, 0.25)


def test_statistics_are_those_of_scipy_for_groups_of_unequal_size() -> None:
    rows = np.random.default_rng(2).standard_normal((9, 4)) * [1, 3, 10, 0.1]
    deals = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1, 0, 1, 1]], dtype=float)
    signs = np.array([[1] * 9, [1, -1] * 4 + [1]], dtype=float)

    for deal, found in zip(deals, _welch(rows, deals), strict=True):
        expected = scipy.stats.ttest_ind(rows[deal == 1], rows[deal == 0], equal_var=False).statistic
        np.testing.assert_allclose(found, np.abs(expected), rtol=1e-9)
    for deal, found in zip(signs, _paired(rows, signs), strict=True):
        expected = scipy.stats.ttest_1samp(rows * deal[:, None], 0).statistic
        np.testing.assert_allclose(found, np.abs(expected), rtol=1e-9)


def test_a_planted_layer_is_found_alone() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 12)), rng.standard_normal((25, 12))
    a[:, 7] += 2

    found = compare_curves(a, b, seed=0)

    assert np.flatnonzero(found.p < 0.05).tolist() == [7]
    np.testing.assert_allclose(found.difference, a.mean(0) - b.mean(0))


def correlated(rng: np.random.Generator, units: int) -> np.ndarray:
    return rng.standard_normal((units, 20)).cumsum(axis=1) * np.geomspace(1, 1e3, 20)


def test_family_wise_error_of_two_groups_is_what_it_says() -> None:
    rng = np.random.default_rng(1)
    false = [
        np.nanmin(compare_curves(correlated(rng, 15), correlated(rng, 10), seed=i, permutations=199).p)
        <= 0.05
        for i in range(300)
    ]

    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_family_wise_error_of_pairs_is_what_it_says() -> None:
    rng = np.random.default_rng(2)
    false = [np.nanmin(compare_pairs(correlated(rng, 8), seed=i)) <= 0.05 for i in range(300)]

    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_unknown_cells_and_small_groups_stay_unknown() -> None:
    a = np.ones((4, 3))
    a[0, 1] = np.nan
    assert np.isnan(compare_curves(a, np.ones((4, 3)), seed=0).p).tolist() == [False, True, False]
    assert compare_curves(a, np.ones((4, 3)), seed=0).p[0] == 1  # no spread, no difference
    assert np.isnan(compare_curves(a[:1], a, seed=0).p).all()
    assert np.isnan(compare_pairs(a[:1], seed=0)).all()
    nobody = np.ones((0, 3))  # every prompt of two categories was left out
    assert np.isnan(compare_curves(nobody, nobody, seed=0).p).tolist() == [True] * 3
    assert np.isnan(compare_pairs(nobody, seed=0)).tolist() == [True] * 3
