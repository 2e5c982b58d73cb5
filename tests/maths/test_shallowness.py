from __future__ import annotations

import math

import numpy as np
import pytest

from layerscope.maths.shallowness import (
    by_frequency,
    coherence,
    context_radius,
    effective_share,
    frequency_percentile,
    pair_agreement,
    rarity,
    weighted_bags,
)


def test_pairs_that_agree_are_counted_by_hand() -> None:
    # of the 6 pairs of a a a b, 3 agree; as rows of two tokens, only one pair does
    assert pair_agreement(np.array([1, 1, 1, 2])) == 0.5
    assert pair_agreement(np.array([[1, 1], [2, 1], [1, 1], [1, 2]])) == pytest.approx(1 / 6)
    assert math.isnan(pair_agreement(np.array([1])))


def test_agreement_of_pairs_does_not_depend_on_their_number() -> None:
    rng = np.random.default_rng(0)
    few, many = (np.mean([pair_agreement(rng.integers(0, 4, n)) for _ in range(4000)]) for n in (3, 25))

    assert few == pytest.approx(0.25, abs=0.02)
    assert many == pytest.approx(0.25, abs=0.02)


def test_likeness_leaves_out_pairs_of_one_text() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])

    # pairs 0-2 and 1-2 have cosine 0.6; 0-1 are from one text
    assert coherence(vectors, np.array([4, 4, 9])) == pytest.approx(0.6)
    assert math.isnan(coherence(vectors, np.array([4, 4, 4])))


def test_bags_weigh_rare_tokens_and_have_length_one() -> None:
    contexts = np.array([[5, 5, 3], [-1, 3, 7]])
    weights = np.zeros(9)
    weights[[3, 5, 7]] = [0.0, 2.0, 1.5]

    bags, features = weighted_bags(contexts, weights)

    assert features.tolist() == [5, 7]  # token 3 weighs nothing
    np.testing.assert_allclose(bags, [[1, 0], [0, 1]])


def test_rarity_is_the_log_of_contexts_over_those_that_hold_a_token() -> None:
    contexts = np.array([[1, 1], [1, 2], [-1, 2], [3, 4]])

    np.testing.assert_allclose(rarity(contexts, 6), np.log([4, 2, 2, 4, 4, 4]))


@pytest.mark.parametrize(
    ("kept", "radius"),
    [
        ([0.1, 0.9, 0.95, 1.0], 2.0),
        ([0.9, 0.5, 0.9, 1.0], 5.0),  # a dip at two tokens: one token was not enough after all
        ([0.9, 0.9, 0.9, 0.9], 1.0),
        ([0.1, 0.2, 0.3, 0.4], math.inf),
        ([0.1, 0.9, math.nan, math.nan], 2.0),
    ],
)
def test_the_radius_is_the_shortest_that_all_longer_ones_agree_with(kept: list[float], radius: float) -> None:
    assert context_radius(np.array(kept), np.array([1, 2, 5, 20]), share=0.8) == radius


def test_nothing_known_has_no_radius() -> None:
    assert math.isnan(context_radius(np.full(2, np.nan), np.array([1, 2]), share=0.8))


def test_a_token_is_ranked_among_those_of_like_frequency() -> None:
    counts = np.array([1, 2, 3, 100, 200, 300])
    scores = np.array([9.0, 1.0, 2.0, 5.0, 5.0, 0.0])

    order = by_frequency(counts)

    # token 1: its neighbours are 0 and 2, both higher; token 3: 2 lower, 4 equal
    assert frequency_percentile(scores, 1, order, neighbours=2) == 0.0
    assert frequency_percentile(scores, 3, order, neighbours=2) == 0.75
    # at the end of the order the window is moved in: token 5 among 3 and 4
    assert frequency_percentile(scores, 5, order, neighbours=2) == 0.0


def test_a_sum_over_k_alike_of_n_parts_is_spread_over_k() -> None:
    sizes = np.array([[1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])

    np.testing.assert_allclose(effective_share(sizes), [0.5, 1.0, np.nan])
