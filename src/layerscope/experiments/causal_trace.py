"""Which states carry the subject's information to the answer, and where does it cross to the last token?

The subject's tokens are blurred by noise (or replaced by another subject's), so that the model loses the
answer. Then, for every token and every depth, the clean state is put back there alone, and the answer is
read again: recovery is 0 where that changes nothing and 1 where it brings the clean value back. Early
in depth the noised tokens' own states do it; late, the last token's. The transition layer is the depth
where the two rows change places for the last time. Where several tokens are noised, their row restores
them together, so that it starts at 1 for every prompt.

If asked for, the same is done with what attention and MLPs add, over a window of blocks; with a token's MLPs
or attention severed, which tells whether a state works through them; with single heads; with each token of
the subject noised alone; at several noise levels; and in the other direction, noised states in the
clean run. A screen by gradients can be laid beside it, and what it misses measured. Everything is run
as branches, computed only where it can differ.

Every draw is kept. Draws are averaged before the ratio, prompts last, with bootstrap intervals
over prompts. Prompts that the model gets wrong are left out and listed, and so are prompts on which
noise changes too little for a ratio to mean anything.

Beware: noise takes the model off the text that it was trained on; a restored state that recovers the
answer is sufficient in this setting, which does not make it the place where a fact is stored (Hase et
al. 2023); probability hides states that speak against the answer (Zhang & Nanda 2023); and windows
of several blocks show higher peaks than their blocks one by one.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2"; Meng et al. 2022, "Locating and Editing
Factual Associations in GPT", section 2 and appendix B.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from layerscope.experiments import (
    _trace_claims,
    _trace_figures,
    _trace_items,
    _trace_measures,
    _trace_screen,
    _tracing,
)
from layerscope.experiments._contract import Claim, Earlier, Stage
from layerscope.experiments._summaries import as_curve
from layerscope.experiments._trace_settings import Settings

TAKES = {"prompts"}

__all__ = ["STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

STAGES = (
    Stage("clean", items=_trace_items.clean_items, measure=_trace_measures.clean),
    Stage("pilot", items=_trace_items.pilot_items, measure=_trace_measures.pilot),
    Stage("noised", items=_trace_items.noised_items, measure=_trace_measures.noised),
    Stage("trace", items=_trace_items.trace_items, measure=_trace_measures.trace),
    Stage(
        "outputs", items=_trace_items.output_items, measure=_trace_measures.outputs, along=("output_token",)
    ),
    Stage(
        "severed", items=_trace_items.severed_items, measure=_trace_measures.severed, along=("severed_token",)
    ),
    Stage("heads", items=_trace_items.head_items, measure=_trace_measures.heads, along=("head_token",)),
    Stage(
        "one by one",
        items=_trace_items.one_by_one_items,
        measure=_trace_measures.one_by_one,
        along=("subject_token",),
    ),
    Stage("doses", items=_trace_items.dose_items, measure=_trace_measures.doses),
    Stage("screen", items=_trace_screen.items, measure=_trace_screen.measure, along=("screened",)),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Recovery, rows by category, transitions and contrasts, from the saved samples alone."""
    return _tracing.conclude(stages, settings, noise_sd=_trace_items.noise_sd(stages["clean"], settings))


def claims(result: xr.Dataset) -> list[Claim]:
    """When each category crosses, which categories differ, and how much takes another way."""
    return _trace_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Recovery at the last token over depth, all prompts together; its null is that of tokens beside the way."""
    rows = as_curve(result, "overall_recovery")
    curve = rows.sel(row="last token").drop_vars("row")
    return curve.assign(null=rows.value.sel(row="other tokens").drop_vars("row"))


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Rows by category, transitions, contrasts, and every prompt's own trace."""
    return _trace_figures.draw(result)
