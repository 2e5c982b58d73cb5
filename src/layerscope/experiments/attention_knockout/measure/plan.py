"""Every cut of one target: sets of keys by layer and window, and random keys that hold as much attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope import runs
from layerscope.experiments.attention_knockout.items import in_layers
from layerscope.experiments.attention_knockout.measure.effects import Effects, Target
from layerscope.experiments.attention_knockout.settings import Settings

if TYPE_CHECKING:
    from layerscope.runs.edits import Cut, LostMass

_NEAR_ENOUGH, _AS_MUCH = 0.02, 0.2
"""Keys are added at random until so little of the attention lacks; held beyond the other, they are no control."""


def window_layers(centre: int, width: int, n_layers: int) -> range:
    """Layers of a window; an even one has one more before its centre. It ends where the model does."""
    first = centre - width // 2
    return range(max(0, first), min(n_layers, first + width))


@dataclass(frozen=True)
class Cell:
    """One run: what is cut, and where its numbers go; `fate` is None where random keys are cut."""

    cut: Cut
    target: int
    edges: int
    window: int
    layer: int
    mass: float
    fate: int | None = None
    sample: int = 0

    def write(self, found: Effects, moved: float, lost: float) -> None:
        """Put divergence and lost log-probability in their place, in nats."""
        if self.fate is None:
            place: tuple[int, ...] = (self.target, self.edges, self.window, self.sample, self.layer)
            found.control[place], found.control_loss[place] = moved, lost
            found.control_mass[place] = self.mass
        else:
            place = (self.target, self.edges, self.fate, self.window, self.layer)
            found.divergence[place], found.loss[place] = moved, lost
            found.mass[self.target, self.edges, self.window, self.layer] = self.mass


class Plan:
    """Every cut of one target.

    Args:
        target: the token.
        place: its place among all targets.
        shares: of its attention, mean over heads [layer token]; NaN where a layer does not attend.
        visible: which tokens each layer lets it see [layer token].
        settings: windows, where removed attention goes, and control.
        name: names the random draws.
    """

    def __init__(
        self,
        target: Target,
        place: int,
        shares: np.ndarray,
        visible: np.ndarray,
        settings: Settings,
        name: str,
    ) -> None:
        import torch

        self.target, self.place, self.shares, self.visible = target, place, shares, visible
        self.settings, self.windows = settings, in_layers(settings.windows, len(visible))
        self._orders = [
            torch.randperm(
                target.position,
                generator=runs.stream(settings.seed, "control", name, sample, target.position),
            ).numpy()
            for sample in range(settings.draws)
        ]

    def cells(self) -> Iterator[Cell]:
        """Cuts at every set, window and layer that have an edge to cut."""
        n_layers = len(self.visible)
        for edges, keys in enumerate(self.target.sets):
            for window, width in enumerate(self.windows):
                for centre in range(n_layers if keys else 0):
                    layers = [
                        layer
                        for layer in window_layers(centre, width, n_layers)
                        if self.visible[layer, list(keys)].any()
                    ]
                    if layers:
                        yield from self._at(edges, keys, window, centre, layers)

    def _at(
        self, edges: int, keys: tuple[int, ...], window: int, centre: int, layers: list[int]
    ) -> Iterator[Cell]:
        weights = self.shares[layers].mean(axis=0)
        mass = float(weights[list(keys)].sum())
        at: dict[str, Any] = {"target": self.place, "edges": edges, "window": window, "layer": centre}
        for fate, lost in enumerate(self.settings.fates):
            # What does not see the first token cannot look at it instead.
            if lost != "first" or (0 not in keys and self.visible[layers, 0].all()):
                yield Cell(self._cut(layers, keys, lost), mass=mass, fate=fate, **at)
        seen = np.asarray(self.visible[layers].any(axis=0))
        others = seen.copy()
        others[[0, *keys]] = False
        for sample, order in enumerate(self._orders):
            chosen = self._chosen(order[others[order]], weights, mass, int(seen[list(keys)].sum()))
            if chosen:
                cut = self._cut(layers, tuple(sorted(chosen)), self.settings.fates[0])
                yield Cell(cut, mass=float(weights[chosen].sum()), sample=sample, **at)

    def _chosen(self, order: np.ndarray, weights: np.ndarray, mass: float, keys: int) -> list[int]:
        """Keys in random order: as many, or with as much attention; none where there are no such keys."""
        if self.settings.control == "as many keys":
            return order[:keys].tolist() if len(order) >= keys else []
        chosen, held = [], 0.0
        for key, weight in zip(order.tolist(), weights[order].tolist(), strict=True):
            # A key that would bring the sum past the mass by more than it lacks is passed over.
            if held + weight / 2 < mass:
                chosen.append(key)
                held += weight
                if held >= (1 - _NEAR_ENOUGH) * mass:
                    break
        return chosen if abs(held - mass) <= _AS_MUCH * mass else []

    def _cut(self, layers: Sequence[int], keys: tuple[int, ...], lost: LostMass) -> Cut:
        return runs.Cut(layers=tuple(layers), queries=(self.target.position,), keys=keys, lost=lost)
