from pathlib import Path

import numpy as np
import pytest

from layerscope import LayerscopeError
from layerscope.text.token_sets import known_token_sets


def test_words_are_found_with_a_blank_first_and_short_sets_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "sets.json"
    file.write_text('{"colours": "red green blue pink", "months": "May June", "none": "xyz"}')
    texts = ["red", " red", " green", "blue", " pink", " May", " green"]

    assert known_token_sets(texts, str(file)) == {"colours": [1, 2, 3, 4]}
    assert known_token_sets(texts, str(file), fewest=1)["months"] == [5]
    blind = np.array([True, False, True, True, True, True, True])
    assert known_token_sets(texts, str(file), allowed=blind) == {"colours": [0, 2, 3, 4]}
    assert known_token_sets(texts, "") == {}


@pytest.mark.parametrize("written", ["[1, 2]", "{", '{"a": 3}', "[" * 100_000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, written: str) -> None:
    file = tmp_path / "sets.json"
    file.write_text(written)

    with pytest.raises(LayerscopeError, match="known sets of tokens cannot be read"):
        known_token_sets(["a"], str(file))
    with pytest.raises(LayerscopeError, match="known sets"):
        known_token_sets(["a"], str(tmp_path / "absent.json"))


def test_the_bundled_sets_hold_no_word_twice_within_a_set() -> None:
    import json

    from layerscope.bundled import bundled_folder

    for words in json.loads((bundled_folder("token_sets") / "english.json").read_text()).values():
        assert len(set(words.split())) == len(words.split())
