"""Where the shipped files are, and how rows of them are read."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "src" / "layerscope" / "bundled"


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (BUNDLED / name).read_text().splitlines()]
