"""Single states, outputs and heads exchanged, for one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    layer_coordinate,
    number_coordinate,
    prompt_coordinates,
    text_coordinate,
)
from layerscope.experiments.causal_trace.items import TraceItem, depths_that_matter
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.measure.runs import prompt_runs
from layerscope.experiments.causal_trace.measure.values import (
    base_values,
    depths_of,
    kept,
    of_kinds,
    tokens_of,
)
from layerscope.experiments.causal_trace.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

OUTPUTS: tuple[Literal["attn_out", "mlp_out"], ...] = ("attn_out", "mlp_out")


def trace(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One state exchanged, at every position and depth."""
    cells = [
        (row, depth)
        for row, position in enumerate(item.positions)
        for depth in depths_that_matter(item, position, settings, model.n_layers)
    ]
    values = np.tile(base_values(item, settings, earlier), (len(item.positions), model.n_layers + 1, 1, 1))
    if cells:
        run = prompt_runs(model, item, settings, earlier["clean"])
        rows, depths = np.array(cells).T
        values[rows, depths] = run.values(
            [(runs.Put("state", (depth,), (item.positions[row],)),) for row, depth in cells]
        )
    return kept(
        of_kinds(values, "restored", "token depth sample", "with one state patched"),
        settings,
        tokens_of(item, item.positions, settings) | depths_of(model),
    )


def outputs(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What attention or MLPs add over a window of layers, exchanged at one token."""
    n_layers, shape = model.n_layers, (len(OUTPUTS), len(item.positions), model.n_layers)
    cells = list(np.ndindex(*shape))
    edits = [
        (runs.Put(OUTPUTS[site], settings.blocks_round(layer, n_layers), (item.positions[row],)),)
        for site, row, layer in cells
    ]
    values = _values_or_nothing(model, item, settings, earlier, edits, OUTPUTS).reshape(*shape, -1, 2)
    coords = tokens_of(item, item.positions, settings)
    return kept(
        of_kinds(values, "output", "site output_token layer sample", "with outputs over a window patched"),
        settings,
        _renamed(coords, "output_token")
        | {
            "layer": layer_coordinate(n_layers),
            "site": text_coordinate(OUTPUTS, "site", "what is patched"),
        },
    )


def _renamed(coords: dict[str, xr.Variable], dimension: str) -> dict[str, xr.Variable]:
    """Token coordinates of a stage that holds other tokens than the trace."""
    names = {
        "token_prompt": f"{dimension}_prompt",
        "token_text": f"{dimension}_text",
        "token_class": f"{dimension}_class",
    }
    return {
        names.get(name, f"{dimension}_{name}"): xr.Variable((dimension,), variable.values, variable.attrs)
        for name, variable in coords.items()
    }


def _values_or_nothing(
    model: LayeredModel,
    item: TraceItem,
    settings: Settings,
    earlier: Earlier,
    edits: list[tuple[Any, ...]],
    needs: Sequence[str],
) -> np.ndarray:
    """What patched runs read; NaN on models that have no such vectors, by the load check."""
    if any(site in model.refused for site in needs):
        return np.full((len(edits), item.slots, 2), np.nan, dtype=np.float32)
    return prompt_runs(model, item, settings, earlier["clean"]).values(edits)


def severed(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """A state exchanged while this token's MLPs, or attention, stay what they were in the run it enters."""
    n_layers = model.n_layers
    shape = (len(OUTPUTS), len(item.positions), n_layers)
    edits = []
    for site, row, depth in np.ndindex(*shape):
        token = (item.positions[row],)
        frozen = runs.Put(OUTPUTS[site], tuple(range(depth, n_layers)), token, "base")
        edits.append((runs.Put("state", (depth,), token), frozen))
    values = _values_or_nothing(model, item, settings, earlier, edits, OUTPUTS).reshape(*shape, -1, 2)
    coords = _renamed(tokens_of(item, item.positions, settings), "severed_token")
    return kept(
        of_kinds(
            values, "severed", "site severed_token layer sample", "with one state patched, others severed"
        ),
        settings,
        coords
        | {"layer": layer_coordinate(n_layers), "site": text_coordinate(OUTPUTS, "site", "what is severed")},
    )


def heads(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Single heads exchanged at one token."""
    n_heads = model.facts.n_heads or 1
    shape = (len(item.positions), model.n_layers, n_heads)
    edits = [
        (runs.Put("head_out", (layer,), (item.positions[row],), heads=(head,)),)
        for row, layer, head in np.ndindex(*shape)
    ]
    values = _values_or_nothing(model, item, settings, earlier, edits, ("head_out",)).reshape(*shape, -1, 2)
    coords = _renamed(tokens_of(item, item.positions, settings), "head_token")
    return kept(
        of_kinds(values, "head", "head_token layer head sample", "with one head patched"),
        settings,
        coords
        | {
            "layer": layer_coordinate(model.n_layers),
            "head": number_coordinate(range(n_heads), "head", "head"),
        },
    )


def one_by_one(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One token of the subject corrupted alone; its own state, the subject's last and the prompt's exchanged."""
    last_of_subject = noised_positions(item.prompt, settings)[-1]
    rows, losses = [], []
    for position in item.positions:
        run = prompt_runs(model, item, settings, earlier["clean"], only=position)
        places = (position, last_of_subject, item.prompt.last)
        edits = [
            (runs.Put("state", (depth,), (place,)),)
            for place in places
            for depth in range(model.n_layers + 1)
        ]
        rows.append(run.values(edits).reshape(3, model.n_layers + 1, -1, 2))
        losses.append(run.corrupted_values())
    coords = _renamed(tokens_of(item, item.positions, settings), "subject_token")
    places_coordinate = text_coordinate(
        ("the token itself", "the subject's last token", "the last token"), "place", "token that is patched"
    )
    return kept(
        of_kinds(
            np.stack(rows),
            "alone",
            "subject_token place depth sample",
            "with one token corrupted, one restored",
        )
        | of_kinds(np.stack(losses), "alone_noised", "subject_token sample", "with one token corrupted"),
        settings,
        coords | depths_of(model) | {"place": places_coordinate},
    )


def doses(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The corrupted and the last tokens at several sizes of the noise."""
    rows, losses = [], []
    depths = range(model.n_layers + 1)
    for dose in settings.doses:
        run = prompt_runs(model, item, settings, earlier["clean"], dose=dose)
        edits = [
            (runs.Put("state", (depth,), places),)
            for places in (run.noised, (item.prompt.last,))
            for depth in depths
        ]
        rows.append(run.values(edits).reshape(2, len(depths), -1, 2))
        losses.append(run.corrupted_values())
    coords = prompt_coordinates(item.prompt) | depths_of(model)
    dose_coordinate = xr.Variable(
        ("dose",), np.array(settings.doses, dtype=np.float64), {"long_name": "factor on the noise"}
    )
    dose_rows = text_coordinate(("noised tokens", "last token"), "dose_row", "row of the trace")
    return kept(
        of_kinds(np.stack(rows)[None], "dose", "prompt dose dose_row depth sample", "at another noise level")
        | of_kinds(
            np.stack(losses)[None],
            "dose_noised",
            "prompt dose sample",
            "under corruption at another noise level",
        ),
        settings,
        coords | {"dose": dose_coordinate, "dose_row": dose_rows},
    )
