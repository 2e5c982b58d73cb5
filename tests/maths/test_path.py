import numpy as np
import pytest
import torch

from layerscope.maths.path import growth_rate, relative_step, steps, successive_cosine, turn

# (1, 0) -> (1, 1) -> (1, 3) -> (-1, 3): up one, up two, left two
WALK = np.array([[1.0, 0], [1, 1], [1, 3], [-1, 3]])


def test_steps_are_what_each_block_added():
    np.testing.assert_array_equal(steps(WALK), [[0, 1], [0, 2], [-2, 0]])


def test_relative_step_divides_by_the_state_before_the_block():
    np.testing.assert_allclose(relative_step(WALK), [1, 2 / np.sqrt(2), 2 / np.sqrt(10)])


def test_turn_is_between_one_step_and_the_next():
    np.testing.assert_allclose(turn(WALK), [1, 0], atol=1e-12)


def test_a_block_that_takes_back_the_last_step_turns_round():
    np.testing.assert_allclose(turn(WALK[[0, 1, 0]]), [-1])


def test_successive_cosine_is_between_neighbouring_states():
    np.testing.assert_allclose(successive_cosine(WALK), [np.sqrt(0.5), 4 / np.sqrt(20), 8 / 10])


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_zero_states_and_idle_blocks_are_unknown(library):
    states = library([[0.0, 0], [1, 0], [1, 0], [2, 0]])

    np.testing.assert_array_equal(np.asarray(relative_step(states)), [np.nan, 0, 1])
    np.testing.assert_array_equal(np.asarray(turn(states)), [np.nan, np.nan])
    np.testing.assert_array_equal(np.asarray(successive_cosine(states)), [np.nan, 1, 1])


def test_one_block_has_one_step_and_no_turn():
    assert steps(WALK[:2]).shape == (1, 2)
    assert turn(WALK[:2]).shape == (0,)


@pytest.mark.parametrize("formula", [steps, relative_step, turn, successive_cosine])
def test_numpy_and_torch_agree_on_a_batch(formula):
    states = np.random.default_rng(0).normal(size=(2, 3, 6, 8))

    np.testing.assert_allclose(formula(states), formula(torch.tensor(states)).numpy(), atol=1e-12)
    np.testing.assert_allclose(formula(states)[1, 2], formula(states[1, 2]), atol=1e-12)


def test_steps_of_a_half_precision_path_are_taken_in_float32():
    states = torch.tensor([[256.0], [258.0]], dtype=torch.bfloat16)

    assert steps(states).dtype == torch.float32
    assert relative_step(states.half()).item() == pytest.approx(2 / 256)


def test_planted_growth_is_found():
    norms = 7 * 1.045 ** np.arange(49)

    assert np.exp(growth_rate(norms)) == pytest.approx(1.045)
    assert np.exp(growth_rate(torch.tensor(norms))) == pytest.approx(1.045)


def test_growth_is_the_least_squares_slope_of_log_norm():
    norms = np.random.default_rng(0).lognormal(size=(3, 10))
    expected = [np.polyfit(np.arange(2, 9), np.log(row[2:9]), 1)[0] for row in norms]

    np.testing.assert_allclose(growth_rate(norms, first=2, last=8), expected)


def test_depths_outside_the_range_do_not_matter():
    norms = 2.0 ** np.arange(6)
    norms[[0, 5]] = 1000, np.nan

    assert growth_rate(norms, first=1, last=4) == pytest.approx(np.log(2))
    assert np.isnan(growth_rate(norms))


def test_a_zero_norm_has_no_growth():
    np.testing.assert_array_equal(growth_rate(np.array([[0.0, 1, 2], [1, 1, 1]])), [np.nan, 0])


@pytest.mark.parametrize(("first", "last"), [(2, 2), (3, 1), (-1, 2), (0, 5)])
def test_a_range_without_two_depths_is_refused(first, last):
    with pytest.raises(ValueError, match="expected 0 <= first < last <= 4"):
        growth_rate(np.ones(5), first=first, last=last)


def test_direction_and_shares_by_hand() -> None:
    from layerscope.maths.path import direction, share_of_step

    state, step = np.array([3.0, 4.0]), np.array([2.0, 0.0])
    np.testing.assert_allclose(direction(step, state), 0.6)
    np.testing.assert_allclose(direction(-step, state), -0.6)
    parts = np.array([[3.0, 5.0], [-1.0, -5.0]])  # they sum to the step
    np.testing.assert_allclose(share_of_step(parts, np.stack([step, step])), [1.5, -0.5])
