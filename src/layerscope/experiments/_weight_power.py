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
from layerscope.evidence.naming import named
from layerscope.evidence.over import Over, side_by_side
from layerscope.experiments._weight_ground import Ground, numpy_generator
from layerscope.experiments._weight_rated import above, best_end, threshold
from layerscope.experiments._weight_rating import Block, rated
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
from layerscope.results.escaping import restored
from layerscope.text.token_sets import FEWEST_SETS, known_token_sets

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

SIZES = (4, 8, 12)
_NEIGHBOURS, _BESIDE = 100, 20
_MADE = {KNOWN_SET: ("detected", "a known set"), MATCHED_SET: ("false_alarms", "unrelated tokens")}


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
    return rated(ground, blocks, layer=-1).assign_coords(
        set_name=text_coordinate(names, "direction", "known set"),
        set_size=number_coordinate(sizes, "direction", "tokens that the direction is made of"),
    )


def token_sets(ground: Ground) -> dict[str, list[int]]:
    """The known sets' tokens that may be shown."""
    texts = [restored(str(text)) for text in ground.vocabulary.token_text.values]
    allowed = ground.vocabulary.allowed.values
    return known_token_sets(texts, ground.settings.known_sets, allowed=allowed, fewest=SIZES[0])


def _made(
    ground: Ground, kind: str, origin: str, sets: Mapping[str, Sequence[int]]
) -> tuple[Any, list[tuple[str, int]]]:
    """Directions of one origin, in the stream, and the set and size of each."""
    import torch

    side, settings = ground.side(kind), ground.settings
    rows = ground.rows(side)
    centre = torch.from_numpy(ground.centres[side]).to(rows.rows.device)
    within = min(_NEIGHBOURS, max(1, (len(ground.tokens_by_frequency) - 1) // 4))

    def mean_unit(ids: np.ndarray) -> Any:
        return torch.nn.functional.normalize(rows.rows[ids.ravel()].float() - centre, dim=-1).mean(0)

    made, named_sets = [], []
    for name, tokens in sets.items():
        for size in (size for size in SIZES if size <= len(tokens)):
            draw = numpy_generator(settings, "power", kind, origin, name, size)
            for _ in range(settings.set_draws):
                ids = draw.permutation(np.array(tokens))[:size]
                others = ground.as_frequent(np.repeat(ids[:, None], 1 + _BESIDE, axis=1), draw, within=within)
                own = ids if origin == KNOWN_SET else others[:, 0]
                made.append(mean_unit(own) - mean_unit(others[:, 1:]))
                named_sets.append((name, size))
    if not made:
        return torch.zeros(0), []
    return runs.from_tokens(torch.stack(made), rows, fold=settings.fold_norms), named_sets


def power_variables(power: xr.Dataset, random: xr.Dataset, settings: Settings) -> xr.Dataset:
    """What raters detect: `detected` (known sets) and `false_alarms` (unrelated tokens as frequent).

    Both by side, rater and size, and over all sizes (`detected_all`); intervals over sets, and nothing of a rater that
    can judge fewer than `FEWEST_SETS`.
    """
    found = side_by_side(
        {side: _of_side(side, power, random, settings) for side in SIDES}, "side", "side of the vocabulary"
    )
    for count in [str(name) for name in found if str(name).endswith("_n")]:
        enough, name = found[count] >= FEWEST_SETS, count.removesuffix("_n")
        found = found.assign({one: found[one].where(enough) for one in (name, f"{name}_low", f"{name}_high")})
    return found


def _of_side(side: str, power: xr.Dataset, random: xr.Dataset, settings: Settings) -> xr.Dataset:
    limit, parts = threshold(side, random, power, settings), []
    for origin, (name, of) in _MADE.items():
        made = power.isel(
            direction=(power.direction_kind.values == side) & (power.origin.values == origin)
        ).rename(set_name="known_set")
        what = f"share of directions made of {of} that count as coherent"
        by_size = [
            _over_sets(made.isel(direction=made.set_size.values == size), limit, name, what, settings)
            for size in SIZES
        ]
        parts += [
            xr.concat(by_size, "size").transpose(..., "size"),
            _over_sets(made, limit, f"{name}_all", what, settings),
        ]
    return xr.merge(parts).assign_coords(
        size=number_coordinate(SIZES, "size", "tokens that the direction is made of"),
        rater=text_coordinate(RATERS, "rater", "whose vectors of the tokens are compared"),
    )


def _over_sets(made: xr.Dataset, limit: np.ndarray, name: str, what: str, settings: Settings) -> xr.Dataset:
    """By rater the share of made directions that count as coherent: mean over their sets."""
    hits = named(above(best_end(made), limit), name, what, "share", dims=("direction", "rater"))
    return Over(made, settings, rows="known_set").mean(hits)


def headline(power: xr.Dataset, settings: Settings) -> tuple[str, bool | None]:
    """The rater that the headline goes by, and whether it has power: None where that is unknown.

    With "auto" the first of co-occurrence (independent of the weights) and the own embedding that detects enough.

    Args:
        power: what `power_variables` gave.
        settings: the run's.
    """
    detected = power.detected_all.mean("side", skipna=False)

    def has_power(rater: str) -> bool | None:
        if rater not in RATERS or np.isnan(share := float(detected.sel(rater=rater))):
            return None
        return share >= settings.least_power

    if settings.rater == "auto":
        chosen = next((rater for rater in (COMPANY, OWN) if has_power(rater)), OWN)
    else:
        chosen = OTHER if settings.other_embedding else settings.rater
    return chosen, has_power(chosen)
