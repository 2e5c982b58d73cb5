"""Freezes what every experiment gives, and says which numbers a change has moved.

    python tests/frozen/freeze.py keep FOLDER [EXPERIMENT ...]
    python tests/frozen/freeze.py compare FOLDER [EXPERIMENT ...]

Results lie outside the repository: they are bitwise equal on the same machine only. `compare` exits with 1 where a
variable that was kept is gone or differs in a single bit; variables that are new are listed and change nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tests" / "experiments")]

import numpy as np  # noqa: E402
import xarray as xr  # noqa: E402

import layerscope as ls  # noqa: E402
from layerscope import LayerscopeError, experiments, planted  # noqa: E402
from layerscope.results.netcdf import read_result, write_result  # noqa: E402

# What differs from the defaults so that a run takes seconds, on the bundled model.
FEW: dict[str, dict[str, Any]] = {
    "attention_knockout": {"resamples": 100},
    "causal_trace": {
        "samples": 2,
        "limit": 8,
        "outputs": "rows",
        "severed": True,
        "heads": True,
        "one_by_one": True,
        "screen": True,
        "doses": (0.5, 2.0),
        "confirm": 5,
    },
    "trigger_examples": {},
    "weight_directions": {
        "random_directions": 100,
        "rotations": 8,
        "untrained_layers": 1,
        "directions": 12,
        "edits": 2,
        "edit_texts": 2,
        "resamples": 50,
    },
    "word_position_probe": {"train_prompts": 40, "test_prompts": 30, "causal_prompts": 12, "resamples": 100},
    "word_formation": {"pairs": 6, "twins": 8, "contexts": 2, "resamples": 100},
    "syntax_probe": {"resamples": 50},
}
TEXTS = {"prompts": {"limit": 12}, "passages": {"limit": 8, "longest": 96}}


def on_bundled(name: str) -> xr.Dataset:
    experiment = experiments.load(name)
    model, few = ls.load_model("bundled"), dict(FEW.get(name, {}))
    limits = {"longest": 96} if "passages" in experiment.takes else {}
    if experiment.takes & {"prompts", "passages"}:
        limits["limit"] = few.pop("limit", 12)
    few.pop("limit", None)
    return ls.run(name, model, progress=False, **limits, **few)


def on_tiny(name: str) -> xr.Dataset:
    import test_promises

    return test_promises.run(name)


def runs_of(name: str) -> Iterator[tuple[str, Callable[[], xr.Dataset]]]:
    yield "bundled", lambda: on_bundled(name)
    yield "tiny", lambda: on_tiny(name)
    for model, trial in planted.trials():
        if trial.experiment == name and trial.answers:
            yield (
                f"planted-{model}",
                lambda trial=trial: ls.run(
                    trial.experiment,
                    trial.model(trial.planted),
                    progress=False,
                    **trial.texts(),
                    **trial.settings,
                ),
            )


def differences(kept: xr.Dataset, now: xr.Dataset) -> Iterator[str]:
    """Every variable of what was kept that is gone or differs."""
    for name in kept.variables:
        if name not in now.variables:
            yield f"{name}: gone"
            continue
        old, new = kept[name], now[name]
        if old.dims != new.dims or old.shape != new.shape:
            yield f"{name}: {dict(old.sizes)} is now {dict(new.sizes)}"
        elif old.values.tobytes() != new.values.tobytes() and not _same_text(old.values, new.values):
            yield f"{name}: {_by(old.values, new.values)}"


def _same_text(old: np.ndarray, new: np.ndarray) -> bool:
    return old.dtype.kind in "UO" and bool((old.astype(str) == new.astype(str)).all())


def _by(old: np.ndarray, new: np.ndarray) -> str:
    if old.dtype.kind not in "fiu" or new.dtype.kind not in "fiu":
        return "differs"
    a, b = old.astype(float), new.astype(float)
    unknown = int((np.isnan(a) != np.isnan(b)).sum())
    apart = np.abs(a - b)
    known = np.isfinite(apart)
    size = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), 1e-300)
    largest = float(apart[known].max(initial=0.0))
    return f"by up to {largest:.3g} ({largest / size:.1e} of the largest)" + (
        f", {unknown} known or not" if unknown else ""
    )


def main(what: str, folder: Path, names: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    moved = 0
    for name in names or experiments.names():
        for label, make in runs_of(name):
            path, start = folder / f"{name}.{label}.nc", time.process_time()
            if what == "keep" and path.exists():
                continue
            try:
                result = make()
            except LayerscopeError as error:
                print(f"{name} on {label}: refused: {error.problem}", flush=True)
                continue
            seconds = time.process_time() - start
            if what == "keep":
                write_result(path, result)
                print(f"{name} on {label}: kept ({seconds:.0f} s)", flush=True)
                continue
            if not path.exists():
                print(f"{name} on {label}: was not kept", flush=True)
                continue
            write_result(folder / "now.nc", result)
            now, kept = read_result(folder / "now.nc"), read_result(path)
            found = list(differences(kept, now))
            new = [str(v) for v in now.variables if v not in kept.variables]
            print(
                f"{name} on {label}: {len(found)} of {len(kept.variables)} variables moved ({seconds:.0f} s)",
                flush=True,
            )
            for line in found:
                print(f"  {line}")
            if new:
                print(f"  new: {', '.join(new)}")
            moved += len(found)
    return int(moved > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
