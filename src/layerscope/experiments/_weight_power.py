"""Would a rater see a meaning that is there? Directions made of known sets of tokens, and of unrelated tokens.

A direction made of a set is the mean of its tokens' vectors, each of length 1, less the mean of tokens about as
frequent: what sets them apart from others of their frequency. Made of unrelated tokens it is the same of as many
tokens about as frequent as the set's. Both are shown and rated like any direction of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments._weight_rated import best_end, threshold
from layerscope.experiments._weight_rating import Block, Ground, joined_parts, numpy_generator, rated
from layerscope.experiments._weight_settings import (
    COMPANY,
    KNOWN_SET,
    MATCHED_SET,
    OTHER,
    OWN,
    RATERS,
    SIDES,
    UNRELATED,
    Settings,
)
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.results.schema import quantity
from layerscope.results.words import restored
from layerscope.text.token_sets import FEWEST_SETS, known_token_sets

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

SIZES = (4, 8, 12)
_NEIGHBOURS, _AS_FREQUENT = 100, 20


def measure_power(model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Directions made of known sets, of unrelated tokens as frequent, and the same again for the threshold."""
    return made_directions(Ground(model, earlier["vocabulary"], settings))


def made_directions(ground: Ground) -> xr.Dataset:
    """Both sides' made directions as they are rated, with the name and size of each set along `direction`."""
    sets = token_sets(ground)
    blocks, names, sizes = [], [], []
    for side in SIDES:
        for origin in (KNOWN_SET, MATCHED_SET, UNRELATED):
            vectors, here = _made(ground, side, origin, sets)
            if len(vectors):
                nothing = np.full(len(vectors), np.nan)
                blocks.append(Block(side, "", origin, vectors, nothing, nothing, np.full(len(vectors), -1)))
                names += [name for name, _ in here]
                sizes += [size for _, size in here]
    found = rated(ground, blocks, layer=-1) if blocks else joined_parts([], ground.settings)
    return found.assign_coords(
        set_name=xr.Variable(("direction",), np.array(names, dtype=str), {"long_name": "known set"}),
        set_size=number_coordinate(sizes, "direction", "tokens that the direction is made of"),
    )


def token_sets(ground: Ground) -> dict[str, list[int]]:
    """The known sets' tokens that may be shown."""
    texts = [restored(str(text)) for text in ground.vocabulary.token_text.values]
    allowed = ground.vocabulary.allowed.values
    return known_token_sets(texts, ground.settings.known_sets, allowed=allowed, fewest=SIZES[0])


def _made(
    ground: Ground, side: str, origin: str, sets: Mapping[str, Sequence[int]]
) -> tuple[Any, list[tuple[str, int]]]:
    """Directions of one origin, in the stream, and the set and size of each."""
    import torch

    rows = ground.rows(ground.side(side))
    centre = torch.from_numpy(ground.centre(ground.side(side))).to(rows.rows.device)
    made, named = [], []

    def mean_unit(ids: np.ndarray) -> Any:
        return torch.nn.functional.normalize(rows.rows[ids.ravel()].float() - centre, dim=-1).mean(0)

    for name, tokens in sets.items():
        for size in (size for size in SIZES if size <= len(tokens)):
            draw = numpy_generator(ground.settings, "power", side, origin, name, size)
            for _ in range(ground.settings.set_draws):
                ids = draw.permutation(np.array(tokens))[:size]
                others = _as_frequent(ground, ids, draw)
                made.append(
                    mean_unit(ids if origin == KNOWN_SET else others[:, 0]) - mean_unit(others[:, 1:])
                )
                named.append((name, size))
    if not made:
        return torch.zeros(0), []
    return runs.from_tokens(torch.stack(made), rows, fold=ground.settings.fold_norms), named


