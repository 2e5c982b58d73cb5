"""Names of a package that are imported when they are first used, listed once: where type checkers read them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def imported_at_first_use(package: str) -> Callable[[str], Any]:
    """A `__getattr__` for a package that imports names in its `if TYPE_CHECKING:` block, and nothing else.

    Its `__all__`, where it is asked for, is these names.
    """

    def find(name: str) -> Any:
        if name == "__all__" or name in (places := _places(package)):
            return (
                sorted(_places(package)) if name == "__all__" else getattr(import_module(places[name]), name)
            )
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


@cache
def _places(package: str) -> dict[str, str]:
    """The module of each name."""
    import ast

    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
