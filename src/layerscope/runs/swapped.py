"""Swapped contexts: what a state is when another text stands before its last k tokens.

Length and positions stay as they are, BOS too. A window over the last tokens reads the keys and values of the
other text's own run, so that, as in `windows`, one row of n tokens gives n context lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.attention import AttentionCall, attend, replaced
from layerscope.models.layered import LayeredModel
from layerscope.models.rounding import close
from layerscope.runs.reading import read_states
from layerscope.runs.window_passes import Cell, WindowPass, check_cells, passes, windows_for
from layerscope.runs.windows import (
    FullRun,
    See,
    can_watch,
    full_run,
    mask_of_pass,
    run_pass,
    showing,
    takes_positions,
)

_PROBE = 10
"""Tokens on which it is tried first whether a donor's keys and values give the spliced text's states."""


@torch.no_grad()
def read_swapped(
    model: LayeredModel,
    text: FullRun,
    donor: FullRun,
    wanted: Sequence[Cell],
    see: See,
    *,
    tokens_per_pass: int = 2048,
    exact: bool | None = None,
) -> None:
    """Show the state of every wanted cell when another text stands before the kept tokens.

    Lengths and positions stay as they are, BOS too; only the words before the window are another text's.
    A window reads the keys and values of the donor's own run, so that one row of n tokens gives n context
    lengths. Where that is not exact (attention that cannot be reached, states that are handed on by
    recurrence), the spliced texts are run whole, one by one.

    Args:
        model: the model.
        text: the whole text.
        donor: another text, read by `full_run` with `keep=("k", "v")`; at least as long as the farthest
            target's window begins.
        wanted: targets and how many of their own tokens are kept.
        see: takes the states.
        tokens_per_pass: bound on rows times tokens of one forward pass.
        exact: what `swaps_exactly` says, where it was asked before.

    Raises:
        LayerscopeError: the donor is too short, or a cell lies outside of the text.
    """
    check_cells(text.ids, wanted)
    first = max(target - kept + 1 for target, kept in wanted)
    if first > len(donor.ids):
        raise LayerscopeError(
            "the donor is too short",
            found=f"{len(donor.ids)} tokens",
            expected=f"at least {first}, to stand before the last window",
            hint="a longer donor, or earlier targets",
        )
    if not (swaps_exactly(model, text, donor) if exact is None else exact):
        return _swapped_whole(model, text, donor, wanted, see)
    context = model.facts.context
    for batch in passes(
        text.ids, wanted, positions="original", tokens_per_pass=tokens_per_pass, context=context, bos=False
    ):
        with showing(model, batch, see), _reading_donor(model, text, donor, batch):
            run_pass(model, batch)
    return None


@contextmanager
def _reading_donor(model: LayeredModel, text: FullRun, donor: FullRun, batch: WindowPass) -> Iterator[None]:
    before = max(window.start for window in batch.windows)
    plain = torch.full((1, 1, len(text.ids), len(text.ids)), torch.finfo(text.states.dtype).min).triu(1)
    modules: dict[nn.Module, Callable[[AttentionCall], Tensor]] = {}
    for layer, module in enumerate(model.attention_modules):
        assert module is not None
        keys, values = (donor.recording.inside[site][layer][:, :, :before] for site in ("k", "v"))
        mask = _mask_with_donor(text.masks.get(layer, plain), batch, before)
        modules[module] = partial(_heads_with_donor, keys=keys, values=values, mask=mask)
    with replaced(model.module, modules):
        yield


def _heads_with_donor(call: AttentionCall, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    rows = call.k.shape[0]
    k, v = (
        torch.cat([theirs.expand(rows, -1, -1, -1).to(ours), ours], dim=2)
        for theirs, ours in ((keys, call.k), (values, call.v))
    )
    return attend(replace(call, k=k, v=v, mask=mask.to(call.q))).head_out


def _mask_with_donor(mask: Tensor, batch: WindowPass, before: int) -> Tensor:
    """The model's own mask: over the donor's tokens before each window, then over the window itself."""
    index = batch.index.clamp(max=mask.shape[-1] - 1).to(mask.device)
    theirs = mask[0][:, index, :before].transpose(0, 1)
    starts = torch.tensor([window.start for window in batch.windows], device=mask.device)
    beyond = torch.arange(before, device=mask.device) >= starts[:, None, None, None]
    theirs = theirs.masked_fill(beyond, torch.finfo(mask.dtype).min)
    return torch.cat([theirs, mask_of_pass(mask, batch)], dim=-1)


def _swapped_whole(
    model: LayeredModel, text: FullRun, donor: FullRun, wanted: Sequence[Cell], see: See
) -> None:
    place = {cell: number for number, cell in enumerate(wanted)}
    for window in windows_for(wanted):
        last = window.start + window.length
        found = [
            (place[cell], cell[0])
            for kept in range(1, window.length + 1)
            if (cell := (window.start + kept - 1, kept)) in place
        ]
        cells, targets = (np.array(numbers, dtype=np.int64) for numbers in zip(*found, strict=True))
        states = read_states(model, [*donor.ids[: window.start], *text.ids[window.start : last]])
        for depth, stream in enumerate(states):
            see(depth, cells, stream[torch.from_numpy(targets).to(stream.device)])


def swaps_exactly(model: LayeredModel, text: FullRun, donor: FullRun) -> bool:
    """Whether reading a donor's keys and values gives the spliced text's own states, tried on a few tokens and all."""
    if not (can_watch(model) and takes_positions(model) and all(model.attention_modules)):
        return False
    if text.own or not {"k", "v"} <= set(donor.recording.inside):
        return False
    longest = min(len(text.ids), len(donor.ids))
    return all(_swaps_at(model, text, donor, few) for few in sorted({min(_PROBE, longest), longest}))


def _swaps_at(model: LayeredModel, text: FullRun, donor: FullRun, few: int) -> bool:
    """Whether it does for the last token of so many, half of them the donor's."""
    start = few // 2
    if start < 1 or start >= few:
        return True  # a single token: nothing to splice
    short = text if few == len(text.ids) else full_run(model, text.ids[:few])
    theirs = donor if few == len(donor.ids) else full_run(model, donor.ids[:few], keep=("k", "v"))
    spliced = read_states(model, [*donor.ids[:start], *text.ids[start:few]])[:, few - 1].float()
    batch = next(
        passes(short.ids, [(few - 1, few - start)], positions="original", tokens_per_pass=few, bos=False)
    )
    read: dict[int, Tensor] = {}

    def keep(depth: int, _: np.ndarray, states: Tensor) -> None:
        read[depth] = states[0].float()

    with showing(model, batch, keep), _reading_donor(model, short, theirs, batch):
        run_pass(model, batch)
    found = torch.stack([read[depth] for depth in range(model.n_layers + 1)])
    return close(found, spliced.to(found.device))