def _as_frequent(ground: Ground, ids: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """[id, other]: for each token some that occur about as often."""
    last = len(ground.tokens_by_frequency) - 1
    reach = min(_NEIGHBOURS, max(1, last // 4))
    shape = (len(ids), 1 + _AS_FREQUENT)
    steps = draw.integers(1, reach + 1, shape) * draw.choice([-1, 1], shape)
    places = np.clip(ground.place_by_frequency[ids][:, None] + steps, 0, last)
    return np.asarray(ground.tokens_by_frequency[places])


def power_variables(power: xr.Dataset, random: xr.Dataset, settings: Settings) -> xr.Dataset:
    """What raters detect: `detected` (known sets) and `false_alarms` (unrelated tokens as frequent).

    Both by side, rater and size, and over all sizes (`detected_all`); intervals over sets.
    """
    values = best_end(power)
    hits = np.full(values.shape, np.nan)
    for side in SIDES:
        here = power.direction_kind.values == side
        limit = threshold(side, random, power, settings)
        known = np.isfinite(values[here]) & np.isfinite(limit)
        hits[here] = np.where(known, values[here] > limit, np.nan)
    variables: dict[str, xr.Variable] = {}
    for name, origin, what in (
        ("detected", KNOWN_SET, "share of directions made of a known set that count as coherent"),
        ("false_alarms", MATCHED_SET, "share of directions made of unrelated tokens that count as coherent"),
    ):
        cells = [
            [_of_sets(power, hits, settings, side, origin, size) for size in (*SIZES, None)] for side in SIDES
        ]
        numbers = np.array(cells)  # [side size (value low high n) rater]
        for place, end in enumerate(("", "_low", "_high", "_n")):
            by_size = numbers[:, :-1, place].transpose(0, 2, 1)
            variables[f"{name}{end}"] = quantity(by_size, "side rater size", what)
            variables[f"{name}_all{end}"] = quantity(numbers[:, -1, place], "side rater", what)
    return xr.Dataset(
        variables,
        coords={
            "side": text_coordinate(list(SIDES), "side", "side of the vocabulary"),
            "size": number_coordinate(SIZES, "size", "tokens that the direction is made of"),
            "rater": text_coordinate(list(RATERS), "rater", "whose vectors of the tokens are compared"),
        },
    )


def _of_sets(
    power: xr.Dataset, hits: np.ndarray, settings: Settings, side: str, origin: str, size: int | None
) -> np.ndarray:
    """[value low high n, rater]: mean over sets of their directions' share, with an interval over sets."""
    here = (power.direction_kind.values == side) & (power.origin.values == origin)
    if size is not None:
        here &= power.set_size.values == size
    names = power.set_name.values[here]
    shares = []
    for name in dict.fromkeys(names.tolist()):
        of_set = hits[here][names == name]
        known = np.isfinite(of_set)
        counted = known.sum(axis=0)
        shares.append(np.where(counted > 0, np.nansum(of_set, axis=0) / np.maximum(counted, 1), np.nan))
    rated_sets = np.isfinite(np.array(shares).reshape(-1, len(RATERS))).sum(axis=0)
    if rated_sets.max(initial=0) < FEWEST_SETS:
        return np.stack([*np.full((3, len(RATERS)), np.nan), rated_sets.astype(float)])
    mean = bootstrap_mean(
        np.array(shares), seed=settings.seed, level=settings.level, resamples=settings.resamples
    )
    enough = rated_sets >= FEWEST_SETS
    return np.stack(
        [np.where(enough, column, np.nan) for column in (mean.value, mean.low, mean.high)] + [rated_sets]
    )


def headline(earlier: Earlier, settings: Settings) -> tuple[str, bool | None]:
    """The rater that the headline goes by, and whether it has power: None where that is unknown.

    With "auto" the first of co-occurrence (independent of the weights) and the own embedding that detects enough.
    """
    power = power_variables(earlier["power"], earlier["random"], settings)
    detected = power.detected_all.mean("side", skipna=False)

    def has_power(rater: str) -> bool | None:
        if rater not in RATERS or np.isnan(share := float(detected.sel(rater=rater))):
            return None
        return share >= settings.least_power

    if settings.rater == "auto":
        able = [rater for rater in (COMPANY, OWN) if has_power(rater)]
        chosen = able[0] if able else OWN
    else:
        chosen = OTHER if settings.other_embedding else settings.rater
    return chosen, has_power(chosen)
