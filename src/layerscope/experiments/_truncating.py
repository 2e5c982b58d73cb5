"""What truncated_context measures: sums of states, and passages that are cut before their targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Earlier, Inputs, WorkItem
from layerscope.experiments._coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.experiments._distances import (
    donors,
    in_tokens,
    last_targets,
    longest_first,
    longest_passage,
    names_in,
    need_bos,
    unread,
)
from layerscope.experiments._truncated_measured import Measured
from layerscope.maths.similarity import centred_cosine, norm
from layerscope.maths.sinks import sink_tokens
from layerscope.results.schema import quantity
from layerscope.results.words import stored
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context import Settings
    from layerscope.models.layered import LayeredModel

_Cells = list[tuple[int, int]]
_BEFORE = 160  # characters kept before a target, for reading


class MeanItem(WorkItem):
    """One passage, to be read whole."""

    passage: TokenisedPassage


class CutItem(WorkItem):
    """One passage, to be cut before some of its tokens."""

    passage: TokenisedPassage
    donor: TokenisedPassage | None = Field(description="another passage, to stand in this one's place")
    targets: tuple[int, ...]
    climbing: tuple[int, ...] = Field(description="those of the targets that climb the ladder")
    kept: tuple[int, ...] = Field(description="all context lengths, in tokens")
    ladder: tuple[int, ...] = Field(description="those of them that are the ladder")
    names: tuple[str, ...] = Field(description="known names")
    tokens_per_pass: int


# -- the mean state ------------------------------------------------------------------------------------


def mean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[MeanItem]:
    """Every passage, once."""
    need_bos(inputs)
    if longest_passage(inputs) < 3:
        raise LayerscopeError(
            "no context is left to cut",
            found=f"the longest passage has {longest_passage(inputs)} tokens with BOS",
            expected="passages of at least two tokens behind BOS",
            hint="longer passages",
        )
    for passage in inputs.passages:
        yield MeanItem(name=passage.name, size=len(passage.tokens), passage=passage)


def sum_of_states(model: LayeredModel, item: MeanItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The sum of a passage's states at each depth, BOS left out."""
    states = runs.read_states(model, item.passage.tokens.ids)[:, 1:].double()
    return xr.Dataset(
        {
            "sum": quantity(states.sum(1).cpu().numpy(), "depth entry", "sum of states"),
            "count": quantity(np.int64(states.shape[1]), "", "number of states"),
        },
        coords={
            "depth": depth_coordinate(model.n_layers),
            "entry": number_coordinate(range(states.shape[-1]), "entry", "entry of the state"),
        },
    )


