"""Which forward passes give the truncated contexts that are wanted? The fewest runs, in batches of rows of like length.

One run over BOS and n tokens gives, by causality, a truncated state at every one of them: its j-th token has seen
exactly j tokens, itself included. So for contiguous targets one run from each start gives every context length at
once, at little more than the price of the longest alone; isolated targets take one run for each length. Rows of a
batch are equally long: a row that needs fewer tokens is run on, to the right, where nothing can reach back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from layerscope.errors import LayerscopeError

Positions = Literal["original", "shifted"]
Cell = tuple[int, int]
"""A target's position in the text, and how many tokens are kept, itself counted and BOS not."""

_SHORTEST_SHARE, _SLACK = 0.75, 4  # of a pass's longest row, below which a row waits for a shorter pass


@dataclass(frozen=True)
class Window:
    """BOS and `length` tokens of a text, the first of them at position `start`."""

    start: int
    length: int


@dataclass(frozen=True)
class WindowPass:
    """Windows that run as the rows of one batch.

    Attributes:
        windows: one for each row, the longest first.
        index: place in the text of every token of every row [row token]; beyond its end where a row runs on.
        ids: token ids [row token].
        positions: position ids [row token].
        cells: which of the wanted cells the pass gives.
        rows, columns: where each of these cells stands in the batch.
    """

    windows: tuple[Window, ...]
    index: Int[Tensor, "row token"]
    ids: Int[Tensor, "row token"]
    positions: Int[Tensor, "row token"]
    cells: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def every_length(targets: Sequence[int], longest: int) -> list[Cell]:
    """Every context length from 1 to `longest` for each target, as far as its text reaches back."""
    return [(target, kept) for target in targets for kept in range(1, min(longest, target) + 1)]


def windows_for(wanted: Sequence[Cell]) -> tuple[Window, ...]:
    """The fewest runs that give all wanted cells, the longest first."""
    lengths: dict[int, int] = {}
    for target, kept in wanted:
        start = target - kept + 1
        lengths[start] = max(lengths.get(start, 0), kept)
    return tuple(
        Window(start, n) for start, n in sorted(lengths.items(), key=lambda entry: (-entry[1], entry[0]))
    )


def passes(
    ids: Sequence[int],
    wanted: Sequence[Cell],
    *,
    positions: Positions,
    tokens_per_pass: int,
    context: int | None = None,
    bos: bool = True,
) -> Iterator[WindowPass]:
    """The batches in which the wanted cells are read.

    Args:
        ids: the whole text, BOS first.
        wanted: cells with targets of 1 .. len(ids) - 1, and at most as many kept tokens.
        positions: position ids as in the whole text, or counted from BOS.
        tokens_per_pass: bound on rows times tokens of one batch.
        context: the model's, beyond which there are no positions.
        bos: whether every row begins with BOS; without it rows hold their window alone.
    """
    check_cells(ids, wanted)
    place = {cell: number for number, cell in enumerate(wanted)}
    for windows in _batches(windows_for(wanted), tokens_per_pass):
        longest = windows[0].length
        starts = torch.tensor([window.start for window in windows])
        index = starts[:, None] + torch.arange(longest)
        if bos:
            index = torch.cat([torch.zeros(len(windows), 1, dtype=torch.long), index], dim=1)
        found = [
            (place[cell], row, kept - 1 + bos)
            for row, window in enumerate(windows)
            for kept in range(1, window.length + 1)
            if (cell := (window.start + kept - 1, kept)) in place
        ]
        cells, rows, columns = (np.array(numbers, dtype=np.int64) for numbers in zip(*found, strict=True))
        yield WindowPass(
            windows=windows,
            index=index,
            ids=torch.tensor(ids)[index.clamp(max=len(ids) - 1)],
            positions=_position_ids(index, positions, (context or len(ids)) - 1),
            cells=cells,
            rows=rows,
            columns=columns,
        )


def _position_ids(index: Tensor, positions: Positions, last: int) -> Tensor:
    if positions == "shifted":
        return torch.arange(index.shape[1]).expand(index.shape)
    return index.clamp(max=last)


def check_cells(ids: Sequence[int], wanted: Sequence[Cell]) -> None:
    """Refuse cells outside of the text.

    Raises:
        LayerscopeError: with the first of them.
    """
    for target, kept in wanted:
        if not 1 <= kept <= target < len(ids):
            raise LayerscopeError(
                "no such truncated context",
                found=f"the last {kept} tokens up to position {target} of {len(ids)} tokens with BOS",
                expected="a target behind BOS, and at least one and at most all of its tokens",
                hint="fewer kept tokens, or later targets",
            )


def _batches(windows: Sequence[Window], tokens_per_pass: int) -> Iterator[tuple[Window, ...]]:
    batch: list[Window] = []
    for window in windows:
        full = batch and (len(batch) + 1) * (batch[0].length + 1) > tokens_per_pass
        if full or (batch and window.length < _SHORTEST_SHARE * batch[0].length - _SLACK):
            yield tuple(batch)
            batch = []
        batch.append(window)
    if batch:
        yield tuple(batch)
