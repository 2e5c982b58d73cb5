"""From every direction's rating to rates by kind and layer, their controls, and what they do over depth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._weight_character import character, conversation, named_tokens, removals, search
from layerscope.experiments._weight_measuring import headline
from layerscope.experiments._weight_settings import (
    LANGUAGE,
    RANDOM,
    RATERS,
    ROTATED,
    SINGULAR,
    WRITES,
    Settings,
)
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.permutation import holm
from layerscope.maths.trend import Trend, rate_difference_p, rate_error, rate_trend
from layerscope.results.schema import quantity, read_json, write_json

ALL_RATERS = (*RATERS, LANGUAGE)


class Rated:
    """Rows of directions with what each rater says: interpretable, not, or NaN where it cannot tell.

    Attributes:
        rows: the directions, as measured.
        hits: [direction rater].
        matched: likewise, of other tokens that occur about as often; NaN for controls.
        best: [direction rater], the coherence of the better end.
        chance: by side of the vocabulary ("reads", "writes"), the rate of random directions [rater].
        thresholds: likewise, the coherence above which a direction counts.
    """

    def __init__(self, rows: xr.Dataset, random: xr.Dataset, settings: Settings, answers: xr.Dataset) -> None:
        self.rows, self.best, matched = rows, _best(rows), _best(rows, "matched_coherence")
        of_random = _best(random)
        sides = np.array(
            ["writes" if kind in WRITES else "reads" for kind in rows.direction_kind.values.tolist()]
        )
        self.hits = np.full((rows.sizes["direction"], len(ALL_RATERS)), np.nan)
        self.matched = self.hits.copy()
        self.thresholds, self.chance = {}, {}
        for side in ("reads", "writes"):
            chosen = of_random[random.direction_kind.values == side]
            limit = np.array([_quantile(column, settings.quantile) for column in chosen.T])
            here = sides == side
            known = np.isfinite(self.best[here]) & np.isfinite(limit)
            self.hits[here, : len(RATERS)] = np.where(known, self.best[here] > limit, np.nan)
            known = np.isfinite(matched[here]) & np.isfinite(limit)
            self.matched[here, : len(RATERS)] = np.where(known, matched[here] > limit, np.nan)
            above = np.where(np.isfinite(chosen), chosen > limit, np.nan)
            self.thresholds[side] = limit
            self.chance[side] = np.array([*_means(above), _asked(answers, side, np.array([-1])).mean()])
        self._take_answers(answers)

    def _take_answers(self, answers: xr.Dataset) -> None:
        if "asked" in answers.sizes:
            real = answers.asked_layer.values >= 0
            self.hits[answers.asked_row.values[real], -1] = answers.counts.values[real].any(axis=1)

    def of(self, **wanted: Any) -> np.ndarray:
        """Row numbers that fit: kind, layer, origin, matrix."""
        names = {
            "kind": "direction_kind",
            "layer": "direction_layer",
            "matrix": "direction_matrix",
            "origin": "origin",
        }
        fits = np.ones(self.rows.sizes["direction"], bool)
        for name, value in wanted.items():
            fits &= self.rows[names[name]].values == value
        return np.flatnonzero(fits)


def _asked(answers: xr.Dataset, side: str, layers: np.ndarray) -> np.ndarray:
    if "asked" not in answers.sizes:
        return np.array([np.nan])
    here = np.isin(answers.asked_layer.values, layers) & (answers.asked_kind.values == side)
    found = answers.counts.values[here].any(axis=1).astype(float)
    return found if found.size else np.array([np.nan])


def _best(rows: xr.Dataset, name: str = "coherence") -> np.ndarray:
    values = rows[name].values.astype(np.float64)
    return np.where(
        np.isnan(values).all(1),
        np.nan,
        np.where(np.isnan(values), -np.inf, values).max(axis=1, initial=-np.inf),
    )


def _quantile(values: np.ndarray, share: float) -> float:
    known = values[np.isfinite(values)]
    # With too few random directions that can be rated, a quantile of them says nothing.
    return float(np.quantile(known, share)) if known.size >= 50 else float("nan")


def _means(columns: np.ndarray) -> list[float]:
    return [
        float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else np.nan
        for column in columns.T
    ]


def concluded(stages: Earlier, settings: Settings) -> xr.Dataset:
    """See `weight_directions.conclude`."""
    directions, answers = stages["directions"], stages["answers"]
    rater = headline(stages, settings)
    rated = Rated(directions, stages["random"], settings, answers)
    layers = np.unique(directions.direction_layer.values)
    found = set(directions.direction_kind.values.tolist())
    kinds = [kind for kind in settings.kinds if kind in found]
    n_layers = int(max([*layers, *stages["directions"].lack_layer.values, 0])) + 1
    variables: dict[str, Any] = {}
    variables |= _rates(rated, kinds, n_layers)
    variables |= _controls(rated, stages, settings, kinds)
    variables |= _over_depth(rated, kinds, n_layers, settings)
    variables |= _spectra(rated, kinds, n_layers)
    result = xr.Dataset(
        variables,
        coords={
            "kind": text_coordinate(kinds, "kind", "what a direction is of"),
            "layer": layer_coordinate(n_layers),
            "rater": text_coordinate(list(ALL_RATERS), "rater", "who says whether tokens hang together"),
        },
    )
    pieces = [
        result,
        _kept(rated, settings),
        character(rated, stages["vocabulary"], kinds, n_layers, settings, rater),
        removals(stages["edits"], settings),
        search(rated, settings, stages["vocabulary"]),
        directions[[n for n in directions.variables if str(n).startswith(("together", "lack"))]],
        conversation(answers),
    ]
    merged = xr.merge(pieces, compat="override", join="outer", combine_attrs="override")
    merged = named_tokens(_numbered(merged), stages["vocabulary"])
    merged.attrs = {}
    return write_json(
        merged,
        cautions=_cautions(stages, settings),
        folded=settings.fold_norms,
        quantile=settings.quantile,
        near=settings.near,
        rate_by=rater,
        naming_prompt=read_json(answers, "naming_prompt", ""),
        choosing_prompt=read_json(answers, "choosing_prompt", ""),
        search=settings.search,
        level=settings.level,
    )


_COUNTED = {
    "direction": "direction, singular or rotated",
    "together": "subspace of near-equal singular values",
    "lack": "part of a block that was left out",
    "asked": "direction that the language model was asked about",
    "edit_text": "text on which removals were measured",
}


def _numbered(result: xr.Dataset) -> xr.Dataset:
    """Plain numbers along dimensions that have no names of their own."""
    return result.assign_coords(
        {
            name: number_coordinate(range(result.sizes[name]), name, what)
            for name, what in _COUNTED.items()
            if name in result.sizes
        }
    )


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and rated rows, by rater."""
    return np.nansum(values, axis=0).astype(np.int64), np.isfinite(values).sum(axis=0)


