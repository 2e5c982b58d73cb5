"""Scores within cells: by hand, exactly chance for position alone, and their p over a family."""

import numpy as np
import pytest

from layerscope.maths.cells import right_within_cells, score_within_cells
from layerscope.maths.simultaneous import largest_t_p


def test_two_cells_by_hand() -> None:
    # Cell 0: labels 0 (3 cases, 2 right) and 1 (2 cases, 1 right): mean 7/12, chance 1/2, score 1/6.
    # Cell 1: labels 1 and 2 (2 each), all right: score 1. Label 0 in cell 1 has one case: not counted.
    cells = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 0])
    right = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1, 0], dtype=bool)

    found = score_within_cells(right, labels=labels, cells=cells, units=np.arange(10), fewest=2)

    assert float(found.interval.value) == pytest.approx((5 * (1 / 6) + 4 * 1) / 9)
    assert found.counted == 9
    assert float(found.interval.n) == 9  # the tenth unit has no case that counts
    assert found.recall[0, 0] == pytest.approx(2 / 3)
    assert np.isnan(found.recall[1, 0])


@pytest.mark.parametrize("seed", range(3))
def test_whoever_knows_only_the_cell_is_exactly_at_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells, labels = rng.integers(0, 9, 400), rng.integers(0, 7, 400)
    guess_of_cell = rng.integers(0, 7, 9)
    everywhere = np.unique(cells * 7 + labels).size == 63
    right = labels == guess_of_cell[cells]

    found = score_within_cells(
        right, labels=labels, cells=cells, units=rng.integers(0, 40, 400), fewest=1, resamples=50
    )

    assert everywhere
    assert float(found.interval.value) == pytest.approx(0, abs=1e-12)
    # Also in resamples that drew every guessed label of every cell; others can only lose.
    assert found.draws.max() == pytest.approx(0, abs=1e-12)


def test_every_depth_is_scored_for_itself_and_units_are_resampled_whole() -> None:
    rng = np.random.default_rng(0)
    cells, labels = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    right = np.stack([np.ones(90, dtype=bool), rng.random(90) < 1 / 3], axis=1)

    apart = score_within_cells(right, labels=labels, cells=cells, units=np.arange(90))
    twice = score_within_cells(
        np.repeat(right, 2, axis=0),
        labels=np.repeat(labels, 2),
        cells=np.repeat(cells, 2),
        units=np.repeat(np.arange(90), 2),
    )

    np.testing.assert_allclose(apart.interval.value, twice.interval.value)
    np.testing.assert_allclose(apart.interval.low, twice.interval.low)  # repeated cases are no new units
    assert apart.interval.value[0] == 1
    assert apart.interval.low[1] < 0 < apart.interval.high[1]


def test_cells_with_one_label_give_no_score() -> None:
    found = score_within_cells(
        np.ones(4, dtype=bool), labels=np.zeros(4, int), cells=np.array([0, 0, 1, 1]), units=np.arange(4)
    )

    assert np.isnan(found.interval.value)
    assert found.counted == 0


def test_the_largest_t_by_hand() -> None:
    # Errors 1 and 1 (four draws -1.5 to 1.5 have none such; take +-1 scaled to sd 1).
    spread = np.array([-1.0, 1.0, -1.0, 1.0]) * np.sqrt(3) / 2
    values = np.array([0.5, 2.0, 0.9])
    draws = values + np.stack([spread, spread[::-1], spread], axis=1)

    p = largest_t_p(values, draws, units=10**9)  # so many that t is normal

    # The largest deviation of every draw is 0.866 errors: 0.5 is reached by all four, the others by none.
    np.testing.assert_allclose(p, [1.0, 1 / 5, 1 / 5])


def test_false_alarms_in_a_family_stay_below_the_level() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for trial in range(300):
        data = rng.normal(size=(40, 13))
        counts = np.random.default_rng(trial).multinomial(40, np.full(40, 1 / 40), size=400)
        alarms += largest_t_p(data.mean(0), counts @ data / 40, units=40).min() < 0.05

    assert alarms / 300 < 0.09  # 0.05 and three standard errors


def test_scores_without_spread_and_unknown_ones() -> None:
    p = largest_t_p(np.array([1.0, 0.0, np.nan]), np.tile([1.0, 0.0, np.nan], (9, 1)), units=9)

    assert p[0] == pytest.approx(0.1)
    assert p[1] == 1
    assert np.isnan(p[2])


def test_a_guesser_that_does_not_know_the_cell_is_at_chance_too() -> None:
    # Cell 0 holds labels 0 and 1, cell 1 labels 2 and 3: naming 3 everywhere is worse than chance in cell 0.
    cells = np.repeat([0, 1], 20)
    labels = np.tile([0, 1], 10).tolist() + np.tile([2, 3], 10).tolist()
    always = np.tile([0.1, 0.2, 0.3, 0.4], (40, 1))
    kept = {"labels": np.array(labels), "cells": cells}

    right = right_within_cells(always, **kept)
    found = score_within_cells(right, **kept, units=np.arange(40))
    free = score_within_cells(always.argmax(1) == labels, **kept, units=np.arange(40))

    assert right.tolist() == [False, True] * 20  # the likelier of the two that the cell holds
    assert float(found.interval.value) == pytest.approx(0)
    assert float(free.interval.value) == pytest.approx((-1 + 0) / 2)
