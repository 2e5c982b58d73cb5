"""Half-widths over units of draws, and how many units a half-width needs."""

import numpy as np
import pytest

from layerscope.maths.sample_size import mean_half_width, unit_means, units_needed


def test_a_half_width_of_a_hand_worked_case():
    # mean 2, SD 1 of three values; Student's t on two degrees of freedom is 4.3027 at 95 %
    np.testing.assert_allclose(mean_half_width(np.array([1.0, 2.0, 3.0])), 4.3027 / np.sqrt(3), rtol=1e-4)


def test_mirrored_draws_count_as_one():
    # Each draw but for its mirror image: pairs average to 1, 2, 3, whatever their members are.
    pairs = np.array([101.0, -99.0, 52.0, -48.0, 3.0, 3.0])

    np.testing.assert_allclose(unit_means(pairs, 2), [1, 2, 3])
    np.testing.assert_allclose(mean_half_width(pairs, together=2), 4.3027 / np.sqrt(3), rtol=1e-4)
    assert mean_half_width(pairs) > 20


def test_one_unit_has_no_half_width_and_half_a_unit_is_a_mistake():
    assert np.isnan(mean_half_width(np.ones((2, 3)), together=2)).all()
    with pytest.raises(ValueError, match="whole units of 2"):
        unit_means(np.ones(3), 2)


@pytest.mark.parametrize(
    ("spread", "pilots", "expected"),
    [
        (0.0, 10, 2),  # nothing varies
        (0.1, 10, 128),  # (2.2622 x 0.1 / 0.02)² = 127.9
        (0.01, 10, 4),  # t on 3 degrees of freedom: 3.1824 x 0.01 / √4 = 0.0159; with three, 0.0248
        (5.0, 10, 200),  # where to stop
        (np.nan, 10, 2),  # not known: the fewest
    ],
)
def test_units_needed_by_hand(spread, pilots, expected):
    assert units_needed(spread, pilots=pilots, half_width=0.02, most=200) == expected


@pytest.mark.parametrize("together", [1, 2])
def test_the_truth_lies_within_the_precision_in_95_of_100_repetitions(together):
    """Pilots are not used again. Two kinds of interval: plus and minus the precision, and the new draws' own."""
    rng, precision, pilots = np.random.default_rng(together), 0.3, 10
    within, covered, repetitions = 0, 0, 1500
    for _ in range(repetitions):
        spread = float(np.std(unit_means(drawn(rng, pilots, together), together), ddof=1))
        n = units_needed(spread, pilots=pilots, half_width=precision, most=400)
        draws = drawn(rng, n, together)
        within += abs(draws.mean()) <= precision
        covered += abs(draws.mean()) <= mean_half_width(draws, together=together)

    assert within / repetitions > 0.935  # standard error 0.006
    assert 0.93 < covered / repetitions < 0.97


def test_dependent_draws_taken_for_independent_would_not_cover():
    """That units matter: draws of a unit that are alike, counted one by one, give intervals that are too short."""
    rng = np.random.default_rng(0)
    samples = [np.repeat(rng.normal(size=8), 4) + 0.1 * rng.normal(size=32) for _ in range(1000)]

    as_units = np.mean([abs(x.mean()) <= mean_half_width(x, together=4) for x in samples])
    one_by_one = np.mean([abs(x.mean()) <= mean_half_width(x) for x in samples])

    assert as_units > 0.93
    assert one_by_one < 0.75


def drawn(rng, units, together):
    """Normal draws of mean 0; in pairs they oppose one another, but not wholly."""
    shared = rng.normal(size=(units, 1))
    signs = np.array([1.0, -1.0])[:together]
    return (shared * signs + 0.7 * rng.normal(size=(units, together))).reshape(-1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="two pilots"):
        units_needed(1.0, pilots=1, half_width=0.1, most=10)
    with pytest.raises(ValueError, match="width above 0"):
        units_needed(1.0, pilots=5, half_width=0.0, most=10)
