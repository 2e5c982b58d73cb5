"""Every experiment that has a room is held to the order of its roles."""

import tomllib
from pathlib import Path

import layerscope.experiments

ROOT = Path(__file__).resolve().parents[1]


def test_no_room_of_an_experiment_is_forgotten_by_lint_imports() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    inside = next(one for one in settings["contracts"] if one["name"].startswith("inside an experiment"))
    home = Path(layerscope.experiments.__path__[0])
    rooms = sorted(f"layerscope.experiments.{file.parent.name}" for file in home.glob("*/__init__.py"))

    assert rooms == inside["containers"], "list the folders of experiments/ in pyproject.toml, in order"
