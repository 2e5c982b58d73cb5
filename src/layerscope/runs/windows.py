"""Truncated contexts: what a state is when only BOS and the last k tokens stand before it.

One run over BOS and n tokens gives, by causality, a truncated state at every one of them: its j-th
token has seen exactly j tokens, itself included. So for contiguous targets one run from each start
gives every context length at once, at little more than the price of the longest alone; isolated
targets take one run for each length. Rows of a batch are equally long: a row that needs fewer tokens is
run on, to the right, where nothing can reach back.

Position ids are the original ones (the text keeps its places, and a gap follows BOS) or shifted ones
(0, 1, 2, ...); an explicit mask of ones goes with them always, see `LayeredModel.logits`. In layers whose
mask is not plainly causal, rows and columns of the model's own mask over the whole text are taken, so
that a token sees BOS, and everything else, only where it did in the full run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.arguments import is_mask, leaves
from layerscope.models.attention import AttentionCall, attend, replaced, seen_keys
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import need_prefixes as need_prefixes
from layerscope.models.lengths import prefixes_hold_to as prefixes_hold_to
from layerscope.models.sites import THROUGH_ATTENTION
from layerscope.runs.recordings import BaseRun, Recording, record

Positions = Literal["original", "shifted"]
Cell = tuple[int, int]
"""A target's position in the text, and how many tokens are kept, itself counted and BOS not."""
See = Callable[[int, np.ndarray, Tensor], None]
"""Told the depth, which of the wanted cells these are, and their states [cell width]."""
Masks = Mapping[int, Tensor]
"""Per block whose mask is not plainly causal: what is added to its scores over a whole text [1 head token token]."""

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


@dataclass(frozen=True)
class FullRun:
    """A whole text, read once.

    Attributes:
        ids: its tokens, BOS first.
        states: the residual stream [depth token width].
        masks: of the blocks whose mask is not plainly causal.
        own: blocks that make their masks anew in each run, from what they read.
        recording: everything else that was kept.
    """

    ids: tuple[int, ...]
    states: Float[Tensor, "depth token width"]
    masks: Masks
    own: tuple[int, ...]
    recording: Recording


def full_run(model: LayeredModel, ids: Sequence[int], *, keep: Sequence[str] = ()) -> FullRun:
    """Read a whole text, and the masks of windowed layers where attention can be watched.

    Args:
        model: the model.
        ids: the text, BOS first.
        keep: what else to keep, see `recordings.record`.

    Raises:
        LayerscopeError: a text of this length is read in another way than its beginning alone; layers make their
            own masks out of one that is not plainly causal.
    """
    need_prefixes(model, len(ids))
    inside = ("calls",) if can_watch(model) else ()
    recording = record(model, BaseRun.of(ids), keep=[*keep, *inside])
    states = torch.stack([states[0] for states in recording.states])
    masks = {
        layer: mask for layer, mask in recording.masks.items() if mask is not None and not _is_plain(mask)
    }
    own = tuple(layer for layer in masks if _makes_its_own(model, recording, layer))
    masks = {layer: mask for layer, mask in masks.items() if layer not in own}
    return FullRun(tuple(ids), states, masks, own, recording)


def _makes_its_own(model: LayeredModel, recording: Recording, layer: int) -> bool:
    """Whether a block's mask is none that it is given, so that it holds for this run only."""
    mask, tokens = recording.masks[layer], recording.run.tokens
    assert mask is not None
    given = [
        value
        for _, value in leaves(recording.calls[layer])
        if isinstance(value, Tensor) and value.dim() == 4 and value.shape[-2] == tokens <= value.shape[-1]
    ]
    if any(is_mask(value, mask) for value in given):
        return False
    if all(_is_plain(value[..., :tokens]) for value in given):
        return True
    raise LayerscopeError(
        f"contexts of {model.facts.name} cannot be truncated",
        found=f"layer {layer} makes its own attention mask out of one that is not plainly causal",
        expected="a mask that does not depend on what is read",
        hint="layerscope run hidden_states, or another experiment that reads whole texts",
    )


def can_watch(model: LayeredModel) -> bool:
    """Whether this family's attention goes through our attention function."""
    return not set(THROUGH_ATTENTION) & set(model.refused)


def takes_positions(model: LayeredModel) -> bool:
    """Whether the model uses position ids; BLOOM and MPT do not, and ignore them without a word."""
    return model.takes_positions


