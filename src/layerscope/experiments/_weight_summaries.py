"""From every direction's rating to rates by kind and layer, their controls, and what they do over depth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments._weight_character import character, conversation, named_tokens, removals, search
from layerscope.experiments._weight_depth import depth_variables, with_sinks
from layerscope.experiments._weight_pairs import pair_summary
from layerscope.experiments._weight_power import headline, power_variables
from layerscope.experiments._weight_rated import ALL_RATERS, Rated, counted, means, rate_variables
from layerscope.experiments._weight_settings import (
    KNOWN_SET,
    MATCHED_SET,
    RANDOM,
    ROTATED,
    SINGULAR,
    UNRELATED,
    WRITES,
    Settings,
)
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.permutation import holm
from layerscope.maths.trend import rate_difference_p
from layerscope.results.schema import quantity, read_json, write_json


def concluded(stages: Earlier, settings: Settings) -> xr.Dataset:
    """See `weight_directions.conclude`."""
    directions, answers = stages["directions"], stages["answers"]
    power = power_variables(stages["power"], stages["random"], settings)
    rater, able = headline(power, settings)
    rated = Rated(directions, stages["random"], stages["power"], settings, answers)
    found = set(directions.direction_kind.values.tolist())
    kinds = [kind for kind in settings.kinds if kind in found]
    if not kinds:
        _refuse_nothing(directions, settings)
    n_layers = int(stages["vocabulary"].attrs["n_layers"])
    variables: dict[str, Any] = {}
    variables |= _rates(rated, kinds, n_layers)
    variables |= _controls(rated, stages, settings, kinds)
    variables |= depth_variables(rated, kinds, n_layers, settings)
    variables |= with_sinks(rated, kinds, n_layers, stages.get("sinks"), settings)
    variables |= _spectra(rated, kinds, n_layers)
    result = xr.Dataset(
        variables,
        coords={
            "kind": text_coordinate(kinds, "kind", "what a direction is of"),
            "layer": layer_coordinate(n_layers),
            "rater": text_coordinate(list(ALL_RATERS), "rater", "who says whether tokens are coherent"),
        },
    )
    pieces = [
        result,
        _kept(rated, settings),
        character(rated, stages["vocabulary"], kinds, n_layers, settings, rater),
        removals(stages["edits"], settings),
        search(rated, settings, stages["vocabulary"]),
        directions[[n for n in directions.variables if str(n).startswith(("together", "lack"))]],
        pair_summary(directions, stages["vocabulary"], n_layers, settings),
        conversation(answers),
        power.reindex(rater=list(ALL_RATERS)),
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
        tokens_as=settings.tokens_as,
        rate_by=rater,
        rater_may_rate=settings.rater != "auto" or bool(able),
        tokens_by=settings.tokens_by,
        naming_prompt=read_json(answers, "naming_prompt", ""),
        choosing_prompt=read_json(answers, "choosing_prompt", ""),
        search=settings.search,
        level=settings.level,
    )


def _refuse_nothing(directions: xr.Dataset, settings: Settings) -> NoReturn:
    named = zip(directions.lack_part.values.tolist(), directions.lack_why.values.tolist(), strict=True)
    reasons = dict.fromkeys(f"{part}: {why}" for part, why in named)
    raise LayerscopeError(
        "no block of this model has a matrix whose directions were asked for",
        found="; ".join(reasons) or f"nothing of {', '.join(settings.kinds)}",
        expected="attention or MLPs between linear maps",
        hint="a transformer such as gpt2, or other kinds",
    )


_COUNTED = {
    "direction": "direction, singular or rotated",
    "together": "subspace of near-equal singular values",
    "lack": "part of a block that was left out",
    "pair": "pair of tokens that a head joins",
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
                hits[i, layer], n[i, layer] = counted(
                    rated.hits[rated.of(kind=kind, layer=layer, origin=origin)]
                )
        variables |= rate_variables(name, hits, n, "kind layer rater", what)
        if name == "rate":
            chance = _chance(rated, kinds)[:, None]
            variables |= rate_variables(
                "lift",
                hits,
                n,
                "kind layer rater",
                "share of interpretable directions above that of random ones",
                less=chance,
            )
        variables |= rate_variables(
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
        made = twin.isel(direction=np.isin(twin.origin.values, (KNOWN_SET, MATCHED_SET, UNRELATED)))
        singular = twin.isel(direction=twin.origin.values == SINGULAR)
        of_twin = Rated(singular, twin.isel(direction=random), made, settings, xr.Dataset())
        for i, kind in enumerate(kinds):
            hits[i], n[i] = counted(of_twin.hits[of_twin.of(kind=kind, origin=SINGULAR)])
    variables |= rate_variables(
        "untrained_rate", hits, n, "kind rater", "share of interpretable directions, untrained twin"
    )
    found = [counted(rated.matched[rated.of(kind=kind, origin=SINGULAR)]) for kind in kinds]
    hits, n = (
        (np.array(column).reshape(hits.shape) for column in zip(*found, strict=True)) if found else (hits, n)
    )
    variables |= rate_variables(
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
                        np.array([*means(part)]) if len(part) else np.full(len(ALL_RATERS), np.nan)
                        for part in pair
                    )
                )
            )
        intervals.append(mean(np.array(differences)))
        (hits, n), (other, m) = (counted(part) for part in pairs(rows, origin))
        p[i] = [rate_difference_p(*map(int, four)) for four in zip(hits, n, other, m, strict=True)]
    return stacked(intervals), p


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
