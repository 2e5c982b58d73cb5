"""Numbers of one cut passage, filled in while its states go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope.maths.similarity import centred_cosine, norm

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context.items import CutItem


@dataclass
class Measured:
    """Numbers of one passage, filled in while states go by; states themselves are kept for the ladder only."""

    item: CutItem
    full: Any  # [depth token width], float32
    mean: Any  # [depth width]

    def __post_init__(self) -> None:
        item, depths = self.item, self.full.shape[0]
        shape = (len(item.targets), len(item.kept), depths)
        self.similarity = np.full(shape, np.nan, dtype=np.float32)
        self.norm = np.full(shape, np.nan, dtype=np.float32)
        self.floor = np.full((len(item.targets), depths), np.nan, dtype=np.float32)
        self._kept: dict[tuple[int, int, int], Any] = {}
        self._row = {target: row for row, target in enumerate(item.targets)}
        self._column = {length: column for column, length in enumerate(item.kept)}

    def seeing(self, cells: list[tuple[int, int]], *, floor: bool = False) -> Any:
        """What takes the states of these cells."""
        targets = np.array([target for target, _ in cells])
        rows = np.array([self._row[target] for target, _ in cells])
        columns = np.array([self._column[length] for _, length in cells])

        def see(depth: int, which: np.ndarray, states: Any) -> None:
            states = states.float()
            centre = self.mean[depth]
            alike = centred_cosine(states, self.full[depth, targets[which]], centre=centre).cpu().numpy()
            if floor:
                self.floor[rows[which], depth] = alike
                return
            self.similarity[rows[which], columns[which], depth] = alike
            self.norm[rows[which], columns[which], depth] = norm(states).cpu().numpy()
            self._keep(depth, [cells[place] for place in which], states)

        return see

    def _keep(self, depth: int, cells: list[tuple[int, int]], states: Any) -> None:
        climbs, ladder = set(self.item.climbing), set(self.item.ladder)
        for place, (target, length) in enumerate(cells):
            if target in climbs and length in ladder:
                self._kept[target, length, depth] = states[place].clone()

    def arrivals(self) -> np.ndarray:
        """‖state with b tokens − state with a tokens‖ / ‖full state − mean‖ [target range depth].

        Ranges lie between neighbours of the ladder; the last one reaches from its end to the whole context.
        """
        item, depths = self.item, self.full.shape[0]
        found = np.full((len(item.targets), len(item.ladder), depths), np.nan, dtype=np.float32)
        for target in item.climbing:
            for place, shorter in enumerate(item.ladder):
                for depth in range(depths):
                    few = self._kept.get((target, shorter, depth))
                    full = self.full[depth, target]
                    more = full
                    if place + 1 < len(item.ladder) and item.ladder[place + 1] < target:
                        more = self._kept.get((target, item.ladder[place + 1], depth))
                    if few is not None and more is not None:
                        size = norm(full - self.mean[depth])
                        found[self._row[target], place, depth] = float(norm(more - few) / size)
        return found
