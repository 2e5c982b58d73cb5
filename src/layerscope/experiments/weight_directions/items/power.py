"""Which raters see known sets of tokens: it decides by whom directions are rated, and which are removed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, named, number_coordinate, side_by_side, text_coordinate
from layerscope.experiments.weight_directions.settings import (
    COMPANY,
    KNOWN_SET,
    MATCHED_SET,
    OTHER,
    OWN,
    RANDOM,
    RATERS,
    SIDES,
    UNRELATED,
    Settings,
)
from layerscope.text.token_sets import FEWEST_SETS

SIZES = (4, 8, 12)
_MADE = {KNOWN_SET: ("detected", "a known set"), MATCHED_SET: ("false_alarms", "unrelated tokens")}


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


def threshold(side: str, random: xr.Dataset, power: xr.Dataset, settings: Settings) -> np.ndarray:
    """[rater]: the coherence that few random directions and few of those made of unrelated tokens exceed."""
    limits = []
    for made, origin in ((random, RANDOM), (power, UNRELATED)):
        here = (made.direction_kind.values == side) & (made.origin.values == origin)
        limits.append(
            [_quantile(column, settings.quantile) for column in best_end(made.isel(direction=here)).T]
        )
    return np.fmax(*np.array(limits))


def best_end(rows: xr.Dataset, name: str = "coherence") -> np.ndarray:
    """[direction rater]: the coherence of the better end of each direction; NaN where it cannot be rated."""
    values = rows[name].values.astype(np.float64)
    return np.where(
        np.isnan(values).all(1),
        np.nan,
        np.where(np.isnan(values), -np.inf, values).max(axis=1, initial=-np.inf),
    )


def above(values: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """[direction rater]: 1 where a coherence exceeds the rater's threshold, 0 where not, NaN where one is unknown."""
    return np.where(np.isfinite(values) & np.isfinite(limit), values > limit, np.nan)


def _quantile(values: np.ndarray, share: float) -> float:
    known = values[np.isfinite(values)]
    # With too few random directions that can be rated, a quantile of them says nothing.
    return float(np.quantile(known, share)) if known.size >= 50 else float("nan")
