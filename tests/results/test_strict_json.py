from __future__ import annotations

import pytest

from layerscope.results.strict_json import parsed


def test_what_can_be_used_is_read() -> None:
    assert parsed('{"a": [1, -2.5e3, "\\ud83d\\ude42", null, true]}') == {"a": [1, -2500.0, "🙂", None, True]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("[Infinity]", "Infinity is no finite number"),
        ("[NaN]", "NaN is no finite number"),
        ("[1e400]", "1e400 is no finite number"),
        (f"[{'9' * 5000}]", "4300 digits"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
        ('{\n"a" 1}', "line 2, column 5"),
        ("", "Expecting value"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_short_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parsed(text)
    assert len(str(caught.value)) < 90
    assert "\n" not in str(caught.value)
