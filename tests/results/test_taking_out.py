"""Findings as a table, LaTeX, notebooks: whatever texts hold, they are text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from layerscope.contract import Claim
from layerscope.errors import LayerscopeError
from layerscope.results.citation import bibtex
from layerscope.results.export import export
from layerscope.results.findings_table import COLUMNS, findings_table
from layerscope.results.latex import escaped_for_latex, latex_of
from layerscope.results.notebook import InWords, as_html
from layerscope.results.schema import quantity

HOSTILE = r"50% & $x_1$ #{~^} \input{a} <b>"
CLAIM = Claim(
    text=HOSTILE, value=0.5, low=0.25, high=0.75, n=3, select={"variable": "x", "layer": np.int64(6)}
)


def test_latex_holds_texts_as_they_stand() -> None:
    assert escaped_for_latex(HOSTILE) == (
        r"50\% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\} "
        r"\textbackslash{}input\{a\} \textless{}b\textgreater{}"
    )
    table = latex_of(pd.DataFrame({"a_b": [HOSTILE], "n": [np.nan]}))
    assert r"a\_b & n \\" in table
    assert r"\input" not in table
    assert table.count(r"\\") == 2


def test_findings_are_one_row_each_and_go_with_every_format(tmp_path: Path) -> None:
    table = findings_table([CLAIM])
    result = xr.Dataset({"x": quantity([1.0, 2.0], "layer", "x")})

    assert tuple(table.columns) == COLUMNS
    assert json.loads(table["select"][0]) == {"variable": "x", "layer": 6}
    assert [path.name for path in export(result, tmp_path, "csv", table)] == ["layer.csv", "findings.csv"]
    assert pd.read_csv(tmp_path / "findings.csv").value[0] == 0.5
    assert [path.name for path in export(result, tmp_path, "parquet", table)] == [
        "layer.parquet",
        "findings.parquet",
    ]
    assert [path.name for path in export(result, tmp_path, "latex", table)] == ["findings.tex"]
    assert "& 0.5 & 0.25 & 0.75 & 3 &" in (tmp_path / "findings.tex").read_text()


def test_a_notebook_shows_lines_as_text() -> None:
    shown = InWords(["a <script>alert(1)</script>", "b\nc"])

    assert "<script>" not in shown._repr_html_()
    assert repr(shown).splitlines() == ["a <script>alert(1)</script>", "b", "c"]
    assert as_html(["\u202e"]) != as_html([""])


def test_the_entry_names_the_version() -> None:
    assert "version = {1.2}" in bibtex("1.2")


def test_pictures_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.report import figure_files

    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    with pytest.raises(LayerscopeError, match=r"layerscope\[images\]"):
        figure_files._need_kaleido()
    assert (
        figure_files.file_name("Where does the last token take over?")
        == "where-does-the-last-token-take-over"
    )
    assert figure_files.file_name("→") == "figure"
