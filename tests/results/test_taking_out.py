"""Findings as a table, LaTeX, notebooks: whatever texts hold, they are text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import layerscope as ls
from layerscope.contract import Claim
from layerscope.results.citation import bibtex, sources_of
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
        r"50\% \& \$x\_\allowbreak{}1\$ \#\{\textasciitilde{}\textasciicircum{}\} "
        r"\textbackslash{}input\{a\} \textless{}b\textgreater{}"
    )
    table = latex_of(pd.DataFrame({"a_b": [HOSTILE], "n": [np.nan]}))
    assert r"a\_\allowbreak{}b & n \\" in table
    assert r"\input" not in table
    assert table.count(r"\\") == 2


def test_findings_are_one_row_each_and_go_with_every_format(tmp_path: Path) -> None:
    table = findings_table([CLAIM])
    result = xr.Dataset({"x": quantity([1.0, 2.0], "layer", "x")})

    assert tuple(table.columns) == COLUMNS
    assert table["variable"][0] == "x"
    assert json.loads(table["select"][0]) == {"layer": 6}
    assert [path.name for path in export(result, tmp_path, "csv", table)] == ["layer.csv", "findings.csv"]
    assert pd.read_csv(tmp_path / "findings.csv").value[0] == 0.5
    assert [path.name for path in export(result, tmp_path, "parquet", table)] == [
        "layer.parquet",
        "findings.parquet",
    ]
    assert [path.name for path in export(result, tmp_path, "latex", table)] == ["findings.tex"]
    assert "& 0.5 & 0.25 to 0.75 &  & 3 &" in (tmp_path / "findings.tex").read_text()


def test_a_notebook_shows_lines_as_text() -> None:
    shown = InWords(["a <script>alert(1)</script>", "b\nc"])

    assert "<script>" not in shown._repr_html_()
    assert repr(shown).splitlines() == ["a <script>alert(1)</script>", "b", "c"]
    assert as_html(["\u202e"]) != as_html([""])


def test_the_entry_names_the_version() -> None:
    assert f"version = {{{ls.__version__}}}" in bibtex()


def test_a_row_of_latex_does_not_begin_with_what_belongs_to_the_row_before() -> None:
    table = latex_of(pd.DataFrame({"token": ["[PAD]", "*a*"]}))

    assert "{[}PAD]" in table
    assert "{*}a{*}" in table


def test_what_experiments_name_as_sources_is_cited_once() -> None:
    cited = sources_of(
        {
            "one": 'Why?\n\nSource: after Nanda et al. 2023, "Fact Finding"; Kornblith et al. 2019 (CKA).\n\nMore.',
            "two": '?\n\nSource: Nanda et al. 2023, "Fact Finding: do\nearly layers"; Vig & Belinkov 2019, "A & B".\n',
            "three": "Why?",
        }
    )

    assert cited.count("@misc") == 2
    assert "@misc{nanda2023fact,\n  author = {Nanda and others}" in cited
    assert "title  = {{Fact Finding: do early layers}}" in cited
    assert "author = {Vig and Belinkov}" in cited
    assert r"{{A \& B}}" in cited
    assert "% three: no source" in cited
    assert "Kornblith" in cited.splitlines()[0]  # no title: said, and no entry made up
