"""What cutting does to targets, as arrays that runs are written into one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from layerscope.experiments.attention_knockout.settings import Settings


@dataclass(frozen=True)
class Target:
    """One token whose reading is cut.

    Attributes:
        text: which text it stands in.
        position: where in it; it is the query, and its prediction is read.
        sets: keys that are cut together, by set.
        wanted: id of the token whose log-probability is read; None for the model's own top-1.
    """

    text: int
    position: int
    sets: tuple[tuple[int, ...], ...]
    wanted: int | None


@dataclass(frozen=True)
class Effects:
    """What cutting does to targets; NaN where a layer has no such edge.

    Attributes:
        divergence: KL(own ‖ cut) in nats [target set fate window layer].
        loss: log-probability lost in nats, likewise.
        mass: the attention that was cut, a mean over heads and layers [target set window layer].
        control: divergence with edges cut at random [target set window sample layer].
        control_loss, control_mass: likewise.
        top: id of the model's own most probable next token [target]; -1 where nothing was run.
        rank: place of the wanted token among all, nothing cut; 1 for the top [target].
        log_probability: of the wanted token, nothing cut [target].
    """

    divergence: np.ndarray
    loss: np.ndarray
    mass: np.ndarray
    control: np.ndarray
    control_loss: np.ndarray
    control_mass: np.ndarray
    top: np.ndarray
    rank: np.ndarray
    log_probability: np.ndarray

    @classmethod
    def unknown(
        cls, targets: int, sets: int, windows: Sequence[int], layers: int, settings: Settings
    ) -> Effects:
        """Targets of which nothing is known yet."""

        def array(*more: int) -> np.ndarray:
            return np.full((targets, sets, *more, layers), np.nan, dtype=np.float32)

        by_fate, by_draw = (len(settings.fates), len(windows)), (len(windows), settings.draws)
        return cls(
            divergence=array(*by_fate),
            loss=array(*by_fate),
            mass=array(len(windows)),
            control=array(*by_draw),
            control_loss=array(*by_draw),
            control_mass=array(*by_draw),
            top=np.full(targets, -1),
            rank=np.zeros(targets, dtype=np.int64),
            log_probability=np.full(targets, np.nan, dtype=np.float32),
        )

    def put(self, places: Sequence[int], other: Effects) -> None:
        """Take the numbers of some targets from elsewhere."""
        for one in fields(self):
            getattr(self, one.name)[places] = getattr(other, one.name)
