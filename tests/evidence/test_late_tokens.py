import numpy as np
import pytest
import xarray as xr

from layerscope import LayerscopeError
from layerscope.evidence.groups import groups_of_tokens, need_late_tokens, prompts_left_out


def test_late_tokens_are_those_from_the_first_position_on_and_averaged_within_passages() -> None:
    # two passages, positions 0 1 2 3 and 0 1 2; from position 2 on: (2 + 3) / 2 and 2
    position = np.array([0, 1, 2, 3, 0, 1, 2])
    tokens = xr.Dataset(
        coords={
            "token_passage": ("token", ["a"] * 4 + ["b"] * 3),
            "token_category": ("token", ["x", "y", "x", "y", "x", "x", "x"]),
            "position": ("token", position),
        }
    )

    found = groups_of_tokens(tokens, {"place": position.astype(float)}, first_position=2, first_apart=True)

    assert {name: group["place"].tolist() for name, group in found.items() if name != "token: y"} == {
        "passages": [2.5, 2.0],
        "first tokens": [0.0, 0.0],
        "token: x": [2.0, 2.0],
    }
    np.testing.assert_array_equal(found["token: y"]["place"], [3.0, np.nan])


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
