"""Which keys are searched for, and at which of their tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.experiments.trigger_examples.settings import Settings

_REACH = 0.5
"""A tail counts as a side of its own where it reaches at least this share of the other's height."""


@dataclass(frozen=True)
class Unit:
    """One tail of one key, and how the key is called in its layer."""

    layer: int
    key: int
    tail: int
    label: str

    @property
    def name(self) -> str:
        """How it is called everywhere: layer:key, the negative tail by name."""
        return f"{self.layer}:{self.label}" + (" negative" if self.tail < 0 else "")


@dataclass(frozen=True)
class Numbering:
    """How the keys of a layer are counted: those of experts one expert after the other, a shared one's last.

    Attributes:
        experts: that tokens are sent to; 0 where one MLP serves every token.
        each: keys of each of them.
        count: all keys of the layer.
    """

    experts: int
    each: int
    count: int

    def label(self, key: int) -> str:
        """A key's name in its layer: 17, of experts 2:17 or shared:17."""
        if not self.experts:
            return str(key)
        expert, unit = divmod(key, self.each)
        return f"{expert}:{unit}" if expert < self.experts else f"shared:{key - self.experts * self.each}"

    def number(self, label: str) -> int | None:
        """The key of a name; None where the layer has none of that name."""
        expert, _, unit = label.rpartition(":")
        if bool(expert) != bool(self.experts):
            return None
        if not expert:
            return int(unit) if int(unit) < self.count else None
        first, end = self.experts * self.each, self.count
        if expert != "shared":
            first, end = int(expert) * self.each, min(int(expert) + 1, self.experts) * self.each
        key = first + int(unit)
        return key if key < end else None

    @property
    def said(self) -> str:
        """What there is to choose from."""
        if not self.experts:
            return f"keys 0 to {self.count - 1}"
        beside = self.count - self.experts * self.each
        shared = f", and shared:0 to shared:{beside - 1}" if beside else ""
        return f"experts 0 to {self.experts - 1} with keys 0 to {self.each - 1} each{shared}"


def numberings(census: xr.Dataset) -> list[Numbering]:
    """How the keys of every layer are counted."""
    counts = np.isfinite(census.highest.values).sum(axis=1)
    return [
        Numbering(int(experts), int(each), int(count))
        for experts, each, count in zip(census.experts.values, census.expert_keys.values, counts, strict=True)
    ]


def chosen_units(census: xr.Dataset, settings: Settings) -> list[Unit]:
    """The keys of a run, each with its positive tail and, if it ever goes below 0, its negative one.

    Raises:
        LayerscopeError: a chosen key that this model does not have, or no key that is ever excited.
    """
    highest, lowest = census.highest.values, census.lowest.values
    exists, live = np.isfinite(highest), highest > 0
    layers = numberings(census)
    if settings.keys:
        pairs = [_chosen(key, layers) for key in settings.keys]
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
        Unit(layer, key, tail, layers[layer].label(key))
        for layer, key in pairs
        for tail in (1, -1)
        if tail > 0 or lowest[layer, key] < 0
    ]


def _chosen(name: str, layers: list[Numbering]) -> tuple[int, int]:
    """Layer and number of a key that was asked for by name."""
    layer, label = int(name.partition(":")[0]), name.partition(":")[2]
    here = layers[min(layer, len(layers) - 1)]
    key = here.number(label) if layer < len(layers) else None
    if key is None:
        last = layers[-1]
        raise LayerscopeError(
            "this model has no such key",
            found=name,
            expected=f"layers 0 to {len(layers) - 1}; in layer {min(layer, len(layers) - 1)} {here.said}",
            hint=f"--set keys='[\"{len(layers) - 1}:{last.label(0)}\"]'",
        )
    return layer, key


def _drawn(among: np.ndarray, layer: int, settings: Settings) -> list[int]:
    keys = np.flatnonzero(among)
    if settings.keys_per_layer and len(keys) > settings.keys_per_layer:
        rng = np.random.default_rng([settings.seed, layer])
        keys = np.sort(rng.choice(keys, settings.keys_per_layer, replace=False))
    return [int(key) for key in keys]


def two_sided(highest: Any, lowest: Any) -> Any:
    """Whether the negative side reaches far enough to count: in gated MLPs, not in GELU's short tail."""
    return -lowest >= _REACH * highest
