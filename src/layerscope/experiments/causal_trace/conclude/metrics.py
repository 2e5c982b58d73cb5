"""The metric that was traced, by its own name: never \"the metric\"."""

from __future__ import annotations

import xarray as xr

from layerscope.evidence import settings_of

_METRICS = {
    "probability": ("the answer's probability", "1"),
    "log_probability": ("the answer's log-probability", "nat"),
    "logit_difference": ("the logit difference", "1"),
    "kl": ("minus the KL divergence from the clean run", "nat"),
}


def metric_of(result: xr.Dataset) -> tuple[str, str]:
    """The metric that was traced, as sentences name it, and its unit."""
    asked = str(settings_of(result).get("metric", "probability"))
    return _METRICS.get(asked, (f"the metric {asked.partition(':')[2]}", "1"))
