"""Groups of tokens, averaged within passages: which tokens count, worked by hand; and batches of equal length."""

import numpy as np
import pytest
import xarray as xr

from layerscope import LayerscopeError
from layerscope.evidence.batches import in_batches, in_turn
from layerscope.evidence.groups import (
    FIRST,
    PASSAGES,
    groups_of_tokens,
    need_late_tokens,
    passages_left_out,
    prompts_left_out,
)


def _tokens() -> xr.Dataset:
    """Two passages of four and three tokens."""
    return xr.Dataset(
        coords={
            "token_passage": ("token", ["a", "a", "a", "a", "b", "b", "b"]),
            "token_category": ("token", ["x", "x", "x", "y", "x", "y", "y"]),
            "position": ("token", [0, 1, 2, 3, 0, 1, 2]),
        }
    )


VALUES = {"height": np.array([100.0, 1, 2, 6, 200, 3, 5])}


def test_late_tokens_begin_at_the_first_position_itself() -> None:
    from_one = groups_of_tokens(_tokens(), VALUES, first_position=1, first_apart=False)
    from_two = groups_of_tokens(_tokens(), VALUES, first_position=2, first_apart=False)

    np.testing.assert_array_equal(from_one[PASSAGES]["height"], [3, 4])
    np.testing.assert_array_equal(from_two[PASSAGES]["height"], [4, 5])
    assert FIRST not in from_one


def test_a_category_is_of_late_tokens_and_a_passage_without_any_is_unknown() -> None:
    groups = groups_of_tokens(_tokens(), VALUES, first_position=1, first_apart=True)

    np.testing.assert_array_equal(groups["token: x"]["height"], [1.5, np.nan])
    np.testing.assert_array_equal(groups["token: y"]["height"], [6, 4])
    np.testing.assert_array_equal(groups[FIRST]["height"], [100, 200])


def test_a_passage_counts_from_the_fewest_tokens_on() -> None:
    assert passages_left_out(_tokens(), ["a", "b"], 4).tolist() == ["", "shorter than 4 tokens"]


def test_prompts_are_left_out_by_the_rank_of_their_answer() -> None:
    ranks = np.array([1, 2, 0, 7])

    reasons = prompts_left_out(ranks, wrong=False).tolist()

    assert reasons == [
        "",
        "the answer's rank is 2",
        "longer than the model can read",
        "the answer's rank is 7",
    ]
    assert prompts_left_out(ranks, wrong=True).tolist() == ["", "", "longer than the model can read", ""]


def test_texts_of_which_no_token_is_left_are_refused() -> None:
    need_late_tokens([3, 5], 4)
    with pytest.raises(LayerscopeError, match="the longest text has 5 tokens, first_position is 5"):
        need_late_tokens([3, 5], 5)


def test_batches_hold_texts_of_one_length_and_no_more_tokens_than_a_pass() -> None:
    batches = list(in_batches(["aa", "b", "cc", "dd", "e"], 4, length=len))

    assert batches == [["b", "e"], ["aa", "cc"], ["dd"]]
    assert list(in_batches(["a" * 9], 4, length=len)) == [["a" * 9]]


def test_kinds_are_taken_in_turn_in_the_order_in_which_they_come() -> None:
    assert in_turn(["b1", "a1", "a2", "b2", "a3"], lambda name: name[0]) == ["b1", "a1", "b2", "a2", "a3"]
    assert in_turn([], str) == []
