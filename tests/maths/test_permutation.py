from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope.maths import permutation
from layerscope.maths.bootstrap import bootstrap_difference
from layerscope.maths.permutation import holm, pairwise_contrasts, permutation_difference


def test_every_split_of_a_hand_worked_case():
    # {1, 2} against {3, 4, 8}: of 10 splits, sums of the pair 3 (seen, −3.5), 12 (+4), 11 (+3.17),
    # 4 (−2.67), ...: two are at least 3.5 away.
    found = permutation_difference(np.array([1.0, 2]), np.array([3.0, 4, 8]), seed=0)

    assert found.difference == pytest.approx(-3.5)
    assert found.p == pytest.approx(2 / 10)
    assert found.exact
    assert (found.n_a, found.n_b) == (2, 3)


def test_equal_splits_count_however_their_sums_round():
    # Both ways round are as extreme as what was seen: 2 of 20.
    found = permutation_difference(np.array([0.1, 0.1, 0.1]), np.array([0.3, 0.3, 0.3]), seed=0)

    assert found.p == pytest.approx(2 / 20)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1e6 + 0.1])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (3, 7), (20, 23)])
def test_values_that_agree_say_nothing(value, n, m):
    assert permutation_difference(np.full(n, value), np.full(m, value), seed=0).p == 1


def test_random_splits_agree_with_every_split():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 1, 8), rng.normal(size=8)

    exact = permutation_difference(a, b, seed=0, resamples=12_870)
    drawn = permutation_difference(a, b, seed=0, resamples=12_869)

    assert exact.exact
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=0.012)
    assert exact.p == pytest.approx(
        scipy.stats.permutation_test(
            (a, b),
            lambda x, y, axis: abs(x.mean(axis) - y.mean(axis)),
            alternative="greater",
            n_resamples=20_000,
        ).pvalue
    )


def test_a_drawn_p_is_never_zero():
    found = permutation_difference(np.arange(20.0), 100 + np.arange(20.0), seed=0, resamples=99)

    assert found.p == pytest.approx(1 / 100)


def test_blocks_change_nothing_when_every_split_is_counted(monkeypatch):
    a, b = np.array([1.0, 5, 2, 8]), np.array([3.0, 9, 4, 7, 6])
    whole = permutation_difference(a, b, seed=0)

    monkeypatch.setattr(permutation, "_AT_ONCE", 50)

    assert permutation_difference(a, b, seed=0) == whole
    assert permutation_difference(a, b, seed=0, resamples=100).p == pytest.approx(whole.p, abs=0.15)


def test_a_drawn_p_is_kept_below_its_level_under_the_null():
    rng = np.random.default_rng(1)
    p = [permutation_difference(*rng.exponential(size=(2, 9)), seed=i, resamples=199).p for i in range(600)]

    # Standard errors .009 and .02; the p of a right test is uniform.
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.06)


@given(st.floats(0.1, 10), st.floats(-100, 100))
def test_p_does_not_depend_on_unit_zero_or_order_of_the_groups(unit, zero):
    a, b = np.array([1.0, 4, 2.5]), np.array([3.0, 8, 6.5, 5])
    here = permutation_difference(a, b, seed=0)

    assert permutation_difference(unit * a + zero, unit * b + zero, seed=0).p == pytest.approx(here.p)
    assert permutation_difference(b, a, seed=0).p == pytest.approx(here.p)
    assert permutation_difference(b, a, seed=0).difference == pytest.approx(-here.difference)


def test_missing_values_are_left_out_and_torch_gives_the_same():
    a, b = np.array([1.0, np.nan, 2]), np.array([3.0, 4, np.nan, 8])
    known = permutation_difference(a[[0, 2]], b[[0, 1, 3]], seed=0)

    assert permutation_difference(a, b, seed=0) == known
    assert permutation_difference(torch.tensor(a), torch.tensor(b), seed=0) == known


def test_a_group_of_one_cannot_be_tested():
    found = permutation_difference(np.array([1.0, np.nan]), np.array([3.0, 4]), seed=0)

    assert np.isnan([found.difference, found.p]).all()
    assert (found.n_a, found.n_b) == (1, 2)