def _is_plain(mask: Float[Tensor, "row head token key"]) -> bool:
    """Whether every token sees all before it alike: nothing is added to their scores."""
    causal = torch.ones_like(mask, dtype=torch.bool).tril()
    return bool(torch.equal(seen_keys(mask), causal) and not mask.masked_fill(~causal, 0).any())


@torch.no_grad()
def read_truncated(
    model: LayeredModel,
    text: FullRun,
    wanted: Sequence[Cell],
    see: See,
    *,
    positions: Positions = "original",
    tokens_per_pass: int = 2048,
) -> None:
    """Show the truncated state of every wanted cell, at every depth.

    Nothing is kept: states of one depth and one batch at a time are shown, and each cell once per depth.

    Args:
        model: the model.
        text: the whole text.
        wanted: targets and how much of their context is kept.
        see: takes the states.
        positions: see the module; the original ones need a family that takes position ids.
        tokens_per_pass: bound on rows times tokens of one forward pass.

    Raises:
        LayerscopeError: a cell outside of the text, or positions that the family does not take.
    """
    need_positions(model, positions)
    context = model.facts.context
    for batch in passes(
        text.ids, wanted, positions=positions, tokens_per_pass=tokens_per_pass, context=context
    ):
        with showing(model, batch, see), masked(model, text.masks, batch):
            run_pass(model, batch)


def run_pass(model: LayeredModel, batch: WindowPass) -> None:
    """One forward pass over the rows of a batch, under whatever hooks are in place."""
    model.logits(batch.ids, positions=batch.positions if takes_positions(model) else None, last=True)


def need_positions(model: LayeredModel, positions: Positions) -> None:
    """Refuse original position ids on a family that takes none."""
    if positions == "original" and not takes_positions(model):
        raise LayerscopeError(
            f"{model.facts.name} takes no position ids",
            found=f"positions original; {model.facts.architecture} counts them itself",
            expected="shifted positions",
            hint="--set positions=shifted",
        )


@contextmanager
def showing(model: LayeredModel, batch: WindowPass, see: See) -> Iterator[None]:
    """Show the states of a batch's cells at every depth while a forward pass runs."""
    rows, columns = torch.from_numpy(batch.rows), torch.from_numpy(batch.columns)

    def keep(stream: Tensor, depth: int) -> None:
        see(depth, batch.cells, stream.detach()[rows.to(stream.device), columns.to(stream.device)])

    with at_depth(model, {depth: partial(keep, depth=depth) for depth in range(model.n_layers + 1)}):
        yield


@contextmanager
def masked(model: LayeredModel, masks: Masks, batch: WindowPass) -> Iterator[None]:
    """Let windowed layers see, in every row, what they saw in the full run, and nothing else."""
    modules: dict[nn.Module, Callable[[AttentionCall], Tensor]] = {}
    for layer, mask in masks.items():
        module = model.attention_modules[layer]
        assert module is not None
        modules[module] = partial(_masked_heads, mask=mask_of_pass(mask, batch))
    with ExitStack() as stack:
        if modules:
            stack.enter_context(replaced(model.module, modules))
        yield


def _masked_heads(call: AttentionCall, mask: Tensor) -> Tensor:
    return attend(replace(call, mask=mask.to(call.q.device))).head_out


def mask_of_pass(
    mask: Float[Tensor, "1 head token token"], batch: WindowPass
) -> Float[Tensor, "row head place place"]:
    """The model's own mask over the whole text, as far as the tokens of each row go."""
    index = batch.index.clamp(max=mask.shape[-1] - 1).to(mask.device)
    taken = mask[0][:, index[:, :, None], index[:, None, :]].transpose(0, 1)
    # Rows that are run on past the end of the text repeat its last place, which nothing may see.
    later = torch.ones_like(taken[0, 0], dtype=torch.bool).triu(1)
    return taken.masked_fill(later, torch.finfo(taken.dtype).min)


@torch.no_grad()
def read_moved(model: LayeredModel, ids: Sequence[int], by: int) -> Float[Tensor, "depth token width"]:
    """States of a whole text whose tokens behind BOS stand `by` positions further on."""
    need_positions(model, "original")
    need_prefixes(model, len(ids) + by)
    states: dict[int, Tensor] = {}

    def keep(stream: Tensor, depth: int) -> None:
        states[depth] = stream[0].detach().clone()

    positions = torch.arange(len(ids)) + by
    positions[0] = 0
    with at_depth(model, {depth: partial(keep, depth=depth) for depth in range(model.n_layers + 1)}):
        model.logits(torch.tensor([list(ids)]), positions=positions[None], last=True)
    return torch.stack([states[depth] for depth in range(model.n_layers + 1)])
