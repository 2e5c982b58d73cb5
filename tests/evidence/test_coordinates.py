from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.evidence import largest_first, prompt_in_words


@pytest.mark.parametrize(
    ("name", "tokens", "answer", "said"),
    [
        (
            "world-001",
            ["<|endoftext|>", "Paris", " is", " in"],
            " France",
            "Paris is in → France (world-001)",
        ),
        ("world-001", ["[BOS]", "Paris", " is"], "", "Paris is (world-001)"),
        ("Paris is", ["Paris", " is"], " in", "Paris is → in"),
        ("one", ["<", "b", ">"], "", "<b> (one)"),
        ("two", ["a\\n", "b\\u202e"], "", "a⏎b<U+202E> (two)"),
    ],
)
def test_a_prompt_is_found_by_its_text(name: str, tokens: list[str], answer: str, said: str) -> None:
    assert prompt_in_words(name, xr.DataArray(tokens, dims="token"), answer) == said


def test_labels_come_with_the_largest_value_first_and_the_unknown_last() -> None:
    values = xr.DataArray([1.0, np.nan, 3.0, 1.0], dims="category", coords={"category": list("abcd")})

    assert largest_first(values) == ["c", "a", "d", "b"]
