"""Do layers fall into phases, by everything that is measured of the state's path together?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import Finding, finding, settings_of, supported, text_coordinate
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.maths.bootstrap import resampled_counts
from layerscope.maths.change_points import phases_in_resamples, standardised
from layerscope.results.schema import quantity

CURVES = {
    "growth": "growth of the norm",
    "relative_step": "relative step",
    "step_direction": "step against the state",
    "attention_share": "share of attention",
    "attention_direction": "attention against the state",
    "mlp_direction": "MLP against the state",
}
_FEWEST_LAYERS = 4


def phase_variables(
    per_unit: Mapping[str, np.ndarray], settings: Settings, coords: dict[str, Any]
) -> dict[str, xr.Variable]:
    """The standardised curves, where phases begin with intervals, and how sure it is that there are any.

    Every curve is standardised over layers, so that each counts alike; curves that are not known on this
    model are left out. Passages are resampled whole and the curves cut anew each time: into as many
    phases as the data have for the intervals, and freely for the share of resamples in which phases
    describe the curves better than a line or a parabola.

    Args:
        per_unit: quantities by name, [passage depth or layer], logarithms of lengths and ratios.
        settings: of the experiment.
        coords: gets the coordinates of new dimensions.
    """
    curves = {"growth": np.diff(per_unit["norm"], axis=1)} | {
        name: per_unit[name] for name in CURVES if name != "growth"
    }
    curves = {name: curves[name] for name in CURVES if _usable(curves[name])}
    if not curves or next(iter(curves.values())).shape[1] < _FEWEST_LAYERS:
        return {}
    units = np.stack(list(curves.values()), axis=-1)  # [passage layer curve]
    units = units[~np.isnan(units).any(axis=(1, 2))]
    if not len(units):
        return {}
    signal = standardised(units.mean(axis=0))
    again = phases_in_resamples(
        signal,
        standardised(_resampled(units, settings)),
        units=len(units),
        level=settings.level,
        most=_most_changes(len(signal), settings),
    )
    found = again.found
    coords["phase_curve"] = text_coordinate([CURVES[name] for name in curves], "phase_curve", "curve")
    coords["change"] = xr.Variable(
        ("change",), np.arange(len(found.changes)), {"long_name": "change of phase"}
    )
    return {
        "phase_signal": quantity(signal.T, "phase_curve layer", "standardised over layers", "SD"),
        "phase_better": quantity(again.better, "", "share of resamples in which phases beat a smooth drift"),
        "phase_explained": quantity(
            found.explained if found.changes else 0.0, "", "share of the curves' variance that phases explain"
        ),
    } | interval_variables("phase_begins", again.begins, "change", "layer at which a phase begins", "layer")


def drift_beaten(result: xr.Dataset) -> Finding:
    """The share of resamples in which phases beat a smooth drift; significant from 95 % on."""
    share = finding(result, "phase_better", unit="share", units="passages", n=("growth_rate_n",))
    found = supported(share, settings_of(result).get("phase_resamples", 200))
    return replace(found, beyond=bool(result.sizes["change"]))


def _usable(values: np.ndarray) -> bool:
    known = ~np.isnan(values).all(axis=1)
    return bool(known.any()) and not np.isnan(values[known]).any()


def _most_changes(layers: int, settings: Settings) -> int:
    """At most half as many phases as layers: a stretch of one layer each is no phase, and fits any curve."""
    return min(settings.most_changes, layers // 2 - 1)


def _resampled(units: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean curves [resample layer curve] over passages drawn anew."""
    counts = resampled_counts(len(units), seed=settings.seed, resamples=settings.phase_resamples)
    return np.tensordot(counts, units, axes=1) / len(units)
