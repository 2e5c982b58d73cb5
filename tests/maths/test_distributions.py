"""Divergence and rank worked by hand, for arrays and tensors alike."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from layerscope.maths.distributions import (
    distribution,
    divergence,
    joined,
    log_probabilities,
    log_total,
    normaliser,
    rank,
)

BOTH = pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])


@BOTH
def test_divergence_by_hand(make: Any) -> None:
    p = make([[math.log(0.5), math.log(0.25), math.log(0.25)]])
    q = make([[math.log(0.25), math.log(0.5), math.log(0.25)]]) + 3  # logits may be shifted

    found = divergence(distribution(p), q, log_total(q))

    assert float(found[0]) == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), rel=1e-5)


@BOTH
def test_a_distribution_is_at_no_distance_from_itself(make: Any) -> None:
    logits = make(np.random.default_rng(0).normal(0, 5, (50, 300)).astype(np.float32))

    assert float(divergence(distribution(logits), logits + 11, log_total(logits + 11)).max()) == 0


@BOTH
def test_huge_logits_do_not_overflow(make: Any) -> None:
    logits = make([[1e4, 1e4, 0.0]])

    assert float(log_total(logits)[0]) == pytest.approx(1e4 + math.log(2))
    assert float(distribution(logits).negative_entropy[0]) == pytest.approx(-math.log(2), abs=1e-6)


@BOTH
def test_ranks_and_who_holds_the_first(make: Any) -> None:
    logits = make([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [5.0, 5.0, 1.0], [5.0, 5.0, 1.0], [0.0, 0.0, 0.0]])

    assert rank(logits, make([0, 1, 0, 1, 2])).tolist() == [1, 3, 1, 2, 2]


@BOTH
def test_logits_that_may_be_used_up_give_the_same(make: Any) -> None:
    rng = np.random.default_rng(3)
    p, q = rng.normal(0, 3, (2, 40, 30)).astype(np.float32).round(1)  # rounded, so that there are ties
    tokens = make(q.argmax(-1) // 2 * 2)

    kept = rank(make(q), tokens)
    used = rank(make(q.copy()), tokens, overwrite=True)
    far = divergence(distribution(make(p)), make(q), log_total(make(q)))
    again = divergence(distribution(make(p)), log_probabilities(make(q)), overwrite=True)

    assert kept.tolist() == used.tolist()
    assert len(set(kept.tolist())) > 3
    np.testing.assert_allclose(np.asarray(far), np.asarray(again), rtol=1e-5)


def test_against_scipy() -> None:
    from scipy.special import log_softmax
    from scipy.stats import entropy

    rng = np.random.default_rng(1)
    p, q = rng.normal(0, 3, (2, 20, 100))

    found = divergence(distribution(p), q, log_total(q))

    expected = entropy(np.exp(log_softmax(p, axis=1)), np.exp(log_softmax(q, axis=1)), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@BOTH
def test_a_vocabulary_in_two_parts_is_normalised_as_a_whole(make: Any) -> None:
    # e^z = 1, 2, 1 and 4: the total is 8, 1/2 of it beyond the largest
    first, second = make([[0.0, math.log(2), 0.0]]), make([[math.log(4)]])
    parts = [normaliser(first), normaliser(second)]
    columns = [[float(getattr(part, name)[0]) for part in parts] for name in ("highest", "excess")]

    whole = joined(*(make([column]) for column in columns))

    assert columns[1] == pytest.approx([math.log(2), 0.0], abs=1e-6)
    assert float(whole.highest[0]) == pytest.approx(math.log(4))
    assert float(whole.total[0]) == pytest.approx(math.log(8))
    logs = whole.log_probability(make([[math.log(2), math.log(4)]]))
    assert np.asarray(logs)[0].tolist() == pytest.approx([math.log(1 / 4), math.log(1 / 2)])
