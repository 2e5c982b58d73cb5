"""The position-only ceiling: the published one, one worked by hand, and one simulated."""

import numpy as np
import pytest

from layerscope.maths.position_ceiling import ceiling, joint_of_beginnings, joint_of_ends

ONE_TO_THREE = np.array([0, 1, 1, 1]) / 3


def test_the_post_s_design_has_its_published_ceiling() -> None:
    found = ceiling(joint_of_ends([ONE_TO_THREE] * 7))

    assert found.accuracy == pytest.approx(0.546, abs=5e-4)
    np.testing.assert_allclose(found.recall, [1.00, 0.56, 0.48, 0.43, 0.40, 0.37, 0.59], atol=5e-3)


def test_ten_words_read_at_every_token_have_their_published_ceiling() -> None:
    # Every token of a word: P(index, position) is spread over the tokens from its first to its last.
    joint = np.zeros((10, 30))
    starts = np.array([1.0])
    for index in range(10):
        for length in (1, 2, 3):
            for start, p in enumerate(starts):
                joint[index, start : start + length] += p / 3
        starts = np.convolve(starts, ONE_TO_THREE)

    assert ceiling(joint / joint.sum()).accuracy == pytest.approx(0.489, abs=5e-4)


def test_two_words_of_one_or_two_tokens_by_hand() -> None:
    # Ends: word 0 at 0 or 1 (1/2 each); word 1 at 1 (1/4), 2 (1/2), 3 (1/4). Joint with 1/2 for each word.
    joint = joint_of_ends([np.array([0, 0.5, 0.5])] * 2)

    np.testing.assert_allclose(joint, [[1 / 4, 1 / 4, 0, 0], [0, 1 / 8, 1 / 4, 1 / 8]])
    found = ceiling(joint)
    assert found.accuracy == pytest.approx(7 / 8)
    np.testing.assert_allclose(found.recall, [1, 3 / 4])
    assert found.guesses.tolist() == [0, 0, 1, 1]
    starts = joint_of_beginnings([np.array([0, 0.5, 0.5])] * 2)
    np.testing.assert_allclose(starts, [[1 / 2, 0, 0], [0, 1 / 4, 1 / 4]])


def test_simulated_units_of_unequal_lengths_agree() -> None:
    rng = np.random.default_rng(0)
    laws = [np.array([0, 0.2, 0.8]), np.array([0, 0, 0.5, 0, 0.5]), np.array([0, 1.0])]
    drawn = np.stack([rng.choice(len(law), size=200_000, p=law) for law in laws], axis=1)
    ends = drawn.cumsum(axis=1) - 1

    joint = joint_of_ends(laws)

    counted = np.stack([np.bincount(ends[:, i], minlength=joint.shape[1]) for i in range(3)]) / ends.size
    np.testing.assert_allclose(joint, counted, atol=3e-3)
    guesses = ceiling(joint).guesses[ends]
    assert ceiling(joint).accuracy == pytest.approx((guesses == np.arange(3)).mean(), abs=3e-3)


def test_a_position_at_which_nothing_ends_gets_no_guess() -> None:
    assert ceiling(joint_of_ends([np.array([0, 0, 1.0])])).guesses.tolist() == [-1, 0]
    with pytest.raises(ValueError, match="sum to 1"):
        joint_of_ends([np.array([0.0, 0.5])])
