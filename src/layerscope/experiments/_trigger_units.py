"""Which keys are searched for, and at which of their tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.experiments._trigger_settings import Settings


@dataclass(frozen=True)
class Unit:
    """One tail of one key."""

    layer: int
    key: int
    tail: int

    @property
    def name(self) -> str:
        """How it is called everywhere: layer:key, the negative tail by name."""
        return f"{self.layer}:{self.key}" + (" negative" if self.tail < 0 else "")


def chosen_units(census: xr.Dataset, settings: Settings) -> list[Unit]:
    """The keys of a run, each with its positive tail and, if it ever goes below 0, its negative one.

    Raises:
        LayerscopeError: a chosen key that this model does not have, or no key that is ever excited.
    """
    highest, lowest = census.highest.values, census.lowest.values
    exists, live = np.isfinite(highest), highest > 0
    if settings.keys:
        pairs = [tuple(map(int, key.split(":"))) for key in settings.keys]
        for layer, key in pairs:
            if layer >= len(highest) or key >= highest.shape[1] or not exists[layer, key]:
                raise LayerscopeError(
                    "this model has no such key",
                    found=f"{layer}:{key}",
                    expected=f"layers 0 to {len(highest) - 1}, keys 0 to {int(exists[0].sum()) - 1}",
                    hint=f"--set keys='[\"{len(highest) - 1}:0\"]'",
                )
    else:
        among = exists & live if settings.live_only else exists
        pairs = [
            (layer, key) for layer in range(len(highest)) for key in _drawn(among[layer], layer, settings)
        ]
    if not any(live[layer, key] for layer, key in pairs):
        raise LayerscopeError(
            "no key is ever excited",
            found=f"no activation above 0 among {len(pairs) or int(exists.sum())} keys on the census passages",
            expected="passages that excite some key",
            hint="other passages, or --set census_passages=64",
        )
    return [
        Unit(layer, key, tail)
        for layer, key in pairs
        for tail in (1, -1)
        if tail > 0 or lowest[layer, key] < 0
    ]


def _drawn(among: np.ndarray, layer: int, settings: Settings) -> list[int]:
    keys = np.flatnonzero(among)
    if settings.keys_per_layer and len(keys) > settings.keys_per_layer:
        rng = np.random.default_rng([settings.seed, layer])
        keys = np.sort(rng.choice(keys, settings.keys_per_layer, replace=False))
    return [int(key) for key in keys]
