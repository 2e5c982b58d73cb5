"""The contexts that excite keys most, by a fold over the corpus whose memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Earlier, Inputs, WorkItem
from layerscope.experiments._coordinates import number_coordinate, text_coordinate
from layerscope.experiments._trigger_settings import Settings
from layerscope.maths.top_contexts import best_places, fingerprints, scrambled
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_MOST_TOKENS, _FEWEST_TOKENS = 16_384, 1024
OPERATIONS = 1.5e12  # of one item: about half a minute on one processor core


_AT_FIRST = (
    3  # times `top`: how many places of one pass are looked at before those that read alike are dropped
)

_MANY = 256  # keys of a layer, from which on a layer's candidates do not wait for those of other layers


class SearchItem(WorkItem):
    """Some passages, and the number of the first among all."""

    first: int
    passages: tuple[TokenisedPassage, ...]
    tokens_per_pass: int


@dataclass(frozen=True)
class Unit:
    """One tail of one key."""

    layer: int
    key: int
    tail: int

    @property
    def name(self) -> str:
        """How it is called everywhere: layer:key, the negative tail by name."""
        return f"{self.layer}:{self.key}" + (" negative" if self.tail < 0 else "")


def chosen_units(census: xr.Dataset, settings: Settings) -> list[Unit]:
    """The keys of a run, each with its positive tail and, if it ever goes below 0, its negative one.

    Raises:
        LayerscopeError: a chosen key that this model does not have, or no key that is ever excited.
    """
    highest, lowest = census.highest.values, census.lowest.values
    exists, live = np.isfinite(highest), highest > 0
    if settings.keys:
        pairs = [tuple(map(int, key.split(":"))) for key in settings.keys]
        for layer, key in pairs:
            if layer >= len(highest) or key >= highest.shape[1] or not exists[layer, key]:
                raise LayerscopeError(
                    "this model has no such key",
                    found=f"{layer}:{key}",
                    expected=f"layers 0 to {len(highest) - 1}, keys 0 to {int(exists[0].sum()) - 1}",
                    hint=f"--set keys='[\"{len(highest) - 1}:0\"]'",
                )
    else:
        among = exists & live if settings.live_only else exists
        pairs = [
            (layer, key) for layer in range(len(highest)) for key in _drawn(among[layer], layer, settings)
        ]
    if not any(live[layer, key] for layer, key in pairs):
        raise LayerscopeError(
            "no key is ever excited",
            found=f"no activation above 0 among {len(pairs) or int(exists.sum())} keys on the census passages",
            expected="passages that excite some key",
            hint="other passages, or --set census_passages=64",
        )
    return [
        Unit(layer, key, tail)
        for layer, key in pairs
        for tail in (1, -1)
        if tail > 0 or lowest[layer, key] < 0
    ]


def _drawn(among: np.ndarray, layer: int, settings: Settings) -> list[int]:
    keys = np.flatnonzero(among)
    if settings.keys_per_layer and len(keys) > settings.keys_per_layer:
        rng = np.random.default_rng([settings.seed, layer])
        keys = np.sort(rng.choice(keys, settings.keys_per_layer, replace=False))
    return [int(key) for key in keys]


def search_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SearchItem]:
    """Passages in order, as many in an item as take about half a minute on one core."""
    chosen_units(earlier["census"], settings)  # refuses before the slow part
    wanted = int(np.clip(OPERATIONS / (2 * inputs.facts.n_parameters), _FEWEST_TOKENS, _MOST_TOKENS))
    start, tokens = 0, 0
    for number, passage in enumerate(inputs.passages):
        tokens += len(passage.tokens)
        if tokens >= wanted or number == len(inputs.passages) - 1:
            some = inputs.passages[start : number + 1]
            yield SearchItem(
                name=f"passages {start + 1} to {number + 1}",
                size=tokens,
                first=start,
                passages=some,
                tokens_per_pass=inputs.tokens_per_pass,
            )
            start, tokens = number + 1, 0


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


class _Best:
    """Places of many units, the best first; `place` arrays are parallel, `windows` come with them."""

    def __init__(self, n_units: int, most: int, window: int) -> None:
        self.n_units, self.most = n_units, most
        self.columns: dict[str, np.ndarray] = {
            "unit": np.empty(0, dtype=np.int64),
            "value": np.empty(0, dtype=np.float32),
            "text": np.empty(0, dtype=np.int64),
            "position": np.empty(0, dtype=np.int64),
            "alike": np.empty(0, dtype=np.uint64),
            "along": np.empty((0, window), dtype=np.float32),
            "ids": np.empty((0, window), dtype=np.int64),
        }
        self.rank = np.empty(0, dtype=np.int64)
        self.threshold = np.zeros(n_units, dtype=np.float32)

    def add(self, found: dict[str, np.ndarray], windows: Any) -> None:
        """Merge places of a pass; `windows(kept)` gives along and ids of those that are among the best."""
        names = ("unit", "value", "text", "position", "alike")
        before = len(self.rank)
        joined = {name: np.concatenate([self.columns[name], found[name]]) for name in names}
        kept, self.rank = best_places(*(joined[name] for name in names), most=self.most)
        fresh = kept >= before
        along, ids = windows(kept[fresh] - before)
        both: dict[str, np.ndarray] = {}
        for name, new in (("along", along), ("ids", ids)):
            both[name] = np.empty((len(kept), *self.columns[name].shape[1:]), dtype=self.columns[name].dtype)
            both[name][~fresh] = self.columns[name][kept[~fresh]]
            both[name][fresh] = new
        self.columns = {name: joined[name][kept] for name in names} | both
        full = self.rank == self.most - 1
        self.threshold[self.columns["unit"][full]] = self.columns["value"][full]

    def kept_of(self, units: np.ndarray) -> np.ndarray:
        """How many places each of these units has."""
        return np.bincount(self.columns["unit"], minlength=self.n_units)[units]

    def table(self, name: str, missing: Any) -> np.ndarray:
        """One column as [unit rank ...]."""
        column = self.columns[name]
        table = np.full((self.n_units, self.most, *column.shape[1:]), missing, dtype=column.dtype)
        table[self.columns["unit"], self.rank] = column
        return table


def _highest(values: Any, candidates: Any, most: int) -> Any:
    """The candidates among the `most` highest values of each key [batch token key]; all where they are few."""
    if values.shape[0] * values.shape[1] <= most or int(candidates.sum((0, 1)).max()) <= 2 * most:
        return candidates
    floor = values.where(candidates, values.new_zeros(())).flatten(0, 1).topk(most, dim=0).values[-1]
    return candidates & (values >= floor)


class _Looked(NamedTuple):
    """What one layer offers in one pass: values [batch token key] and which of them are candidates."""

    units: np.ndarray
    values: np.ndarray
    narrowed: Any
    candidates: Any


class _Search:
    """What one work item has found so far."""

    def __init__(self, units: Sequence[Unit], settings: Settings, *, bos: bool) -> None:
        self.units, self.settings, self.bos = units, settings, bos
        self.best = _Best(len(units), settings.top, settings.window)
        self.random = _Best(1, settings.random_contexts, settings.window)
        self.by_layer: dict[int, np.ndarray] = {}
        for layer in dict.fromkeys(unit.layer for unit in units):
            self.by_layer[layer] = np.array([i for i, unit in enumerate(units) if unit.layer == layer])

    def look(self, model: LayeredModel, numbers: np.ndarray, ids: np.ndarray) -> None:
        """One forward pass over passages of equal length."""
        import torch

        self.alike = fingerprints(ids, self.settings.distinct_tokens or ids.shape[1])
        if not self.settings.distinct_tokens:
            places = numbers[:, None] * np.int64(2**32) + np.arange(ids.shape[1])
            self.alike = places.astype(np.uint64)
        self.numbers, self.ids = numbers, ids
        self._look_at_random()
        show = {layer: self._seer(layer) for layer in self.by_layer}
        self.waiting: list[_Looked] = []
        runs.show_key_activations(model, torch.from_numpy(ids), show)
        self._settle()

    def _seer(self, layer: int) -> Any:
        import torch

        units = self.by_layer[layer]
        keys = [self.units[unit].key for unit in units]
        tails = [float(self.units[unit].tail) for unit in units]
        first = self.settings.first_position

        def see(activations: Any) -> None:
            chosen = activations[:, :, keys].float() * torch.tensor(tails, device=activations.device)
            floor = torch.from_numpy(self.best.threshold[units]).to(chosen.device)
            # As high as the lowest kept is high enough: of equals the earlier text wins, whenever it is met.
            candidates = (chosen >= floor) & (chosen > 0)
            candidates[:, :first] = False
            narrowed = _highest(chosen, candidates, _AT_FIRST * self.settings.top)
            self.waiting.append(_Looked(units, chosen.cpu().numpy(), narrowed, candidates))
            if len(units) > _MANY:
                self._settle()

        return see

    def _settle(self) -> None:
        """Merge what the layers seen since the last time have to offer: one sort for all of them."""
        looked, self.waiting = self.waiting, []
        self._take([(one.units, one.values, one.narrowed) for one in looked])
        for one in looked:
            if one.narrowed is not one.candidates:
                # Contexts that read alike may have crowded out others: there, every candidate is taken.
                short = self.best.kept_of(one.units) < self.settings.top
                cut = (one.narrowed.sum((0, 1)) < one.candidates.sum((0, 1))).cpu().numpy()
                if (short & cut).any():
                    columns = np.flatnonzero(short & cut)
                    self._take(
                        [(one.units[columns], one.values[:, :, columns], one.candidates[:, :, columns])]
                    )

    def _take(self, pieces: Sequence[tuple[np.ndarray, np.ndarray, Any]]) -> None:
        found = [
            (piece, *(part.cpu().numpy() for part in candidates.nonzero(as_tuple=True)))
            for piece, (_, _, candidates) in enumerate(pieces)
        ]
        found = [one for one in found if len(one[1])]
        if not found:
            return
        which = np.concatenate([np.full(len(row), piece) for piece, row, _, _ in found])
        row, position, column = (np.concatenate([one[i] for one in found]) for i in (1, 2, 3))
        unit = np.concatenate([pieces[piece][0][columns] for piece, _, _, columns in found])
        value = np.concatenate([pieces[piece][1][rows, at, columns] for piece, rows, at, columns in found])
        self._merge(self.best, unit, value, row, position, [values for _, values, _ in pieces], which, column)

    def _merge(
        self,
        best: _Best,
        unit: np.ndarray,
        value: np.ndarray,
        row: np.ndarray,
        position: np.ndarray,
        values: Sequence[np.ndarray],
        which: np.ndarray,
        column: np.ndarray,
    ) -> None:
        def windows(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            back = np.arange(-self.settings.window + 1, 1)
            places = position[kept][:, None] + back
            inside, places = places >= 0, np.maximum(places, 0)
            along = np.empty(places.shape, dtype=np.float32)
            for piece in np.unique(which[kept]):
                mine = which[kept] == piece
                cells = (row[kept][mine][:, None], places[mine], column[kept][mine][:, None])
                along[mine] = values[piece][cells]
            ids = self.ids[row[kept][:, None], places]
            text = inside & (places >= int(self.bos))  # BOS is no token of the text
            return np.where(text, along, np.nan), np.where(text, ids, -1)

        found = {
            "unit": unit,
            "value": value,
            "text": self.numbers[row],
            "position": position,
            "alike": self.alike[row, position],
        }
        best.add(found, windows)

    def _look_at_random(self) -> None:
        """Places with the highest of random numbers that depend on seed, passage and position alone."""
        n, length = self.ids.shape
        names = (self.numbers[:, None].astype(np.uint64) << np.uint64(32)) + np.arange(
            length, dtype=np.uint64
        )
        seed = scrambled(np.array(self.settings.seed, dtype=np.uint64))
        luck = (scrambled(names ^ seed) >> np.uint64(40)).astype(np.float32)  # 24 bits: exact in float32
        luck[:, : self.settings.first_position] = -1
        row, position = np.nonzero((luck >= self.random.threshold[0]) & (luck >= 0))
        if len(row):
            value = luck[row, position]
            nothing = np.zeros((n, length, 1), dtype=np.float32)
            zeros = np.zeros(len(row), dtype=np.int64)
            self._merge(self.random, zeros, value, row, position, [nothing], zeros, zeros)

    def result(self) -> xr.Dataset:
        """The best places as a Dataset of fixed size."""
        best, random = self.best, self.random
        per_context, per_random = "key rank", "random"
        return xr.Dataset(
            {
                "value": quantity(best.table("value", np.nan), per_context, "activation, towards the tail"),
                "text": quantity(best.table("text", -1), per_context, "number of the passage"),
                "position_in_text": quantity(best.table("position", -1), per_context, "position in it"),
                "alike": quantity(best.table("alike", 0), per_context, "equal for contexts that count once"),
                "along": quantity(
                    best.table("along", np.nan), "key rank place", "activation at the context's tokens"
                ),
                "ids": quantity(best.table("ids", -1), "key rank place", "ids of the context's tokens"),
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


def _coordinates(units: Sequence[Unit], settings: Settings) -> dict[str, xr.Variable]:
    return {
        "key": text_coordinate([unit.name for unit in units], "key", "key, as layer:key"),
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
    best = _merged(folded, part, _CONTEXT, ("along", "ids"), n["key"], n["rank"])
    random = _merged(folded, part, _RANDOM, ("random_ids",), 1, n["random"])
    tables = best | {name: table[0] for name, table in random.items()}
    tables["counts"] = folded.counts.values + part.counts.values
    return folded.assign({name: folded[name].variable.copy(data=table) for name, table in tables.items()})


def _merged(
    a: xr.Dataset, b: xr.Dataset, names: dict[str, str], windows: Sequence[str], n_units: int, most: int
) -> dict[str, np.ndarray]:
    def flat(name: str) -> np.ndarray:
        both = [one[name].values.reshape(n_units, most, -1) for one in (a, b)]
        joined = np.concatenate(both, axis=1)
        return joined.reshape(n_units * 2 * most, joined.shape[2])

    columns = {role: flat(name)[:, 0] for role, name in names.items()}
    there = np.flatnonzero(columns["text"] >= 0)
    unit = np.repeat(np.arange(n_units), 2 * most)[there]
    kept, rank = best_places(unit, *(columns[role][there] for role in names), most=most)
    tables = {}
    for name in (*names.values(), *windows):
        source = flat(name)
        missing = np.nan if source.dtype.kind == "f" else (0 if source.dtype.kind == "u" else -1)
        table = np.full((n_units, most, source.shape[1]), missing, dtype=source.dtype)
        table[unit[kept], rank] = source[there[kept]]
        tables[name] = table if name in windows else table[..., 0]
    return tables
