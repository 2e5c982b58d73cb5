"""From lengths to their growth per layer, with intervals over passages."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, along, cell_by_cell, measure, named
from layerscope.maths.path import growth_rate
from layerscope_state_growth.settings import Settings


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Mean log norm at each depth, and mean growth per layer."""
    every = stages["lengths"]
    kept = every.isel(token=(every.position >= settings.first_position).values)
    over = Over(kept, settings, rows="token_passage")  # passages, not tokens, are independent
    ends = settings.leave_out_ends
    rate = partial(growth_rate, first=ends, last=kept.sizes["depth"] - 1 - ends)
    growth = cell_by_cell(np.expm1, over.units(along("depth", rate, kept.norm)))
    return xr.merge(
        [
            over.mean(
                named(cell_by_cell(np.log, kept.norm), "log_norm", "log of the state's norm"), draws=True
            ),
            over.paired(named(growth, "growth", "growth of the state per layer", "share")),
        ]
    ).assign_attrs(passages=over.n)


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """What the report lays beside other experiments, depth by depth."""
    return {
        "log_norm": measure(
            result, "log_norm", label="norm of the state", sense="states are long", questions="state"
        )
    }
