from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from layerscope.results.escaping import restored, stored, visible
from layerscope.results.netcdf import read_result, write_result
from layerscope.results.schema import quantity

HOSTILE = [
    "",
    "\0",
    "a\0",
    "\ud800",
    "x\udfffy",
    "\\u0041",
    '"',
    "\\",
    "<script>alert(1)</script>",
    "&lt;",
    "\u202eabc",
    "\r\n\t ",
    "日本🙂",
    "e\u0301",
]


@given(st.text(st.characters(codec=None), max_size=20))
def test_any_text_comes_back_from_its_stored_form(text: str) -> None:
    assert restored(stored(text)) == text


@given(st.text(st.characters(codec=None), max_size=20))
def test_the_stored_form_can_be_written_anywhere(text: str) -> None:
    written = stored(text)

    assert written.encode("utf-8").decode("utf-8") == written
    assert not any(ord(character) < 32 for character in written)


def test_hostile_text_survives_a_result_file(tmp_path) -> None:
    result = xr.Dataset({"text": quantity(np.array([stored(text) for text in HOSTILE]), "token", "text")})

    write_result(tmp_path / "result.nc", result)

    assert [restored(str(t)) for t in read_result(tmp_path / "result.nc").text.values] == HOSTILE


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" a", "·a"), ("\n", "⏎"), ("\u202e", "<U+202E>"), ("\ud800", "<U+D800>"), ("\u200b", "<U+200B>")],
)
def test_what_cannot_be_seen_gets_a_visible_stand_in(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_blanks_of_sentences_stay_blanks() -> None:
    assert visible("a b\n", blanks=False) == "a b⏎"
