from __future__ import annotations

import numpy as np
import pytest

from layerscope.maths.hits_by_chance import p_of_hits


def test_two_of_three_worked_by_hand() -> None:
    # chances 1/2, 1/4, 1/4: none 9/32, three 1/32, two 1/2·1/4·3/4·2 + 1/2·1/16 = 7/32; at least two: 8/32
    assert p_of_hits(np.array([1.0, 1, 0]), np.array([0.5, 0.25, 0.25])) == pytest.approx(2 * 8 / 32)
    assert p_of_hits(np.zeros(3), np.array([0.5, 0.25, 0.25])) == pytest.approx(2 * 9 / 32)


def test_none_of_many_rare_ones_is_no_surprise_and_forty_are() -> None:
    chances, hits = np.full(720, 0.0004), np.zeros(720)

    assert p_of_hits(hits, chances) == 1
    hits[:40] = 1
    assert p_of_hits(hits, chances) < 1e-6


def test_what_is_unknown_is_no_trial() -> None:
    hits, chances = np.array([1.0, np.nan, 1.0]), np.array([0.1, 0.9, np.nan])

    assert p_of_hits(hits, chances) == pytest.approx(0.2)
    assert np.isnan(p_of_hits(np.array([np.nan]), np.array([0.1])))


def test_hits_at_their_own_chances_are_rarely_significant() -> None:
    draws = np.random.default_rng(0)
    chances = draws.uniform(0.001, 0.3, 60)

    alarms = [p_of_hits((draws.random(60) < chances).astype(float), chances) < 0.05 for _ in range(300)]

    assert np.mean(alarms) <= 0.05
