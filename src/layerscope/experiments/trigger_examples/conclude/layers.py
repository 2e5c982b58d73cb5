"""From keys to layers, to the halves of the model, and to the whole of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from layerscope.evidence import Over, along, layer_coordinate, named, text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.trigger_examples.conclude.keys import SHARED, numbers_shown
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.bootstrap import Interval, bootstrap_difference
from layerscope.maths.permutation import holm, least_p_of_splits, permutation_difference
from layerscope.maths.ratios import known_mean
from layerscope.results.schema import quantity

_DRAWN = ("mean_shared_last_token", "mean_kept_without_last", "mean_agreement")
"""Of which bootstrap replicates are kept, for `over_depth`."""


def layer_numbers(keys: xr.Dataset, n_layers: int, settings: Settings) -> xr.Dataset:
    """Means over the keys of each layer with intervals; and each number of last tokens that is kept."""
    radius = keys.context_radius
    within = (radius <= keys.kept_tokens).where(radius.notnull())
    numbers = [
        named(keys[name], f"mean_{name}", f"{what}, mean over keys")
        for name, what in numbers_shown(settings).items()
    ]
    return _by_layer(
        keys,
        [
            *numbers,
            named(within, "mean_within", "share of keys whose radius is at most so many tokens"),
            named(keys.kept, "mean_kept", "share of the activation kept by the last tokens, mean over keys"),
        ],
        n_layers,
        settings,
    )


def _by_layer(
    keys: xr.Dataset, numbers: Sequence[xr.DataArray], n_layers: int, settings: Settings
) -> xr.Dataset:
    """Means over the keys of each layer: each layer has keys of its own."""
    found = []
    for layer in range(n_layers):
        rows = np.flatnonzero(keys.key_layer.values == layer)
        over = Over(keys.isel(key=rows), settings, rows="key")
        found.append(xr.merge([over.mean(one.isel(key=rows), draws=one.name in _DRAWN) for one in numbers]))
    together = xr.concat(
        found,
        "layer",
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="override",
    )
    for name in (f"{one}_draws" for one in _DRAWN if f"{one}_draws" in together):
        together[name] = together[name].transpose("draw", "layer")
    return together.assign_coords(layer=layer_coordinate(n_layers))


def null_numbers(
    keys: xr.Dataset, n_layers: int, sets: Mapping[str, np.ndarray], settings: Settings
) -> xr.Dataset:
    """What random sets share, and whether the keys of a layer share more: p by permutation, Holm over layers."""
    variables: dict[str, xr.Variable] = {}
    for name, long_name in SHARED.items():
        chance = sets[name][~np.isnan(sets[name])]
        null = np.full(n_layers, chance.mean() if chance.size else np.nan)
        variables[f"null_{name}"] = quantity(null, "layer", f"{long_name}, random contexts")
        variables |= _beyond_random_sets(name, keys, chance, n_layers, settings)
    expected = named(
        keys.agreement_expected, "null_agreement", "agreement with any token of the corpus, mean over keys"
    )
    return xr.Dataset(variables).assign(
        null_agreement=_by_layer(keys, [expected], n_layers, settings).null_agreement.variable
    )


def _beyond_random_sets(
    name: str, keys: xr.Dataset, chance: np.ndarray, n_layers: int, settings: Settings
) -> dict[str, xr.Variable]:
    of_layers = [keys[name].values[keys.key_layer.values == layer] for layer in range(n_layers)]
    how = {"seed": settings.seed, "resamples": settings.permutations}
    tests = [permutation_difference(values, chance, **how) for values in of_layers]
    p = np.array([test.p for test in tests])
    least = np.array([_least_p(test.n_a, test.n_b, settings) for test in tests])
    what = "p that keys differ from random sets in this"
    return {
        f"p_adjusted_{name}": quantity(holm(p), "layer", f"{what}, Holm over layers: {name}"),
        f"mean_{name}_least_p": quantity(least, "layer", f"smallest {what} that was possible"),
        f"mean_{name}_least_p_adjusted": quantity(
            np.minimum(1, least * np.isfinite(p).sum()),
            "layer",
            f"smallest adjusted {what} that was possible",
        ),
    }


def _least_p(n: int, m: int, settings: Settings) -> float:
    return least_p_of_splits(n, m, resamples=settings.permutations)


HALVES = ("shared_last_token", "coherence", "kept_without_last", "local", "agreement")


def halves(keys: xr.Dataset, n_layers: int, settings: Settings) -> xr.Dataset:
    """The upper half of the layers less the lower half, with Holm's correction over what is compared."""
    upper = keys.key_layer.values >= n_layers / 2
    groups = [
        tuple(keys[name].values[half].astype(np.float64) for half in (upper, ~upper)) for name in HALVES
    ]
    tests = [
        permutation_difference(a, b, seed=settings.seed, resamples=settings.permutations) for a, b in groups
    ]
    p, least = (
        np.array([test.p for test in tests]),
        np.array([_least_p(test.n_a, test.n_b, settings) for test in tests]),
    )
    spans = stacked([_difference(a, b, settings) for a, b in groups])
    variables = interval_variables(
        "halves", spans, "statistic", "upper half of the layers less the lower half"
    ) | {
        "halves_p_adjusted": quantity(
            holm(p), "statistic", "p by permutation of keys, Holm over the statistics"
        ),
        "halves_least_p": quantity(least, "statistic", "smallest p that was possible"),
        "halves_least_p_adjusted": quantity(
            np.minimum(1, least * np.isfinite(p).sum()), "statistic", "smallest adjusted p that was possible"
        ),
    }
    for side, name in enumerate(("upper_half", "lower_half")):
        means = [float(known_mean(group[side])) for group in groups]
        half = name.replace("_", " ")
        variables[name] = quantity(np.array(means), "statistic", f"mean over keys, {half}")
        known = [int(np.isfinite(group[side]).sum()) for group in groups]
        variables[f"halves_n_{name.removesuffix('_half')}"] = quantity(
            np.array(known), "statistic", f"keys that have a value, {half}"
        )
    return xr.Dataset(
        variables, coords={"statistic": text_coordinate(HALVES, "statistic", "what is compared")}
    )


