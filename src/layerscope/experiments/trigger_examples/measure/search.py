"""The contexts that excite keys most, by a fold over the corpus whose memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.trigger_examples.items import SearchItem
from layerscope.experiments.trigger_examples.items.units import Unit, chosen_units
from layerscope.experiments.trigger_examples.measure.best import Best, merged_tables
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.top_contexts import fingerprints, scrambled
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_AT_FIRST = 3
"""Times `top`: how many places of one pass are looked at before those that read alike are dropped."""
_AT_ONCE = 2**17
"""Places whose windows are taken out of the activations at one time."""


def measure_search(model: LayeredModel, item: SearchItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The best contexts of these passages, random ones among them, and how often each token occurs."""
    bos = item.passages[0].tokens.bos
    search = _Search(chosen_units(earlier["census"], settings), settings, bos=bos)
    counts = np.zeros(model.facts.vocabulary, dtype=np.int64)
    for numbers, ids in batches(item):
        search.look(model, numbers, ids)
        counts += np.bincount(ids[:, settings.first_position :].ravel(), minlength=len(counts))[: len(counts)]
    return (
        search.result()
        .assign(counts=quantity(counts, "token_id", "occurrences in the corpus"))
        .assign_coords(token_id=number_coordinate(range(len(counts)), "token_id", "id of a token"))
    )


def batches(item: SearchItem) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Passages of equal length together: numbers, and ids [row token]. Nothing is padded."""
    by_length: dict[int, list[int]] = {}
    for place, passage in enumerate(item.passages):
        by_length.setdefault(len(passage.tokens), []).append(place)
    for length, places in by_length.items():
        rows = max(1, item.tokens_per_pass // length)
        for start in range(0, len(places), rows):
            some = places[start : start + rows]
            ids = np.array([item.passages[place].tokens.ids for place in some])
            yield np.array(some) + item.first, ids


def _highest(values: Any, candidates: Any, most: int) -> Any:
    """The candidates among the `most` highest values of each key [batch token key]; all where they are few."""
    if values.shape[0] * values.shape[1] <= most or int(candidates.sum((0, 1)).max()) <= 2 * most:
        return candidates
    floor = values.where(candidates, values.new_zeros(())).flatten(0, 1).topk(most, dim=0).values[-1]
    return candidates & (values >= floor)


@dataclass(frozen=True, eq=False)
class _Pass:
    """The passages of one forward pass: their numbers, ids [row token], and what counts as alike [row token]."""

    numbers: np.ndarray
    ids: np.ndarray
    alike: np.ndarray
    bos: bool

    def found(
        self, values: Any, row: np.ndarray, position: np.ndarray, column: np.ndarray, window: int
    ) -> dict[str, np.ndarray]:
        """Places with the last tokens before each and the values [row token column] there."""
        places = position[:, None] + np.arange(-window + 1, 1)
        text = places >= int(self.bos)  # BOS is no token of the text
        places = np.maximum(places, 0)
        along = values[row[:, None], places, column[:, None]]
        return {
            "unit": column,
            "value": values[row, position, column],
            "text": self.numbers[row],
            "position": position,
            "alike": self.alike[row, position],
            "along": np.where(text, along, np.float32(np.nan)),
            "ids": np.where(text, self.ids[row[:, None], places], -1),
        }


class _Watched:
    """The units of one layer that are searched for, and their best places so far."""

    def __init__(self, places: Sequence[int], units: Sequence[Unit], settings: Settings) -> None:
        self.places = np.array(places)
        self.keys = [units[place].key for place in places]
        self.tails = [float(units[place].tail) for place in places]
        self.settings = settings
        self.best = Best(len(places), settings.top, settings.window)

    def look(self, activations: Any, seen: _Pass) -> None:
        """Take in what one pass shows of the layer's keys."""
        import torch

        chosen = activations.of(self.keys).float()
        if min(self.tails) < 0:
            chosen = chosen * torch.tensor(self.tails, device=chosen.device)
        floor = torch.from_numpy(self.best.threshold).to(chosen.device)
        # As high as the lowest kept is high enough: of equals the earlier text wins, whenever it is met.
        candidates = (chosen >= floor) & (chosen > 0)
        candidates[:, : self.settings.first_position] = False
        narrowed = _highest(chosen, candidates, _AT_FIRST * self.settings.top)
        values = chosen.cpu().numpy()
        self._take(values, narrowed, seen)
        if narrowed is not candidates:
            self._take_those_crowded_out(values, narrowed, candidates, seen)

    def _take(self, values: np.ndarray, wanted: Any, seen: _Pass, columns: np.ndarray | None = None) -> None:
        row, position, column = (index.cpu().numpy() for index in wanted.nonzero(as_tuple=True))
        column = column if columns is None else columns[column]
        for start in range(0, len(row), _AT_ONCE):
            at = slice(start, start + _AT_ONCE)
            self.best.add(seen.found(values, row[at], position[at], column[at], self.settings.window))

    def _take_those_crowded_out(
        self, values: np.ndarray, narrowed: Any, candidates: Any, seen: _Pass
    ) -> None:
        """Where contexts that read alike crowded out others, every candidate is taken."""
        self.best.settle()
        cut = (narrowed.sum((0, 1)) < candidates.sum((0, 1))).cpu().numpy()
        columns = np.flatnonzero(cut & (self.best.number_kept() < self.settings.top))
        if len(columns):
            self._take(values, candidates[:, :, columns], seen, columns)


