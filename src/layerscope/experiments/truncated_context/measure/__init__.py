"""What truncated_context measures of one passage: its targets with every context that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import depth_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.evidence.distances import unread
from layerscope.evidence.mean_states import mean_state
from layerscope.evidence.positions import resolved
from layerscope.experiments.truncated_context.items import CutItem, cells_of
from layerscope.experiments.truncated_context.measure.measured import Measured
from layerscope.experiments.truncated_context.settings import Settings
from layerscope.maths.similarity import centred_cosine, norm
from layerscope.maths.sinks import sink_tokens
from layerscope.text.categories import label_tokens

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_BEFORE = 160  # characters kept before a target, for reading


def similarities(model: LayeredModel, item: CutItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Every target of one passage at every context length and depth."""
    positions = resolved(model, settings.positions)
    mean = mean_state(earlier)
    text = runs.full_run(model, item.passage.tokens.ids)
    measured = Measured(item, text.states.float(), mean.to(text.states.device))
    cells = cells_of(item.targets, item.climbing, item.kept, settings)
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
    cells: list[tuple[int, int]],
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


def _part(
    model: LayeredModel, item: CutItem, settings: Settings, measured: Measured, *, shifted: bool
) -> xr.Dataset:
    targets = list(item.targets)
    norms = norm(measured.full).cpu().numpy()  # [depth token]
    sinks = sink_tokens(norms)[:, targets].any(axis=0)
    each, cells = ("token", "depth"), ("token", "kept_tokens", "depth")
    middle = np.median(norms, axis=1)[None].repeat(len(targets), 0)
    ceiling, unknown = _ceiling(model, item, settings, measured), _window_unknown(model)
    arrays = (
        named(
            measured.similarity,
            "similarity",
            "similarity with the whole context (centred cosine)",
            dims=cells,
        ),
        named(measured.norm, "cut_norm", "norm of the cut state", dims=cells),
        named(norms[:, targets].T, "full_norm", "norm of the full state", dims=each),
        named(middle, "text_norm", "median norm in the full text", dims=each),
        named(measured.floor, "floor", "similarity when only the token itself is the same", dims=each),
        named(ceiling, "ceiling", "similarity of the full run at moved positions", dims=each),
        named(
            measured.arrivals(),
            "arrival",
            "change of the state, over the length of the full one",
            dims=("token", "range", "depth"),
        ),
        *(
            named(np.broadcast_to(values, len(targets)), name, f"whether {what}", dims=("token",))
            for name, values, what in (
                ("shifted", shifted, "positions are counted anew"),
                ("sink", sinks, "the token acts as a sink in the full text, at any depth"),
                ("window_unknown", unknown, "a window could not be watched"),
            )
        ),
    )
    return samples(*arrays, **_coordinates(model, item, settings))


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
        "range": text_coordinate(ranges, "range", "distances"),
        "depth": depth_coordinate(model.n_layers),
    }
