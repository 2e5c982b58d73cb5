"""Figures of a run as files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots.heatmap import NamedHeatmap, heatmap_gallery
from layerscope.plots.theme import finish, legend_above
from layerscope.report.figure_files import _picture, figures_of, file_names, write_figures
from layerscope.results.schema import quantity
from report.made_runs import MakeRun

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
CAPTION = "A caption of many words that says what is drawn and what to look for, and why. " * 4


@needs_chromium
@pytest.mark.parametrize("to", ["svg", "png"])
def test_every_figure_is_written_under_its_title(make_run: MakeRun, tmp_path: Path, to: str) -> None:
    figures = figures_of(make_run())
    written = list(write_figures(figures, tmp_path / "new", to))  # type: ignore[arg-type]

    assert [path.stem for path in written] == list(file_names(list(figures)).values())
    for path in written:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG" if to == "png" else b"<svg")
        if to == "svg":
            ElementTree.fromstring(content)


def test_titles_choose_figures(make_run: MakeRun) -> None:
    run = make_run()
    every = figures_of(run)
    name = next(iter(every))

    assert name in figures_of(run, name.upper())
    with pytest.raises(LayerscopeError, match="no figure has these words"):
        figures_of(run, "zzz")


def test_no_two_files_have_one_name() -> None:
    titles = ["Where does it end?", "where does it end", "→", "⏎", "x" * 200]

    assert list(file_names(titles).values()) == [
        "where-does-it-end",
        "where-does-it-end-2",
        "figure",
        "figure-2",
        "x" * 80,
    ]


def test_a_caption_fits_the_width_and_stands_above_a_legend_of_several_rows() -> None:
    figure = go.Figure(
        [go.Scatter(x=[0, 1], y=[0, 1], name=f"a name of a line that is long {i}") for i in range(8)]
    )
    figure.update_layout(legend=legend_above())
    own = finish(figure, title="", caption=CAPTION, top=44)
    drawn = _picture("Title", own, bare=False)
    lines = drawn.layout.title.subtitle.text.split("<br>")
    plot = own.layout.height - own.layout.margin.t - own.layout.margin.b

    assert drawn.layout.title.text == "Title"
    assert max(map(len, lines)) * 6.6 < drawn.layout.width
    assert drawn.layout.margin.t > 40 + 19 * len(lines) + 19 * 4  # two names a row
    assert drawn.layout.height - drawn.layout.margin.t - drawn.layout.margin.b == plot
    assert _picture("Title", own, bare=True).layout.title.text is None
    assert own.layout.title.subtitle.text  # the figure given is as it was


def test_a_menu_is_left_out_and_what_is_shown_is_said() -> None:
    recovery = xr.DataArray(quantity(np.zeros((2, 3)), "token depth", "recovery"), coords={"depth": range(3)})
    prompts = [NamedHeatmap(name, recovery, ["a", "b"], category="c") for name in ("first", "second")]
    menu = heatmap_gallery(prompts, caption="What is drawn.")
    drawn = _picture("Every prompt", menu, bare=False)

    assert menu.layout.updatemenus
    assert not drawn.layout.updatemenus
    assert "Shown: c: first." in drawn.layout.title.subtitle.text.replace("<br>", " ")


@pytest.mark.parametrize("kaleido", [None, object()])  # none, and one of before version 1
def test_without_kaleido_it_is_said_what_to_install(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kaleido: object
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", kaleido)
    with pytest.raises(LayerscopeError, match=r"layerscope\[images\]"):
        list(write_figures(figures_of(make_run()), tmp_path / "new", "svg"))

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("browser", ["/nowhere/chromium", "/bin/false"])
def test_without_a_browser_it_is_said_what_to_install(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: str
) -> None:
    monkeypatch.setenv("BROWSER_PATH", browser)
    with pytest.raises(LayerscopeError, match="plotly_get_chrome"):
        list(write_figures(figures_of(make_run()), tmp_path, "svg"))

    assert not list(tmp_path.glob("*.svg"))
