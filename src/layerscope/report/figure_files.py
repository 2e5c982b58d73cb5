"""Figures of runs as files, for papers and slides."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from plotly.graph_objects import Figure

from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.plots.axes import escaped
from layerscope.results.files import make_folder
from layerscope.results.store import RunFolder

Format = Literal["svg", "pdf", "png"]
_AT_ONCE = 8
_WIDTH = 720
_MARGIN = 56 + 16
_LETTER = 7.0
"""Pixels of a letter of a caption or a legend, rather too many than too few."""
_KEY = 45
_LINE = 19


def figures_of(run: RunFolder, only: str = "") -> dict[str, Figure]:
    """A run's figures by title.

    Args:
        run: a complete run.
        only: words of a title; others are left out.

    Raises:
        LayerscopeError: no figure has such a title.
    """
    drawn = experiments.load(run.record.asked.experiment).draw(run.result())
    wanted = {name: figure for name, figure in drawn.items() if only.lower() in name.lower()}
    if not wanted:
        raise LayerscopeError(
            "no figure has these words in its title",
            found=repr(only),
            expected="; ".join(drawn) or "a run with figures",
            hint="leave --only out",
        )
    return wanted


def write_figures(
    figures: Mapping[str, Figure], folder: Path, to: Format, *, bare: bool = False
) -> Iterator[Path]:
    """Write figures, each under its title; of one with a menu, what it shows first, which its caption names.

    Args:
        figures: by title.
        folder: where they go; made if need be.
        to: the format.
        bare: without title and caption, for texts that have their own.

    Yields:
        The files, as they are written.

    Raises:
        LayerscopeError: what draws pictures is missing, or the folder cannot be written.
    """
    _need_kaleido()
    make_folder(folder)
    names = file_names(list(figures))
    pictures = [
        (folder / f"{names[title]}.{to}", _picture(title, figure, bare)) for title, figure in figures.items()
    ]
    for first in range(0, len(pictures), _AT_ONCE):
        some = dict(pictures[first : first + _AT_ONCE])
        _write(some)
        yield from some


def file_names(titles: list[str]) -> dict[str, str]:
    """Titles as file names that read aloud: small letters, digits, hyphens; no two alike."""
    names: dict[str, str] = {}
    for title in titles:
        name = plain = re.sub(r"[^a-z0-9]+", "-", title.lower())[:80].strip("-") or "figure"
        again = 1
        while name in names.values():
            again += 1
            name = f"{plain}-{again}"
        names[title] = name
    return names


def _picture(title: str, drawn: Figure, bare: bool) -> Figure:
    """A figure as it stands on paper: no menu, its title and caption above it, its legend under them."""
    figure = Figure(drawn)
    meta = dict(figure.layout.meta or {})
    width = max(_WIDTH, int(meta.get("min_width", 0)))
    caption = f"{meta.get('caption', '')} {_shown(figure)}".strip()
    lines = [] if bare else textwrap.wrap(caption, int((width - 16) / _LETTER))
    above = 0 if bare else 40 + _LINE * len(lines)
    top = figure.layout.margin.t
    own = max((56 if top is None else top) - meta.get("title_height", 0) - meta.get("menu_height", 0), 16)
    figure.layout.updatemenus = figure.layout.title = None  # update_layout would leave both as they are
    figure.update_layout(width=width)
    height = (figure.layout.height or 450) - (56 if top is None else top) + own
    legend = max(0, _legend_height(figure, width, height) - own)
    figure.update_layout(height=height + above + legend, margin={"t": own + above + legend})
    if not bare:
        subtitle = {"text": "<br>".join(map(escaped, lines))}
        place = {"y": 1, "yanchor": "top", "pad": {"t": 12}}
        figure.update_layout(title={"text": escaped(title), "subtitle": subtitle} | place)
    return figure


def _shown(figure: Figure) -> str:
    """Which of a menu's choices is drawn, in words."""
    if not figure.layout.updatemenus:
        return ""
    return f"Shown: {html.unescape(figure.layout.updatemenus[0].buttons[0].label)}."


def _legend_height(figure: Figure, width: int, height: int) -> int:
    """Pixels that a legend in rows above the plot takes, and what it is raised by."""
    legend = figure.layout.legend
    named = [one.name for one in figure.data if one.name and one.showlegend is not False]
    if legend.orientation != "h" or figure.layout.showlegend is False or not named:
        return 0
    texts = [re.split(r"<br\s*/?>", name) for name in named]
    each = _KEY + _LETTER * max(len(html.unescape(line)) for text in texts for line in text)
    rows = math.ceil(len(texts) / max(1, int((width - _MARGIN) / each)))
    margin = figure.layout.margin
    raised = max(0.0, (legend.y or 1) - 1) * (height - (margin.t or 0) - (margin.b or 0))
    return int(10 + raised + _LINE * rows * max(map(len, texts)))


def _write(figures: Mapping[Path, Figure]) -> None:
    import kaleido
    from choreographer.errors import BrowserFailedError, ChromeNotFoundError

    specs = [
        {
            "fig": figure.to_dict(),
            "path": path,
            "opts": {
                "format": path.suffix[1:],
                "width": figure.layout.width,
                "height": figure.layout.height,
                "scale": 2 if path.suffix == ".png" else 1,
            },
        }
        for path, figure in figures.items()
    ]
    try:  # mathjax would be fetched from the network
        kaleido.write_fig_from_object_sync(specs, kopts={"mathjax": False}, cancel_on_error=True)
    except (ChromeNotFoundError, BrowserFailedError) as error:
        raise LayerscopeError(
            "pictures are drawn by a browser, and none starts here",
            found=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            expected="Chrome or Chromium on the path, or its place in BROWSER_PATH",
            hint="apt install chromium, or plotly_get_chrome",
        ) from error


def _need_kaleido() -> None:
    try:
        import choreographer
        import kaleido

        _ = choreographer, kaleido.write_fig_from_object_sync
    except (ImportError, AttributeError) as error:
        raise LayerscopeError(
            "pictures need a package that is not installed",
            found=f"no kaleido of version 1 or later: {error}",
            expected="kaleido",
            hint="pip install 'layerscope[images]'",
        ) from error
