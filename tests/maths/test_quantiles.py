import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.maths.quantiles import matched_weights, quantile_draws, weighted_quantiles


def test_with_equal_weights_the_median_is_numpys() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 8):
        values = rng.normal(size=(n, 3))
        np.testing.assert_allclose(
            weighted_quantiles(values, np.ones(n), [0.5])[0], np.median(values, axis=0)
        )


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]),
)
def test_a_weight_counts_like_repeats(pairs: list[tuple[int, int]], quantile: float) -> None:
    values, weights = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    repeated = np.repeat(values, weights.astype(int))

    found = weighted_quantiles(values[:, None], weights, [quantile])[0, 0]

    if not repeated.size:
        assert np.isnan(found)
    else:
        expected = np.quantile(repeated, quantile, method="averaged_inverted_cdf")
        assert found == pytest.approx(expected)


def test_missing_values_do_not_count() -> None:
    values = np.array([[1.0, np.nan], [3.0, 7.0], [np.nan, np.nan]])

    np.testing.assert_allclose(weighted_quantiles(values, np.ones(3), [0.5])[0], [2.0, 7.0])
    assert np.isnan(weighted_quantiles(values[2:], np.ones(1), [0.5])).all()


def test_the_interval_draws_documents_not_tokens() -> None:
    """A thousand equal tokens of two documents tell no more than two numbers."""
    documents = np.repeat([0, 1, 2, 3, 4, 5], 200)
    values = documents[:, None].astype(float)

    whole = quantile_draws(values, documents, units=6, seed=0, resamples=400).interval()
    naive = quantile_draws(values, np.arange(1200), units=1200, seed=0, resamples=100).interval()

    assert whole.value == 2.5
    assert whole.high - whole.low >= 3
    assert naive.high - naive.low <= 1
    assert whole.n == 6


def test_draws_of_two_quantities_go_together() -> None:
    rng = np.random.default_rng(0)
    documents, values = np.repeat(np.arange(8), 5), rng.normal(size=(40, 1))

    one, more = (
        quantile_draws(shifted, documents, units=8, seed=3, resamples=50) for shifted in (values, values + 1)
    )

    np.testing.assert_allclose(more.draws - one.draws, 1.0)
    assert one.draws.std() > 0


def test_a_single_document_has_no_interval() -> None:
    tokens = np.arange(6.0)[:, None]
    found = quantile_draws(tokens, np.zeros(6, dtype=int), units=1, seed=0, resamples=50).interval()

    assert found.value == 2.5
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_intervals_hold_the_true_median_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = []
    for trial in range(150):
        shifts = rng.normal(size=20)
        documents = np.repeat(np.arange(20), 8)
        values = shifts[documents] + 0.3 * rng.normal(size=160)
        found = quantile_draws(values[:, None], documents, units=20, seed=trial, resamples=200).interval()
        held.append(bool(found.low[0] <= 0 <= found.high[0]))

    assert np.mean(held) > 0.9


def test_matched_members_stand_where_all_tokens_stand() -> None:
    strata = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    members = np.array([True, True, False, True, False, False, False, False])

    weights = matched_weights(members, strata)

    # By hand: strata 0 and 1 hold three tokens each, so they count alike; stratum 2 has no member.
    np.testing.assert_allclose(weights, [0.25, 0.25, 0, 0.5, 0, 0, 0, 0])
    assert matched_weights(np.zeros(8, dtype=bool), strata).sum() == 0
