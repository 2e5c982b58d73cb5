"""From every direction's rating to rates by kind and layer, their controls, and what they do over depth."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.errors import LayerscopeError
from layerscope.evidence import layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments.weight_directions.conclude.asked import conversation, named_tokens, search
from layerscope.experiments.weight_directions.conclude.character import character
from layerscope.experiments.weight_directions.conclude.depth import depth_variables, over_depth, with_sinks
from layerscope.experiments.weight_directions.conclude.pairs import pair_summary
from layerscope.experiments.weight_directions.conclude.rated import ALL_RATERS, Rated
from layerscope.experiments.weight_directions.conclude.rates import controls, near_equal_shares, rates
from layerscope.experiments.weight_directions.conclude.removals import removals
from layerscope.experiments.weight_directions.items.power import headline, power_variables
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.results.schema import quantity, read_json, write_json

__all__ = ["conclude", "over_depth"]


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Rates by kind and layer with their controls, character, subspaces, removals, and every direction's tokens."""
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
    variables |= rates(rated, kinds, n_layers)
    variables |= controls(rated, stages, settings, kinds)
    variables |= depth_variables(rated, kinds, n_layers, settings)
    variables |= with_sinks(rated, kinds, n_layers, stages.get("sinks"), settings)
    variables |= near_equal_shares(rated, kinds, n_layers)
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
        "no layer of this model has a matrix whose directions were asked for",
        found="; ".join(reasons) or f"nothing of {', '.join(settings.kinds)}",
        expected="attention or MLPs between linear maps",
        hint="a transformer such as gpt2, or other kinds",
    )


_COUNTED = {
    "direction": "direction, singular or rotated",
    "together": "subspace of near-equal singular values",
    "lack": "part of a layer that was left out",
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


def _kept(rated: Rated, settings: Settings) -> xr.Dataset:
    """Every direction and rotation as it was rated."""
    rows = rated.rows
    kept = rows[["rank", "scale", "gap", "subspace", "top_token", "strength"]]
    padded = np.full((*rows.coherence.shape[:2], 1), np.nan, np.float32)
    coherence = np.concatenate([rows.coherence.values, padded], axis=2)
    return kept.drop_vars("rater", errors="ignore").assign(
        coherence=quantity(coherence, "direction sign rater", "mean pairwise cosine of the tokens at an end"),
        interpretable=quantity(rated.hits, "direction rater", "1 where a rater calls the direction coherent"),
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
        cautions.append(f"{part} left out in {len(layers)} layers ({few}): {why}")
    return cautions
