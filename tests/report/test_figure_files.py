"""Figures of a run as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerscope.errors import LayerscopeError
from layerscope.report.figure_files import figure_files
from report.made_runs import MakeRun

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: no picture is drawn")
def test_a_figure_is_written_under_its_title(make_run: MakeRun, tmp_path: Path) -> None:
    written = [path for some in figure_files(make_run(), tmp_path, "svg") for path in some]

    assert written
    assert all(path.read_text().startswith("<svg") for path in written)


def test_no_figure_with_such_words_is_told_with_what_there_is(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="no figure has these words"):
        list(figure_files(make_run(), tmp_path, "svg", "zzz"))
