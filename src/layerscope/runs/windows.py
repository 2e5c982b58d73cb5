"""Truncated contexts: what a state is when only BOS and the last k tokens stand before it.

Which passes are run is said in `window_passes.py`.

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

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.arguments import is_mask, leaves
from layerscope.models.attention import AttentionCall, attend, replaced, seen_keys
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import need_prefixes
from layerscope.models.sites import THROUGH_ATTENTION
from layerscope.runs.recordings import BaseRun, Recording, record
from layerscope.runs.window_passes import Cell, Positions, WindowPass, passes

See = Callable[[int, np.ndarray, Tensor], None]
"""Told the depth, which of the wanted cells these are, and their states [cell width]."""
Masks = Mapping[int, Tensor]
"""Per block whose mask is not plainly causal: what is added to its scores over a whole text [1 head token token]."""


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
