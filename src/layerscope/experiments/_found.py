"""What experiments there are: folders beside this file, and entry points of other packages. Nothing else lists them."""

from __future__ import annotations

import ast
import hashlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from layerscope.errors import LayerscopeError

GROUP = "layerscope.experiments"
"""The group of entry points, and the package that holds Layerscope's own folders."""

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""What an experiment may be called: names become words of commands and parts of folders."""

RESERVED = ("all",)
MOST_LETTERS = 40


@dataclass(frozen=True)
class Found:
    """An experiment by its name, and where it is, before anything of it is imported.

    Attributes:
        name: as commands call it.
        module: the folder of its roles.
        distribution, version: the installed package that brings it; empty for Layerscope's own.
    """

    name: str
    module: str
    distribution: str = ""
    version: str = ""

    @property
    def whose(self) -> str:
        """Who brings it, in words."""
        return f"{self.distribution} {self.version}" if self.distribution else "Layerscope"

    @property
    def question(self) -> str:
        """The first line of its docstring, without importing it."""
        try:
            file = (find_spec(self.module) or _nowhere(self.module)).origin
            doc = ast.get_docstring(ast.parse(Path(file or "").read_text(encoding="utf-8")))
        except (ImportError, OSError, ValueError, SyntaxError) as error:
            raise self.refused(error) from error
        return (doc or "").partition("\n")[0]

    def imported(self, role: str = "") -> ModuleType:
        """Its module, or the one of a role.

        Raises:
            LayerscopeError: it belongs to another package and cannot be imported. A mistake in Layerscope's own
                stays what it is.
        """
        module = f"{self.module}.{role}" if role else self.module
        if not self.distribution:
            return import_module(module)
        try:
            return import_module(module)
        except Exception as error:
            raise self.refused(error) from error

    def has(self, role: str) -> bool:
        """Whether its folder holds this role, without importing it."""
        spec = find_spec(self.module)
        folders = spec.submodule_search_locations if spec else None
        return role in {module.name for module in pkgutil.iter_modules(folders or [])}

    def refused(self, error: Exception) -> LayerscopeError:
        """It is there, and cannot be had."""
        return LayerscopeError(
            f"the experiment {self.name} of {self.whose} cannot be imported",
            found=f"{type(error).__name__}: {error}",
            expected=f"the module {self.module}",
            hint=f"pip install --upgrade {self.distribution}   (or: pip uninstall {self.distribution})",
        )

    def code(self) -> str:
        """sha256 over the source of the package that brings it."""
        return _code(self.module)


def found() -> Mapping[str, list[Found]]:
    """All that claim a name, by name: one each, if all is well."""
    return _found(tuple(sys.modules[GROUP].__path__), tuple(sys.path))


@lru_cache(maxsize=1)  # reading what is installed takes 3 ms, and a list of experiments asks for each
def _found(folders: tuple[str, ...], installed: tuple[str, ...]) -> Mapping[str, list[Found]]:
    claimed: dict[str, list[Found]] = {}
    for one in (*_own(folders), *_of_others(installed)):
        claimed.setdefault(one.name, []).append(one)
    return dict(sorted(claimed.items()))


def _own(folders: Iterable[str]) -> Iterator[Found]:
    for module in pkgutil.iter_modules(folders):
        if not module.name.startswith("_"):
            yield Found(module.name, f"{GROUP}.{module.name}")


def _of_others(installed: Iterable[str]) -> Iterator[Found]:
    seen = set()
    for package in distributions(path=list(installed)):
        if package.name in seen:  # the first on the path is the one that is imported
            continue
        seen.add(package.name)
        for point in package.entry_points.select(group=GROUP):
            yield Found(point.name, point.value.strip(), package.name, package.version)


def only(claimed: list[Found]) -> Found:
    """The one that has a name.

    Raises:
        LayerscopeError: several packages claim it, or it is no name.
    """
    first, *others = claimed
    refuse_bad_name(first.name, whose=first.whose)
    if others:
        last = claimed[-1].distribution
        raise LayerscopeError(
            f"two experiments are called {first.name}",
            found=" and ".join(f"one of {one.whose}" for one in claimed),
            expected="one experiment of each name",
            hint=f"pip uninstall {last}   (or ask its authors for another name)",
        )
    return first


def refuse_bad_name(name: str, *, whose: str = "") -> None:
    """Refuse what an experiment cannot be called."""
    if NAME.fullmatch(name) and len(name) <= MOST_LETTERS and name not in RESERVED:
        return
    raise LayerscopeError(
        f"an experiment of {whose} has a name that cannot be used"
        if whose
        else "an experiment cannot be called this",
        found=ascii(name),
        expected=f"small letters, digits and single underscores, at most {MOST_LETTERS}, a letter first; not "
        + " or ".join(RESERVED),
        hint="such as state_growth",
    )


@cache
def _code(module: str) -> str:
    summary = hashlib.sha256()
    for root in _folders(module):
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            summary.update(path.relative_to(root.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return summary.hexdigest()


def _folders(module: str) -> list[Path]:
    """The outermost package that is a regular one: a namespace may hold what others install."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:depth])) or _nowhere(module)
        if spec.origin and spec.submodule_search_locations:
            return [Path(folder) for folder in spec.submodule_search_locations]
        if spec.origin:
            return [Path(spec.origin)]
    return []


def _nowhere(module: str) -> ModuleSpec:
    raise ModuleNotFoundError(f"No module named {module!r}")