class _Search:
    """What one work item has found so far."""

    def __init__(self, units: Sequence[Unit], settings: Settings, *, bos: bool) -> None:
        self.units, self.settings, self.bos = units, settings, bos
        self.random = Best(1, settings.random_contexts, settings.window)
        self.watched = {
            layer: _Watched([i for i, unit in enumerate(units) if unit.layer == layer], units, settings)
            for layer in dict.fromkeys(unit.layer for unit in units)
        }

    def look(self, model: LayeredModel, numbers: np.ndarray, ids: np.ndarray) -> None:
        """One forward pass over passages of equal length."""
        import torch

        alike = fingerprints(ids, self.settings.distinct_tokens or ids.shape[1])
        if not self.settings.distinct_tokens:
            alike = (numbers[:, None] * np.int64(2**32) + np.arange(ids.shape[1])).astype(np.uint64)
        seen = _Pass(numbers, ids, alike, self.bos)
        self._look_at_random(seen)
        show = {layer: partial(watched.look, seen=seen) for layer, watched in self.watched.items()}
        share = self.settings.routing_share
        runs.show_key_activations(model, torch.from_numpy(ids), show, routing_share=share)

    def _look_at_random(self, seen: _Pass) -> None:
        """Places with the highest of random numbers that depend on seed, passage and position alone."""
        length = seen.ids.shape[1]
        names = (seen.numbers[:, None].astype(np.uint64) << np.uint64(32)) + np.arange(
            length, dtype=np.uint64
        )
        seed = scrambled(np.array(self.settings.seed, dtype=np.uint64))
        luck = (scrambled(names ^ seed) >> np.uint64(40)).astype(np.float32)  # 24 bits: exact in float32
        luck[:, : self.settings.first_position] = -1
        row, position = np.nonzero((luck >= self.random.threshold[0]) & (luck >= 0))
        self.random.add(
            seen.found(
                luck[..., None], row, position, np.zeros(len(row), dtype=np.int64), self.settings.window
            )
        )

    def result(self) -> xr.Dataset:
        """The best places as a Dataset of fixed size."""
        for best in (self.random, *(watched.best for watched in self.watched.values())):
            best.settle()
        random, per_context, per_random = self.random, "key rank", "random"
        return xr.Dataset(
            {
                "value": quantity(self._table("value", np.nan), per_context, "activation, towards the tail"),
                "text": quantity(self._table("text", -1), per_context, "number of the passage"),
                "position_in_text": quantity(self._table("position", -1), per_context, "position in it"),
                "alike": quantity(self._table("alike", 0), per_context, "equal for contexts that count once"),
                "along": quantity(
                    self._table("along", np.nan), "key rank place", "activation at the context's tokens"
                ),
                "ids": quantity(self._table("ids", -1), "key rank place", "ids of the context's tokens"),
                "luck": quantity(random.table("value", np.nan)[0], per_random, "random number"),
                "random_text": quantity(random.table("text", -1)[0], per_random, "number of the passage"),
                "random_position": quantity(random.table("position", -1)[0], per_random, "position in it"),
                "random_alike": quantity(
                    random.table("alike", 0)[0], per_random, "equal for contexts that count once"
                ),
                "random_ids": quantity(
                    random.table("ids", -1)[0], "random place", "ids of the context's tokens"
                ),
            },
            coords=_coordinates(self.units, self.settings),
        )

    def _table(self, name: str, missing: Any) -> np.ndarray:
        """The tables of all layers, in the order of the units."""
        order = np.concatenate([watched.places for watched in self.watched.values()])
        tables = [watched.best.table(name, missing) for watched in self.watched.values()]
        return np.asarray(np.concatenate(tables)[np.argsort(order)])


def _coordinates(units: Sequence[Unit], settings: Settings) -> dict[str, xr.Variable]:
    return {
        "key": text_coordinate([unit.name for unit in units], "key", "key, as layer:key or layer:expert:key"),
        "key_layer": number_coordinate([unit.layer for unit in units], "key", "layer of the key"),
        "key_index": number_coordinate([unit.key for unit in units], "key", "number of the key in its layer"),
        "key_tail": number_coordinate(
            [unit.tail for unit in units], "key", "1: highest, -1: lowest activations"
        ),
        "rank": number_coordinate(range(settings.top), "rank", "rank of the context, 0 first"),
        "place": number_coordinate(
            range(-settings.window + 1, 1), "place", "place in the context, 0: the token that excites"
        ),
        "random": number_coordinate(range(settings.random_contexts), "random", "random context"),
    }


_CONTEXT = {"value": "value", "text": "text", "position": "position_in_text", "alike": "alike"}
_RANDOM = {"value": "luck", "text": "random_text", "position": "random_position", "alike": "random_alike"}


def fold_search(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """The best of both, in memory of the same size."""
    n = folded.sizes
    best = merged_tables(folded, part, _CONTEXT, ("along", "ids"), n["key"], n["rank"])
    random = merged_tables(folded, part, _RANDOM, ("random_ids",), 1, n["random"])
    tables = best | {name: table[0] for name, table in random.items()}
    tables["counts"] = folded.counts.values + part.counts.values
    return folded.assign({name: folded[name].variable.copy(data=table) for name, table in tables.items()})
