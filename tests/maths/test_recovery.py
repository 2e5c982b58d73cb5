import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerscope.maths.recovery import range_is_large_enough, recovery, recovery_by_draw


def test_recovery_of_a_hand_worked_case():
    # the seed's Eiffel prompt: clean .93, noised .1
    patched = np.array([0.1, 0.93, 0.515, 0.017])

    found = recovery(patched, noised=np.array(0.1), clean=np.array(0.93))

    np.testing.assert_allclose(found, [0, 1, 0.5, -0.1])


def test_noised_and_clean_broadcast_over_patches():
    patched = np.array([[0.2, 0.4], [0.6, 0.9]])

    found = recovery(patched, noised=np.array([[0.2], [0.5]]), clean=np.array([[0.6], [0.7]]))

    np.testing.assert_allclose(found, [[0, 0.5], [0.5, 2]])


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_recovery_is_unknown_where_noise_changed_nothing(library):
    found = recovery(
        library([0.5, 0.6, 0.5]), noised=library([0.5, 0.5, 0.4]), clean=library([0.5, 0.5, 0.6])
    )

    np.testing.assert_allclose(np.asarray(found), [np.nan, np.nan, 0.5], rtol=1e-6)


@given(arrays(np.float64, 5, elements=st.floats(-5, 5)), st.floats(0.1, 10), st.floats(-10, 10))
def test_recovery_does_not_depend_on_unit_or_zero_of_the_read_out(patched, unit, zero):
    noised, clean = np.array(0.25), np.array(1.5)

    moved = recovery(unit * patched + zero, noised=unit * noised + zero, clean=unit * clean + zero)

    np.testing.assert_allclose(moved, recovery(patched, noised=noised, clean=clean), atol=1e-9)


@given(arrays(np.float64, 5, elements=st.floats(0, 1)))
def test_numpy_and_torch_agree(patched):
    ends = {"noised": np.array(0.1), "clean": np.array(0.8)}

    found = recovery(torch.tensor(patched), **{name: torch.tensor(end) for name, end in ends.items()})

    np.testing.assert_allclose(found.numpy(), recovery(patched, **ends), atol=1e-12)


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_the_range_must_be_large_and_in_the_right_direction(library):
    clean, noised = library([0.75, 0.74, 0.25, 0.75, float("nan")]), library([0.25, 0.25, 0.75, 0.1, 0.1])

    assert range_is_large_enough(clean, noised, 0.5).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("smallest", [0.0, -0.1, float("nan")])
def test_a_smallest_range_of_nothing_is_refused(smallest):
    with pytest.raises(ValueError, match="above 0"):
        range_is_large_enough(np.array(0.5), np.array(0.1), smallest)


def test_the_parts_of_draws_in_a_recovery_by_hand():
    # means: patched 0.5, noised 0.2, clean 0.8, so R = 0.5; first draw: 0.5 + (0.1 - 0.5 x 0.1) / 0.6
    patched, noised, clean = np.array([0.6, 0.4]), np.array([0.3, 0.1]), np.array([0.8, 0.8])

    found = recovery_by_draw(patched, noised=noised, clean=clean)

    np.testing.assert_allclose(found, [0.5 + 0.05 / 0.6, 0.5 - 0.05 / 0.6])


@pytest.mark.parametrize("corrupting", [False, True])
def test_the_spread_of_those_parts_is_the_spread_of_the_recovery(corrupting):
    rng, draws, repetitions = np.random.default_rng(0), 50, 4000
    noise = rng.normal(size=(3, draws, repetitions))
    patched = 0.5 + 0.1 * noise[0] + 0.1 * noise[1]
    noised, clean = 0.2 + 0.1 * noise[1] + 0.05 * noise[2], np.full((draws, repetitions), 0.9)
    ends = (clean, noised) if corrupting else (noised, clean)

    ratios = recovery(patched.mean(0), noised=ends[0].mean(0), clean=ends[1].mean(0))
    parts = recovery_by_draw(patched, noised=ends[0], clean=ends[1])

    np.testing.assert_allclose(parts.mean(0), ratios)
    standard_errors = parts.std(0, ddof=1) / np.sqrt(draws)
    np.testing.assert_allclose(np.sqrt((standard_errors**2).mean()), ratios.std(), rtol=0.04)