def test_holm_of_a_hand_worked_case():
    # in order: .01 × 4, .02 × 3, .03 × 2 (at least the one before), .9 × 1
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p_values):
    # Adjusted p: the largest Bonferroni p of any subfamily that holds the test.
    tests = range(len(p_values))
    families = [f for size in tests for f in combinations(tests, size + 1)]
    bonferroni = {family: min(1, len(family) * min(p_values[i] for i in family)) for family in families}

    closure = [max(p for family, p in bonferroni.items() if i in family) for i in tests]

    np.testing.assert_allclose(holm(p_values), closure)


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")

    for p_values in np.random.default_rng(0).random(size=(8, 10)) ** 4:
        np.testing.assert_allclose(holm(p_values), multitest.multipletests(p_values, method="holm")[1])


def test_unknown_p_values_stay_unknown_and_do_not_count():
    given = np.array([0.02, np.nan, 0.04])

    np.testing.assert_allclose(holm(given), [0.04, np.nan, 0.04])
    np.testing.assert_array_equal(given, [0.02, np.nan, 0.04])
    assert np.isnan(holm([float("nan")])).all()
    assert holm([]).size == 0


def test_contrasts_name_every_pair_in_order_of_first_appearance():
    values = np.array([10.0, 1, 11, 2, 12, 3, 5, 6, 7.5])
    groups = ["b", "a", "b", "a", "b", "a", "c", "c", "c"]

    found = pairwise_contrasts(values, groups, seed=0)

    assert [(one.a, one.b) for one in found] == [("b", "a"), ("b", "c"), ("a", "c")]
    np.testing.assert_allclose([one.difference for one in found], [9, 11 - 18.5 / 3, 2 - 18.5 / 3])
    np.testing.assert_allclose([one.p for one in found], [0.1, 0.1, 0.1])
    np.testing.assert_allclose([one.p_adjusted for one in found], [0.3, 0.3, 0.3])
    span = bootstrap_difference(values[[0, 2, 4]], values[[1, 3, 5]], seed=0)
    assert (found[0].low, found[0].high) == (span.low, span.high)


def test_a_small_group_is_reported_and_does_not_count():
    values = np.array([1.0, 2, 3, 7, 8, 9, 5, np.nan])

    first, small, whole = pairwise_contrasts(values, [*"aaabbb", "c", "c"], seed=0)

    assert (small.a, small.b, small.n_a, small.n_b) == ("a", "c", 3, 1)
    assert np.isnan([small.difference, small.low, small.high, small.p, small.p_adjusted]).all()
    assert (whole.a, whole.b) == ("b", "c")
    assert [first] == pairwise_contrasts(values[:6], [*"aaabbb"], seed=0)
    assert first.p_adjusted == first.p


def test_groups_that_do_not_match_the_values_are_refused():
    with pytest.raises(ValueError, match="one group per value"):
        pairwise_contrasts(np.ones(3), ["a", "b"], seed=0)


def test_a_planted_difference_is_found_and_only_there():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(size=15), rng.normal(size=15), rng.normal(3, 1, size=15)])

    same, first, second = pairwise_contrasts(values, ["a"] * 15 + ["b"] * 15 + ["c"] * 15, seed=0)

    assert same.p_adjusted > 0.05
    assert same.low < 0 < same.high
    assert max(first.p_adjusted, second.p_adjusted) < 0.001
    assert max(first.high, second.high) < 0


def test_false_alarms_in_a_family_stay_below_the_level():
    rng, groups = np.random.default_rng(4), [*"aaaaaabbbbbbccccccdddddd"]

    def smallest(seed):
        family = pairwise_contrasts(
            rng.exponential(size=24), groups, seed=seed, permutations=199, resamples=1
        )
        return min(one.p for one in family), min(one.p_adjusted for one in family)

    alone, adjusted = np.mean([np.array(smallest(seed)) <= 0.05 for seed in range(300)], axis=0)

    assert alone > 0.12  # what the adjustment is for
    assert adjusted <= 0.05
