"""Imports run one way: no circle anywhere, and every experiment that has a room is held to the order of its roles."""

import ast
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import layerscope.experiments

PACKAGE = Path(layerscope.__path__[0])
ROOT = Path(__file__).resolve().parents[1]


def test_no_room_of_an_experiment_is_forgotten_by_lint_imports() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    inside = next(one for one in settings["contracts"] if one["name"].startswith("inside an experiment"))
    home = Path(layerscope.experiments.__path__[0])
    rooms = sorted(f"layerscope.experiments.{file.parent.name}" for file in home.glob("*/__init__.py"))

    assert rooms == inside["containers"], "list the folders of experiments/ in pyproject.toml, in order"


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports for type checkers and inside of functions count: who reads one file of a circle must read all.

    Flat files of an experiment, `experiments/_*.py` and the file beside them, are left out until it has a folder.
    """
    files = {name_of(file): file for file in PACKAGE.rglob("*.py")}
    flat = {
        name for name, file in files.items() if file.parent.name == "experiments" and file.stem != "__init__"
    }
    imports = {name: imported_by(name, file, set(files)) - {name} for name, file in files.items()}
    for name in flat:
        imports[name] -= flat

    try:
        TopologicalSorter(imports).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(reversed(circle.args[1])))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_by(name: str, file: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports; of `from package import name`, the submodule where there is one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative path"
            ends = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (ends & known) | ({str(node.module)} if ends - known else set())
    return found & known
