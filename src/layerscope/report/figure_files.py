"""Figures of runs as files, for papers and slides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.results.files import make_folder
from layerscope.results.store import RunFolder

Format = Literal["svg", "pdf", "png"]
_AT_ONCE = 8
_WIDTH = 720


def figure_files(run: RunFolder, folder: Path, to: Format, only: str = "") -> Iterator[list[Path]]:
    """Write a run's figures, some at a time; of a figure with a menu, what it shows first.

    Args:
        run: a complete run.
        folder: where they go, each under its title; made if need be.
        to: the format.
        only: words of a title; others are left out.

    Yields:
        The files written.

    Raises:
        LayerscopeError: no figure has such a title, or what draws pictures is missing.
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
    _need_kaleido()
    make_folder(folder)
    names = list(wanted)
    for first in range(0, len(names), _AT_ONCE):
        some = {folder / f"{file_name(name)}.{to}": wanted[name] for name in names[first : first + _AT_ONCE]}
        _write(some)
        yield list(some)


def file_name(title: str) -> str:
    """A title as a file name that reads aloud: small letters, digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "figure"


def _write(figures: Mapping[Path, Any]) -> None:
    import plotly.io as pio
    from choreographer.errors import BrowserFailedError, ChromeNotFoundError

    for figure in figures.values():
        figure.update_layout(
            width=max(_WIDTH, int((figure.layout.meta or {}).get("min_width", 0))), updatemenus=[]
        )
    try:
        pio.write_images(fig=list(figures.values()), file=[str(path) for path in figures])
    except (ChromeNotFoundError, BrowserFailedError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "hrome" not in str(error):
            raise
        raise LayerscopeError(
            "pictures are drawn by a browser that is not there",
            found="no Chrome or Chromium that starts",
            expected="Chrome or Chromium on the path",
            hint="apt install chromium, or plotly_get_chrome",
        ) from error


def _need_kaleido() -> None:
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise LayerscopeError(
            "pictures need a package that is not installed",
            found="no kaleido",
            expected="kaleido",
            hint="pip install 'layerscope[images]'",
        ) from error
