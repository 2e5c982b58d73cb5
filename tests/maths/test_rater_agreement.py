from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from layerscope.maths.rater_agreement import alpha_interval, krippendorff_alpha

# Krippendorff 2011, section C: four observers, twelve units, missing answers.
PUBLISHED = ["11_1", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "_555", "__11", "_3"]


def test_the_published_example_has_its_published_alpha() -> None:
    units = [[answer for answer in unit if answer != "_"] for unit in PUBLISHED]

    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_without_missing_answers_it_follows_from_fleiss_kappa() -> None:
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 3, (40, 3))
    answers[:, 1] = np.where(rng.random(40) < 0.6, answers[:, 0], answers[:, 1])

    kappa, n = fleiss_kappa(aggregate_raters(answers)[0]), answers.size

    expected = 1 - (1 - kappa) * (n - 1) / n
    assert krippendorff_alpha([[str(a) for a in row] for row in answers]) == pytest.approx(expected)


def test_agreement_by_hand() -> None:
    # two units: a a and a b. Observed 2 of 4 ordered pairs differ, over n = 4: (0 + 2) / 4.
    # Expected: 3 a, 1 b: 2 * 3 of 12 ordered pairs differ. 1 - 0.5 / 0.5 = 0
    assert krippendorff_alpha([["a", "a"], ["a", "b"]]) == pytest.approx(0.0)
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0


@pytest.mark.parametrize("units", [[], [["a"], ["b"]], [["a", "a"], ["a", "a"]]])
def test_where_nothing_can_be_expected_nothing_is_said(units: list[list[str]]) -> None:
    assert math.isnan(krippendorff_alpha(units))


def test_the_interval_draws_groups_whole() -> None:
    units = [["a", "a"], ["b", "b"], ["a", "b"], ["b", "a"]] * 6
    groups = [str(i // 4) for i in range(24)]

    interval = alpha_interval(units, groups, seed=0, level=0.95, resamples=200)

    assert float(interval.value) == pytest.approx(krippendorff_alpha(units))
    assert float(interval.low) == pytest.approx(float(interval.high))  # every group holds the same four
