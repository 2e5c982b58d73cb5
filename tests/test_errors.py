from __future__ import annotations

import pickle

from layerscope.errors import LayerscopeError


def test_an_error_has_four_lines_whatever_it_is_told_and_none_is_endless() -> None:
    error = LayerscopeError(
        "a\nproblem", found="x" * 10_000 + "end", expected=["a", 1], hint="first\nthen\nlast"
    )

    lines = str(error).split("\n")
    assert [line.split()[0] for line in lines] == ["a", "found", "expected", "try"]
    assert max(map(len, lines)) < 700
    assert "xxx … xxx" in lines[1]
    assert lines[1].endswith("end")
    assert error.found == "x" * 10_000 + "end"
    assert "\n" not in error.short
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
