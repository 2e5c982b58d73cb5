"""Which heads are ablated: those that attend most to beginnings of words, or to the anchor, and random ones."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.experiments.word_position_probe.settings import Settings


def head_sets(looked: xr.Dataset, settings: Settings, *, depth: int) -> dict[str, list[tuple[int, int]]]:
    """Heads of blocks below a depth to take out: by what they look at, and drawn at random as a control."""
    if "mean_output" not in looked:
        return {}
    below = looked.isel(layer=slice(0, depth))
    size = settings.heads
    chosen = {
        name: _largest(below[variable].mean("prompt").values, size)
        for name, variable in (("word beginnings", "start_preference"), ("anchor", "anchor_share"))
    }
    taken = {head for heads in chosen.values() for head in heads}
    readable = np.argwhere(np.isfinite(below.anchor_share.mean("prompt").values))
    others = [(int(layer), int(head)) for layer, head in readable if (int(layer), int(head)) not in taken]
    for draw in range(settings.ablation_controls):
        rng = settings.seeded("random heads", draw)
        if len(others) >= size:
            chosen[f"random {draw + 1}"] = sorted(
                others[i] for i in rng.choice(len(others), size=size, replace=False)
            )
    return {name: heads for name, heads in chosen.items() if heads}


def _largest(values: np.ndarray, size: int) -> list[tuple[int, int]]:
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=None, kind="stable")[:size]
    cells = [np.unravel_index(int(place), values.shape) for place in order]
    return sorted((int(layer), int(head)) for layer, head in cells if np.isfinite(values[layer, head]))
