"""A causal trace's screen: gradients estimate every exchange of a prompt, exact runs confirm the strongest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import number_coordinate, text_coordinate
from layerscope.experiments.causal_trace.items import depths_that_matter, rows_of
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.measure.runs import PromptRuns, prompt_runs
from layerscope.experiments.causal_trace.measure.tokens import token_class
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

IN_HEADS = ("head_out", "q", "k")
KINDS = {
    "state": "states",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "head_out": "heads",
    "q": "queries",
    "k": "keys",
}
"""What is screened, as sentences name it."""


class Cell(NamedTuple):
    """One exchange: a site of one block (of one depth, for states) at one token, of one head or of all."""

    site: str
    layer: int
    position: int
    head: int | None = None


def cells_of(model: LayeredModel, item: NoisedItem, settings: Settings) -> list[Cell]:
    """Every exchange that can change anything: heads at the noised and last tokens, the rest at all."""
    cells: list[Cell] = []
    for site in runs.attributable(model):
        if site == "state":
            for position in range(item.prompt.n_tokens):
                depths = depths_that_matter(item, position, settings, model.n_layers)
                cells += [Cell(site, depth, position) for depth in depths]
        elif site in KINDS:
            cells += _cells_in_blocks(model, item, settings, site)
    return cells


def _cells_in_blocks(model: LayeredModel, item: NoisedItem, settings: Settings, site: str) -> Iterator[Cell]:
    facts, last = model.facts, item.prompt.last
    noised = noised_positions(item.prompt, settings)
    positions = sorted(set(rows_of(item, settings))) if site in IN_HEADS else range(noised[0], last + 1)
    n_heads = (facts.n_kv_heads or facts.n_heads or 1) if site == "k" else (facts.n_heads or 1)
    heads: Sequence[int | None] = range(n_heads) if site in IN_HEADS else (None,)
    for layer in range(model.n_layers):
        # In the last block only keys and values of other tokens reach what is read.
        reached = positions if layer < model.n_layers - 1 or site == "k" else [last]
        yield from (Cell(site, layer, position, head) for position in reached for head in heads)


def screen(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Estimates of every exchange, for every draw; exact effects of the strongest of each kind."""
    run = prompt_runs(model, item, settings, earlier["clean"])
    cells = cells_of(model, item, settings)
    sites = tuple(dict.fromkeys(cell.site for cell in cells))
    drop = {"attn_out", "mlp_out"} <= set(sites)
    found = run.estimates(sites, drop=drop)
    columns = {
        name: _column(getattr(found, name), cells, item.slots) for name in ("plain", "recomputed", "dropped")
    }
    exact = np.full_like(columns["plain"], np.nan)
    chosen = _chosen(cells, best_scores(columns), settings)
    exact[chosen] = _exact_effects(run, [cells[index] for index in chosen])
    return _dataset(item, cells, columns | {"exact": exact})


def _column(estimates: dict[str, Any], cells: Sequence[Cell], slots: int) -> np.ndarray:
    """Estimates of the cells [cell sample]; NaN where a kind has none."""
    arrays = {site: tensor.numpy() for site, tensor in estimates.items()}
    values = np.full((len(cells), slots), np.nan, dtype=np.float32)
    for index, cell in enumerate(cells):
        if cell.site in arrays:
            place = (cell.layer, cell.position, *(() if cell.head is None else (cell.head,)))
            of_rows = arrays[cell.site][(slice(None), *place)]
            values[index, : len(of_rows)] = of_rows
    return values


def best_scores(columns: dict[str, np.ndarray]) -> np.ndarray:
    """How strong the screen takes each cell to be [cell]: with every fix that there is for it.

    Draws are averaged first. GradDrop's estimates are absolute already, so theirs are averaged as such.
    """
    mean = {name: np.abs(over_draws(values)) for name, values in columns.items()}
    fixed = np.where(np.isnan(mean["recomputed"]), mean["plain"], mean["recomputed"])
    return np.where(np.isnan(mean["dropped"]), fixed, mean["dropped"])


def over_draws(values: np.ndarray) -> np.ndarray:
    """Mean over draws; a replaced subject may have fewer partners than draws were asked for."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _chosen(cells: Sequence[Cell], scores: np.ndarray, settings: Settings) -> np.ndarray:
    """Indices of the strongest cells of each kind, in their order."""
    if settings.confirm == "all":
        return np.arange(len(cells))
    of_kind = np.array([cell.site for cell in cells])
    chosen = [strongest(np.flatnonzero(of_kind == site), scores, settings.confirm) for site in set(of_kind)]
    return np.sort(np.concatenate(chosen))


def strongest(indices: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Of these indices, the ones of the highest scores; the first of equals."""
    return indices[np.argsort(-scores[indices], kind="stable")[:count]]


def _exchange(cell: Cell) -> runs.Put:
    site: Any = cell.site
    heads = None if cell.head is None else (cell.head,)
    return runs.Put(site, (cell.layer,), (cell.position,), heads=heads)


def _exact_effects(run: PromptRuns, cells: Sequence[Cell]) -> np.ndarray:
    """Change of the metric by each exchange, for every draw [cell sample]."""
    edits: list[tuple[Any, ...]] = [(_exchange(cell),) for cell in cells]
    values = run.metric_of(run.values([(), *edits]))
    return np.asarray(values[1:] - values[0])


def _dataset(item: NoisedItem, cells: Sequence[Cell], columns: dict[str, np.ndarray]) -> xr.Dataset:
    names = {
        "plain": "change of the metric, estimated by gradient",
        "recomputed": "change of the metric, estimated with the attention pattern computed anew",
        "dropped": "mean absolute estimate with each block stopped in turn (GradDrop)",
        "exact": "change of the metric, exactly; NaN where it was not confirmed",
    }
    prompt, one = item.prompt, "screened"
    return xr.Dataset(
        {
            f"screen_{name}": quantity(values, "screened sample", names[name])
            for name, values in columns.items()
        },
        coords={
            "screened_prompt": text_coordinate([prompt.name] * len(cells), one, "prompt of the patch"),
            "screened_site": text_coordinate([cell.site for cell in cells], one, "what is patched"),
            "screened_layer": number_coordinate(
                [cell.layer for cell in cells], one, "block, or depth of a state"
            ),
            "screened_position": number_coordinate(
                [cell.position for cell in cells], one, "position in the prompt"
            ),
            "screened_head": number_coordinate(
                [-1 if cell.head is None else cell.head for cell in cells],
                one,
                "head (of keys: key head), or -1",
            ),
            "screened_class": text_coordinate(
                [token_class(prompt, cell.position) for cell in cells], one, "part of the prompt"
            ),
        },
    )