def _rate_variables(
    name: str, hits: np.ndarray, n: np.ndarray, dims: str, what: str, *, less: np.ndarray | float = 0.0
) -> dict[str, xr.Variable]:
    """A rate (less that of chance) with its 95 % interval, standard error and number of directions."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(n > 0, hits / np.maximum(n, 1), np.nan) - less
    error = np.where(n > 0, rate_error(hits, n), np.nan)
    return {
        name: quantity(rate, dims, what),
        f"{name}_low": quantity(rate - 1.96 * error, dims, f"{what}, lower end"),
        f"{name}_high": quantity(rate + 1.96 * error, dims, f"{what}, upper end"),
        f"{name}_error": quantity(error, dims, f"{what}, standard error"),
        f"{name}_n": quantity(n, dims, f"{what}, directions rated"),
    }


def _chance(rated: Rated, kinds: Sequence[str]) -> np.ndarray:
    return np.array([rated.chance["writes" if kind in WRITES else "reads"] for kind in kinds]).reshape(
        len(kinds), len(ALL_RATERS)
    )


def _rates(rated: Rated, kinds: Sequence[str], n_layers: int) -> dict[str, xr.Variable]:
    shape = (len(kinds), n_layers, len(ALL_RATERS))
    variables: dict[str, xr.Variable] = {}
    for name, origin, what in (
        ("rate", SINGULAR, "share of interpretable directions"),
        ("rotated_rate", ROTATED, "share of interpretable rotations"),
    ):
        hits, n = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, kind in enumerate(kinds):
            for layer in range(n_layers):
                hits[i, layer], n[i, layer] = _counted(
                    rated.hits[rated.of(kind=kind, layer=layer, origin=origin)]
                )
        variables |= _rate_variables(name, hits, n, "kind layer rater", what)
        if name == "rate":
            chance = _chance(rated, kinds)[:, None]
            variables |= _rate_variables(
                "lift",
                hits,
                n,
                "kind layer rater",
                "share of interpretable directions above that of random ones",
                less=chance,
            )
        variables |= _rate_variables(
            f"whole_{name}", hits.sum(1), n.sum(1), "kind rater", f"{what}, all layers"
        )
    return variables


def _controls(
    rated: Rated, stages: Earlier, settings: Settings, kinds: Sequence[str]
) -> dict[str, xr.Variable]:
    chance = _chance(rated, kinds)
    variables = {"random_rate": quantity(chance, "kind rater", "share of interpretable random directions")}
    hits, n = (np.zeros((len(kinds), len(ALL_RATERS)), np.int64) for _ in range(2))
    twin = stages["untrained"]
    if twin.sizes.get("direction"):
        random = twin.origin.values == RANDOM
        of_twin = Rated(twin.isel(direction=~random), twin.isel(direction=random), settings, xr.Dataset())
        for i, kind in enumerate(kinds):
            hits[i], n[i] = _counted(of_twin.hits[of_twin.of(kind=kind, origin=SINGULAR)])
    variables |= _rate_variables(
        "untrained_rate", hits, n, "kind rater", "share of interpretable directions, untrained twin"
    )
    found = [_counted(rated.matched[rated.of(kind=kind, origin=SINGULAR)]) for kind in kinds]
    hits, n = (
        (np.array(column).reshape(hits.shape) for column in zip(*found, strict=True)) if found else (hits, n)
    )
    variables |= _rate_variables(
        "matched_rate", hits, n, "kind rater", "share of interpretable sets of tokens as frequent"
    )
    for name, what in (("rotations", "rotations"), ("matched", "other tokens as frequent")):
        above, p = _above(name, rated, kinds, settings)
        about = f"share of interpretable directions above that of {what}, by matrix"
        variables |= interval_variables(f"above_{name}", above, "kind rater", about)
        variables[f"above_{name}_p"] = quantity(
            np.stack([holm(column) for column in p.T], axis=1),
            "kind rater",
            "p of no difference, by Holm over kinds",
        )
    return variables


def _above(control: str, rated: Rated, kinds: Sequence[str], settings: Settings) -> tuple[Any, np.ndarray]:
    """Mean over matrices of the rate less that of a control, and p of the two pooled rates being one."""
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    intervals, p = [], np.full((len(kinds), len(ALL_RATERS)), np.nan)

    def pairs(rows: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        singular = rows[origin == SINGULAR]
        return rated.hits[singular], rated.matched[singular] if control == "matched" else rated.hits[
            rows[origin == ROTATED]
        ]

    for i, kind in enumerate(kinds):
        rows = rated.of(kind=kind)
        names = [
            f"{a} {b}"
            for a, b in zip(
                rated.rows.direction_layer.values[rows], rated.rows.direction_matrix.values[rows], strict=True
            )
        ]
        origin = rated.rows.origin.values[rows]
        differences = []
        for name in dict.fromkeys(names):
            here = np.array(names) == name
            pair = pairs(rows[here], origin[here])
            differences.append(
                np.subtract(
                    *(
                        np.array([*_means(part)]) if len(part) else np.full(len(ALL_RATERS), np.nan)
                        for part in pair
                    )
                )
            )
        intervals.append(mean(np.array(differences)))
        (hits, n), (other, m) = (_counted(part) for part in pairs(rows, origin))
        p[i] = [rate_difference_p(*map(int, four)) for four in zip(hits, n, other, m, strict=True)]
    return stacked(intervals), p


def _over_depth(
    rated: Rated, kinds: Sequence[str], n_layers: int, settings: Settings
) -> dict[str, xr.Variable]:
    """A line through the rates, what it leaves, and the last block beside the others; by Holm over kinds."""
    trends: list[list[Trend]] = []
    last = np.full((3, len(kinds), len(ALL_RATERS)), np.nan)
    last_p = np.full((len(kinds), len(ALL_RATERS)), np.nan)
    for i, kind in enumerate(kinds):
        layers = [
            _counted(rated.hits[rated.of(kind=kind, layer=layer, origin=SINGULAR)])
            for layer in range(n_layers)
        ]
        hits, n = (np.stack(column) for column in zip(*layers, strict=True))
        trends.append([rate_trend(hits[:, r], n[:, r], level=settings.level) for r in range(len(ALL_RATERS))])
        before = hits[:-1].sum(0), n[:-1].sum(0)
        known = (n[-1] > 0) & (before[1] > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where(known, hits[-1] / n[-1] - before[0] / before[1], np.nan)
        error = np.hypot(rate_error(hits[-1], n[-1]), rate_error(*before))
        last[:, i] = difference, difference - 1.96 * error, difference + 1.96 * error
        last_p[i] = [
            rate_difference_p(*map(int, four)) if ok else np.nan
            for ok, *four in zip(known, hits[-1], n[-1], *before, strict=True)
        ]

    def of(attribute: str) -> np.ndarray:
        return np.array([[getattr(trend, attribute) for trend in row] for row in trends]).reshape(
            last_p.shape
        )

    def adjusted(p: np.ndarray) -> np.ndarray:
        return np.stack([holm(column) for column in p.T], axis=1) if p.size else p

    dims = "kind rater"
    return {
        "slope": quantity(of("slope"), dims, "change of the rate from the first layer to the last"),
        "slope_low": quantity(of("low"), dims, "lower end of the interval"),
        "slope_high": quantity(of("high"), dims, "upper end of the interval"),
        "slope_p": quantity(adjusted(of("p")), dims, "p of no slope, by Holm over kinds"),
        "structure": quantity(of("structure"), dims, "chi-squared of what a straight line leaves"),
        "structure_freedom": quantity(of("freedom"), dims, "its degrees of freedom"),
        "structure_p": quantity(
            adjusted(of("structure_p")), dims, "p of as much left by chance, by Holm over kinds"
        ),
        "last_block": quantity(last[0], dims, "rate of the last block less that of the others"),
        "last_block_low": quantity(last[1], dims, "lower end of the interval"),
        "last_block_high": quantity(last[2], dims, "upper end of the interval"),
        "last_block_p": quantity(adjusted(last_p), dims, "p of no difference, by Holm over kinds"),
    }


def _spectra(rated: Rated, kinds: Sequence[str], n_layers: int) -> dict[str, xr.Variable]:
    together = np.full((len(kinds), n_layers), np.nan)
    for i, kind in enumerate(kinds):
        for layer in range(n_layers):
            rows = rated.of(kind=kind, layer=layer, origin=SINGULAR)
            keys = [
                f"{a} {b}"
                for a, b in zip(
                    rated.rows.direction_matrix.values[rows], rated.rows.subspace.values[rows], strict=True
                )
            ]
            if keys:
                _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
                together[i, layer] = (counts[inverse] > 1).mean()
    return {"near_equal": quantity(together, "kind layer", "share of directions with a near-equal neighbour")}


def _kept(rated: Rated, settings: Settings) -> xr.Dataset:
    """Every direction and rotation as it was rated."""
    rows = rated.rows
    kept = rows[["rank", "scale", "gap", "subspace", "top_token", "strength"]]
    padded = np.full((*rows.coherence.shape[:2], 1), np.nan, np.float32)
    coherence = np.concatenate([rows.coherence.values, padded], axis=2)
    return kept.drop_vars("rater", errors="ignore").assign(
        coherence=quantity(coherence, "direction sign rater", "mean pairwise cosine of the tokens at an end"),
        interpretable=quantity(
            rated.hits, "direction rater", "1 where a rater calls the direction interpretable"
        ),
    )


def _cautions(stages: Earlier, settings: Settings) -> list[str]:
    cautions = list(read_json(stages["vocabulary"], "cautions", []))
    lacks = stages["directions"]
    for part, why in dict.fromkeys(
        zip(lacks.lack_part.values.tolist(), lacks.lack_why.values.tolist(), strict=True)
    ):
        here = (lacks.lack_part.values == part) & (lacks.lack_why.values == why)
        layers = lacks.lack_layer.values[here]
        few = f"{', '.join(map(str, layers[:6]))}{' ...' if len(layers) > 6 else ''}"
        cautions.append(f"{part} left out in {len(layers)} blocks ({few}): {why}")
    return cautions


def rate_over_layers(result: xr.Dataset) -> xr.Dataset:
    """`value`, `low`, `high`, `null` and `n` over layers, all kinds together, by the headline's rater."""
    rater = read_json(result, "rate_by")
    here = result.sel(rater=rater)
    n = here.rate_n.values.sum(axis=0)
    hits = np.nansum(here.rate.values * here.rate_n.values, axis=0).round().astype(np.int64)
    chance = np.nansum(here.random_rate.values[:, None] * here.rate_n.values, axis=0) / np.maximum(n, 1)
    columns = _rate_variables("value", hits, n, "layer", f"share of interpretable directions ({rater})")
    return xr.Dataset(
        {
            "value": columns["value"],
            "low": columns["value_low"],
            "high": columns["value_high"],
            "null": quantity(
                np.where(n > 0, chance, np.nan), "layer", "share of interpretable random directions"
            ),
            "n": columns["value_n"],
        },
        coords={"layer": result.layer},
    )
