"""In which order categories of prompts are told: the one whose answer is settled last comes first."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence.groups import PROMPT, groups_named
from layerscope.results.escaping import stored


def latest_first(result: xr.Dataset) -> list[str]:
    """Groups of prompts by the depth at which the first lens has their answers settled, unknown ones last."""
    groups = groups_named(result, PROMPT)
    depths = [float(result.settled.isel(lens=0).sel(group=stored(group))) for group in groups]
    return [groups[place] for place in np.argsort(-np.nan_to_num(depths, nan=-np.inf), kind="stable")]