def _difference(a: np.ndarray, b: np.ndarray, settings: Settings) -> Interval:
    if not min(len(a), len(b)):
        unknown = np.array(np.nan)
        return Interval(unknown, unknown, unknown, np.array(0))
    return bootstrap_difference(a, b, seed=settings.seed, level=settings.level, resamples=settings.resamples)


def whole_model(keys: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Means over all keys, and agreement beyond what frequency gives."""
    over = Over(keys, settings, rows="key")
    beyond = named(
        keys.agreement - keys.agreement_expected,
        "all_agreement_beyond_frequency",
        "agreement less the frequency of the token that the value raises most, mean over all keys",
    )
    return xr.merge(
        [
            *(
                over.mean(named(keys[name], f"all_{name}", f"{what}, mean over all keys"))
                for name, what in numbers_shown(settings).items()
            ),
            over.mean(beyond),
        ]
    )


def census_numbers(census: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Shares over census passages, for each layer, with intervals over passages."""
    over = Over(census, settings, rows="passage")
    shares = [
        named(census[name], f"mean_{name}", f"{census[name].attrs['long_name']}, mean over passages")
        for name in ("active_share", "effective_share", "unmatched_share", "unmatched_by_chance")
    ]
    whole = named(
        along("layer", known_mean, census.unmatched_share),
        "all_unmatched_share",
        "share of outputs whose top token no active value has, mean over layers and passages",
    )
    exists = np.isfinite(census.highest.values)
    live = ((census.highest.values > 0) & exists).sum(axis=1) / exists.sum(axis=1)
    return xr.merge(
        [over.mean(one, draws=one.name == "mean_active_share") for one in (*shares, whole)]
    ).assign(live_share=quantity(live, "layer", "share of keys that are ever above 0 in the census"))
