"""The package of a new experiment: the example's, under another name. So what is made has been tried."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from layerscope import experiments
from layerscope.bundled import example_folder
from layerscope.errors import LayerscopeError
from layerscope.results.files import explained, make_folder

_EXAMPLE = "state_growth"
_LEFT_BEHIND = ("__pycache__", ".*", "*.pyc", "dist", "build")


def new_experiment(name: str, into: Path) -> Path:
    """Make the package `layerscope-NAME` in a folder, and return where it lies.

    Raises:
        LayerscopeError: the name cannot be used or is taken, there is such a folder, or it cannot be written.
    """
    experiments.refuse_name(name)
    folder = into / f"layerscope-{_dashed(name)}"
    if folder.exists() or folder.is_symlink():
        raise LayerscopeError(
            "there is such a folder already",
            found=folder,
            expected="a name for which nothing has been made",
            hint="another name, or --out DIR",
        )
    make_folder(into)
    with explained(folder), tempfile.TemporaryDirectory(prefix=".new-experiment-", dir=into) as made:
        whole = Path(made) / folder.name
        for path in _files(example_folder()):
            copy = whole / _renamed(path.relative_to(example_folder()).as_posix(), name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_renamed(path.read_text(encoding="utf-8"), name), encoding="utf-8")
        shutil.move(whole, folder)
    return folder


def _files(folder: Path) -> list[Path]:
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path
        for path in every
        if not any(Path(part).match(left) for part in path.relative_to(folder).parts for left in _LEFT_BEHIND)
    )


def _renamed(text: str, name: str) -> str:
    """Sorted imports stay sorted: all of the package's own modules begin alike."""
    return text.replace(_EXAMPLE, name).replace(_dashed(_EXAMPLE), _dashed(name))


def _dashed(name: str) -> str:
    return name.replace("_", "-")
