"""Where a model's files lie: the bundled folder, a folder, a GGUF file, or the hub's cache."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from layerscope.bundled import bundled_model
from layerscope.errors import LayerscopeError
from layerscope.models.hub import from_hub

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Place:
    """Files of one model on this machine.

    Attributes:
        source: what a person calls it.
        folder: where they lie.
        gguf: name of the one file that is the whole model, or None where the folder is.
        revision: commit of the hub's repository, where it comes from there.
    """

    source: str
    folder: Path
    gguf: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return str(self.folder / self.gguf) if self.gguf else str(self.folder)


def find_model(source: str, *, revision: str | None = None, code: bool = False, known: bool = False) -> Place:
    """The files of a model; those of a hub name are fetched, unless the name comes from a record.

    Args:
        source: "bundled", a folder, a .gguf file or a hub name.
        revision: commit, branch or tag of a hub repository.
        code: fetch Python files of a hub repository too.
        known: whether the digest of the files is known, and will be compared.

    Raises:
        LayerscopeError: there is no such model.
    """
    if source == "bundled":
        return Place(source, bundled_model())
    try:
        path = Path(source).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, NUL
        raise _unknown("", f"a name that no folder can have: {error}") from error
    if is_folder:
        return Place(source, path)
    if path.suffix.lower() == ".gguf" and exists:
        return Place(source, path.parent, gguf=path.name)
    if exists or not _HUB_NAME.fullmatch(source) or source.count("/") > 1 or path.suffix.lower() == ".gguf":
        found = "a file, but no GGUF file" if exists else "neither a folder nor a hub name"
        raise _unknown(source, f"{source} is {found}")
    folder, commit = from_hub(source, revision, code=code, known=known)
    return Place(source, folder, revision=commit)


def _unknown(source: str, found: str) -> LayerscopeError:
    neighbours = [str(path) for path in Path(source).expanduser().parent.glob("*") if path.is_dir()]
    near = difflib.get_close_matches(source, neighbours, n=1)
    return LayerscopeError(
        "there is no such model",
        found=found,
        expected="a folder with a model, a .gguf file, a hub name such as EleutherAI/pythia-160m, or bundled",
        hint=near[0] if near else "layerscope list models",
    )