def added(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """The sums of two sets of passages."""
    sums = {
        name: folded[name].copy(data=folded[name].values + part[name].values) for name in ("sum", "count")
    }
    return folded.assign(sums)


# -- cut passages --------------------------------------------------------------------------------------


def cut_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CutItem]:
    """The longest passages, each with its targets and another passage beside it."""
    ladder = in_tokens(settings.ladder, longest_passage(inputs))
    kept = tuple(sorted({*range(1, settings.every + 1), settings.local, *ladder}))
    used = longest_first(inputs.passages, settings.cut_passages)
    names = tuple(settings.names or names_in(used, at_most=1000))
    for passage, donor in zip(used, donors(used), strict=True):
        targets = last_targets(passage, settings.targets)
        if not targets:
            continue
        climbing = targets[:: -settings.ladder_step][::-1]
        cells = _cells(targets, climbing, kept, settings)
        yield CutItem(
            name=passage.name,
            size=2.0 * len(passage.tokens)
            + sum(length + 1 for _, length in cells) / max(1, len(targets)) ** 0.5,
            passage=passage,
            donor=donor,
            targets=tuple(targets),
            climbing=tuple(climbing),
            kept=kept,
            ladder=ladder,
            names=tuple(name for name in names if name in passage.passage.text),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def _cells(
    targets: list[int] | tuple[int, ...],
    climbing: list[int] | tuple[int, ...],
    kept: tuple[int, ...],
    settings: Settings,
) -> list[tuple[int, int]]:
    """Targets and context lengths at which something is cut; the ladder for those that climb it."""
    climbs = set(climbing)
    return [
        (target, length)
        for target in targets
        for length in kept
        if length < target and (length <= settings.every or target in climbs)
    ]


def similarities(model: LayeredModel, item: CutItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Every target of one passage at every context length and depth."""
    positions = resolved(model, settings.positions)
    mean = mean_state(earlier)
    text = runs.full_run(model, item.passage.tokens.ids)
    measured = Measured(item, text.states.float(), mean.to(text.states.device))
    cells = _cells(item.targets, item.climbing, item.kept, settings)
    donor = _donor_run(model, item)
    if settings.instead == "nothing":
        seeing = measured.seeing(cells)
        runs.read_truncated(
            model, text, cells, seeing, positions=positions, tokens_per_pass=item.tokens_per_pass
        )
    if donor is not None:
        _swap(model, item, settings, measured, text, donor, cells)
    return _part(model, item, settings, measured, shifted=positions == "shifted")


def _swap(
    model: LayeredModel,
    item: CutItem,
    settings: Settings,
    measured: Measured,
    text: Any,
    donor: Any,
    cells: _Cells,
) -> None:
    """Read targets with the donor before them: alone, for the floor, and at all lengths where that is asked for."""
    exact = runs.swaps_exactly(model, text, donor)
    how: dict[str, Any] = {"tokens_per_pass": item.tokens_per_pass, "exact": exact}
    # All targets alone cost one pass; where texts are run whole, only those that climb the ladder are read.
    alone = [(target, 1) for target in (item.targets if exact else item.climbing) if target <= len(donor.ids)]
    if alone:
        runs.read_swapped(model, text, donor, alone, measured.seeing(alone, floor=True), **how)
    reachable = [(target, length) for target, length in cells if target - length + 1 <= len(donor.ids)]
    if settings.instead == "another text" and reachable:
        runs.read_swapped(model, text, donor, reachable, measured.seeing(reachable), **how)


def _donor_run(model: LayeredModel, item: CutItem) -> Any:
    if item.donor is None:
        return None
    return runs.full_run(model, item.donor.tokens.ids, keep=("k", "v") if runs.can_watch(model) else ())


def resolved(
    model: LayeredModel, positions: Literal["auto", "original", "shifted"]
) -> Literal["original", "shifted"]:
    """Original positions wherever the family takes position ids, unless something else is asked for."""
    if positions == "auto":
        return "original" if runs.takes_positions(model) else "shifted"
    runs.need_positions(model, positions)
    return positions


def mean_state(earlier: Earlier) -> Any:
    """The mean state of the first stage [depth width]."""
    import torch

    mean = earlier["mean"]
    return torch.from_numpy((mean["sum"] / mean["count"]).values).float()


def _part(
    model: LayeredModel, item: CutItem, settings: Settings, measured: Measured, *, shifted: bool
) -> xr.Dataset:
    targets = list(item.targets)
    norms = norm(measured.full).cpu().numpy()  # [depth token]
    sinks = sink_tokens(norms)[:, targets].any(axis=0)
    variables = {
        "similarity": quantity(
            measured.similarity,
            "token kept_tokens depth",
            "similarity with the whole context (centred cosine)",
        ),
        "cut_norm": quantity(measured.norm, "token kept_tokens depth", "norm of the cut state"),
        "full_norm": quantity(norms[:, targets].T, "token depth", "norm of the full state"),
        "text_norm": quantity(
            np.median(norms, axis=1)[None].repeat(len(targets), 0),
            "token depth",
            "median norm in the full text",
        ),
        "floor": quantity(measured.floor, "token depth", "similarity when only the token itself is the same"),
        "ceiling": quantity(
            _ceiling(model, item, settings, measured),
            "token depth",
            "similarity of the full run at moved positions",
        ),
        "arrival": quantity(
            measured.arrivals(), "token range depth", "change of the state, over the length of the full one"
        ),
        "shifted": quantity(np.full(len(targets), shifted), "token", "whether positions are counted anew"),
        "sink": quantity(sinks, "token", "whether the token acts as a sink in the full text, at any depth"),
        "window_unknown": quantity(
            np.full(len(targets), _window_unknown(model)), "token", "whether a window could not be watched"
        ),
    }
    return xr.Dataset(variables, coords=_coordinates(model, item, settings))


def _ceiling(model: LayeredModel, item: CutItem, settings: Settings, measured: Measured) -> np.ndarray:
    ids, context = item.passage.tokens.ids, model.facts.context
    by = settings.moved if context is None else min(settings.moved, context - len(ids))
    targets = list(item.targets)
    if by < 1 or not runs.takes_positions(model):
        return np.full((len(targets), measured.full.shape[0]), np.nan, dtype=np.float32)
    by = runs.prefixes_hold_to(model, len(ids) + by) - len(ids)
    if by < 1:
        return np.full((len(targets), measured.full.shape[0]), np.nan, dtype=np.float32)
    moved = runs.read_moved(model, ids, by).float()
    alike = centred_cosine(moved[:, targets], measured.full[:, targets], centre=measured.mean[:, None])
    return np.asarray(alike.cpu().numpy().T)


def _window_unknown(model: LayeredModel) -> bool:
    """Whether the family may have windowed layers whose mask cannot be watched."""
    config = model.module.config.get_text_config()
    windows = ("sliding_window", "attention_window_size", "window_size", "attention_chunk_size")
    return not runs.can_watch(model) and any(getattr(config, name, None) for name in windows)


def _coordinates(model: LayeredModel, item: CutItem, settings: Settings) -> dict[str, xr.Variable]:
    passage, targets = item.passage, list(item.targets)
    tokens, text = passage.tokens, passage.passage.text
    labels = label_tokens(
        tokens, text, categories=settings.categories, pronoun=settings.pronoun, entities=item.names
    )
    climbs = set(item.climbing)

    def flags(values: list[bool], what: str) -> xr.Variable:
        return xr.Variable(("token",), np.array(values, dtype=bool), {"long_name": what})

    def texts(values: list[str], what: str) -> xr.Variable:
        return text_coordinate(values, "token", what)

    ends = [*item.ladder[1:], None]
    ranges = [f"{a} to {'all' if b is None else b} tokens" for a, b in zip(item.ladder, ends, strict=True)]
    before = [text[max(0, tokens.spans[t][0] - _BEFORE) : tokens.spans[t][0]] for t in targets]
    return {
        "token_passage": texts([passage.name] * len(targets), "passage of the token"),
        "token_genre": texts([passage.passage.genre] * len(targets), "genre of the passage"),
        "position": number_coordinate(targets, "token", "position in the passage"),
        "token_unread": unread(passage, len(targets)),
        "token_text": texts([tokens.texts[t] for t in targets], "token, as JSON text"),
        "token_before": texts(before, "text before the token, as JSON text"),
        "token_category": texts([labels.category[t] for t in targets], "category of the token"),
        "token_piece": texts([labels.piece[t] for t in targets], "piece of a word"),
        "pronoun": flags([labels.pronoun[t] for t in targets], "whether it is a pronoun"),
        "entity_final": flags([labels.entity_final[t] for t in targets], "whether it ends a known name"),
        "climbs": flags([t in climbs for t in targets], "whether the token climbs the ladder"),
        "kept_tokens": number_coordinate(item.kept, "kept_tokens", "tokens of context kept, itself included"),
        "range": xr.Variable(("range",), np.array([stored(r) for r in ranges]), {"long_name": "distances"}),
        "depth": depth_coordinate(model.n_layers),
    }
