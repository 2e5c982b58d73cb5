"""What experiments found on untrained twins of the bundled model, as it ships: one small file for each question.

A file is found by what was asked: weights of the trained model, tokenizer, settings and texts. Whoever changes one
of them finds none.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from layerscope.bundled import bundled_folder
from layerscope.results.parts import put_together, taken_apart
from layerscope.results.record import RunRecord, digest

_HEADER = "header"


def shipped_twins(record: RunRecord) -> dict[int, xr.Dataset]:
    """Results on twins of the very model that a run asked, by seed; empty where none ship for what was asked."""
    path = shipped_path(record)
    return read_twins(path) if path.is_file() else {}


def shipped_path(record: RunRecord, folder: Path | None = None) -> Path:
    """Where results on twins lie that were asked what this run of the trained model was asked."""
    asked = record.asked
    about = asked.model_dump(
        mode="json",
        include={"experiment", "settings", "weights", "tokenizer", "bos", "chat", "texts", "dtype"},
    )
    name = f"{asked.experiment}-{digest(about)[:12]}.xz"
    return (folder or bundled_folder("twins")) / name


def write_twins(path: Path, twins: Mapping[int, xr.Dataset]) -> None:
    """Write results on twins, by seed, as one small file; the same results give the same bytes."""
    arrays: dict[str, np.ndarray] = {}
    for seed, result in sorted(twins.items()):
        header, values = taken_apart(result, item="")
        arrays[f"{seed}/{_HEADER}"] = np.frombuffer(header.encode(), dtype=np.uint8)
        arrays |= {f"{seed}/{place}": array for place, array in enumerate(values)}
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(archive.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def read_twins(path: Path) -> dict[int, xr.Dataset]:
    """What `write_twins` wrote."""
    found: dict[int, xr.Dataset] = {}
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as file:
        for seed in sorted({int(name.partition("/")[0]) for name in file.files}):
            arrays = [file[f"{seed}/{place}"] for place in range(_count(file.files, seed) - 1)]
            found[seed] = put_together(bytes(file[f"{seed}/{_HEADER}"]).decode(), arrays)[0]
    return found


def _count(names: list[str], seed: int) -> int:
    return sum(name.startswith(f"{seed}/") for name in names)
