"""Where the shipped files are, and how rows of them are read."""

import json
from pathlib import Path

import pytest
from recipe import RECIPE, recipe_in

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "src" / "layerscope" / "bundled"
SHIPPED_RECIPE = recipe_in((BUNDLED / "model" / "MODEL_CARD.md").read_text())

# For tests that hold what ships against what this code writes.
same_recipe = pytest.mark.skipif(
    SHIPPED_RECIPE != RECIPE,
    reason=f"recipe {SHIPPED_RECIPE} made what ships, this code is recipe {RECIPE} (bundle/recipe.py)",
)


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (BUNDLED / name).read_text().splitlines()]
