"""Rates of coherent directions over depth: a line, what it leaves, and the last layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.evidence import measure
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.weight_directions.conclude.rated import ALL_RATERS, Rated, counted, rate_variables
from layerscope.experiments.weight_directions.settings import ATTENTION, KINDS, SINGULAR, Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.permutation import holm
from layerscope.maths.trend import Trend, goes_with, rate_difference_interval, rate_difference_p, rate_trend
from layerscope.results.schema import quantity, read_json

_STRETCHES = 6
"""Into about so many stretches the layers are cut, whose order stands for chance."""


def depth_variables(
    rated: Rated, kinds: Sequence[str], n_layers: int, settings: Settings
) -> dict[str, xr.Variable]:
    """A line through the rates, what it leaves, and the last layer beside the others; by Holm over kinds."""
    trends: list[list[Trend]] = []
    last = np.full((3, len(kinds), len(ALL_RATERS)), np.nan)
    last_p = np.full((len(kinds), len(ALL_RATERS)), np.nan)
    for i, kind in enumerate(kinds):
        layers = [
            counted(rated.hits[rated.of(kind=kind, layer=layer, origin=SINGULAR)])
            for layer in range(n_layers)
        ]
        hits, n = (np.stack(column) for column in zip(*layers, strict=True))
        trends.append([rate_trend(hits[:, r], n[:, r], level=settings.level) for r in range(len(ALL_RATERS))])
        before = hits[:-1].sum(0), n[:-1].sum(0)
        known = (n[-1] > 0) & (before[1] > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where(known, hits[-1] / n[-1] - before[0] / before[1], np.nan)
        ends = [
            rate_difference_interval(*map(int, four), level=settings.level)
            for four in zip(hits[-1], n[-1], *before, strict=True)
        ]
        last[:, i] = difference, *np.array(ends).T
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
        "last_block": quantity(last[0], dims, "rate of the last layer less that of the others"),
        "last_block_low": quantity(last[1], dims, "lower end of the interval"),
        "last_block_high": quantity(last[2], dims, "upper end of the interval"),
        "last_block_p": quantity(adjusted(last_p), dims, "p of no difference, by Holm over kinds"),
    }


def with_sinks(
    rated: Rated, kinds: Sequence[str], n_layers: int, sinks: xr.Dataset | None, settings: Settings
) -> dict[str, xr.Variable]:
    """Whether rates go with attention to the first token over layers; by Holm over kinds."""
    if sinks is None or "first_token_share" not in sinks or not sinks.sizes.get("sink_text"):
        return {}
    mean = bootstrap_mean(
        sinks.first_token_share.values, seed=settings.seed, level=settings.level, resamples=settings.resamples
    )
    block = max(1, round(n_layers / _STRETCHES))
    found = np.full((2, len(kinds), len(ALL_RATERS)), np.nan)
    for i, kind in enumerate(kinds):
        layers = [
            counted(rated.hits[rated.of(kind=kind, layer=at, origin=SINGULAR)]) for at in range(n_layers)
        ]
        hits, n = (np.stack(column) for column in zip(*layers, strict=True))
        rates = np.where(n > 0, hits / np.maximum(n, 1), np.nan)
        for r in range(len(ALL_RATERS)):
            found[:, i, r] = goes_with(rates[:, r], mean.value[:n_layers], block=block, seed=settings.seed)
    p = np.stack([holm(column) for column in found[1].T], axis=1) if kinds else found[1]
    variables = interval_variables(
        "sink", mean, "layer", "attention to the first token, mean over heads and texts"
    )
    return variables | {
        "with_sink": quantity(
            found[0], "kind rater", "rank correlation of the rate with attention to the first token"
        ),
        "with_sink_p": quantity(p, "kind rater", "p by orders of stretches of layers, by Holm over kinds"),
    }


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Coherent directions in each layer by the headline's rater: of all kinds, and of attention and MLPs apart."""
    parts = {
        "all": KINDS,
        "attention": ATTENTION,
        "mlp": tuple(kind for kind in KINDS if kind not in ATTENTION),
    }
    kind_of = {"all": "", "attention": "attention ", "mlp": "MLP "}
    found = {}
    for part, kinds in parts.items():
        if here := [kind for kind in kinds if kind in result.kind.values]:
            rate = _rate_over_layers(result.sel(kind=here))
            said = {"all": "weights", "attention": "attention weights", "mlp": "MLP weights"}[part]
            found["coherent_directions" if part == "all" else f"coherent_directions_{part}"] = measure(
                rate,
                "rate",
                label=f"coherent {kind_of[part]}directions",
                sense=f"leading directions of {said} mostly have top tokens that are alike",
                questions="weights",
                null=rate.random,
            )
    return found


def _rate_over_layers(result: xr.Dataset) -> xr.Dataset:
    """The rate over layers, all kinds together, and that of random directions."""
    rater = str(read_json(result, "rate_by"))
    here = result.sel(rater=rater)
    # Without a rater that sees known sets there is no rate to tell.
    n = here.rate_n.values.sum(axis=0) * bool(read_json(result, "rater_may_rate", True))
    hits = np.nansum(here.rate.values * here.rate_n.values, axis=0).round().astype(np.int64) * (n > 0)
    chance = np.nansum(here.random_rate.values[:, None] * here.rate_n.values, axis=0) / np.maximum(n, 1)
    what = "share of coherent directions"
    random = quantity(np.where(n > 0, chance, np.nan), "layer", "share of coherent random directions")
    return xr.Dataset(
        rate_variables("rate", hits, n, "layer", f"{what} ({rater})") | {"random": random},
        coords={"layer": result.layer},
    )
