"""What a lens shows, in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_rows, level_of, text_coordinate
from layerscope.evidence.groups import ALL_PROMPTS, PASSAGES, PROMPT, TOKEN, groups_named
from layerscope.experiments.logit_lens.conclude.curves import CURVES, SURPRISAL, curve, surprisal
from layerscope.experiments.logit_lens.figures.direct import direct_figures
from layerscope.experiments.logit_lens.figures.shown import TABLE, shown_figures
from layerscope.plots import curve_over_depth, differences, distribution, leading
from layerscope.results.escaping import restored, stored

_MOST_GROUPS = 6
_LEAD = (TABLE, "When does the answer become probable?", "Which layers write the answer?")
_LEAD_OF_PASSAGES = ("When does the final choice become probable?", "How far is each depth from the end?")


def draw(result: xr.Dataset) -> dict[str, Any]:
    """The table of some prompts, when the answer becomes probable and who writes it; the rest for who wants more."""
    figures = shown_figures(result)
    if ALL_PROMPTS in result.group.values:
        figures |= _of_prompts(result)
    figures |= direct_figures(result)
    if PASSAGES in result.group.values:
        figures |= _of_passages(result)
    return leading(figures, _LEAD if figures.keys() & set(_LEAD) else _LEAD_OF_PASSAGES)


def _band(result: xr.Dataset, group: str) -> str:
    n = int(curve(result, group, "kl").n.max())
    return f"Mean over {n} {group}, {level_of(result):.0%} bootstrap bands."


def _of_passages(result: xr.Dataset) -> dict[str, Any]:
    band = _band(result, PASSAGES)
    lenses = [str(lens) for lens in result.lens.values]
    average = float(result.kl_to_average.sel(group=PASSAGES))
    kl = _lines(result, {lens: (PASSAGES, "kl", lens) for lens in lenses}, *CURVES["kl"])
    null = xr.full_like(kl.value.isel(row=0, drop=True), average).assign_attrs(name="average prediction")
    read = {
        "final choice": "log_probability",
        "next token": "next_log_probability",
        "another position's": "other_log_probability",
    }
    answers = {
        label if len(lenses) == 1 else f"{label} ({lens.split()[0]})": (PASSAGES, name, lens)
        for lens in lenses
        for label, name in read.items()
    }
    kinds = groups_named(result, TOKEN)[:_MOST_GROUPS]
    return {
        "How far is each depth from the end?": curve_over_depth(
            kl.assign(null=null),
            log=True,
            caption=f"Dashed: the average of what other positions predict. {band} Below it a depth knows something of "
            "its own token's prediction; at the last depth the divergence is 0, which a log axis does not hold.",
        ),
        "When does the final choice become probable?": curve_over_depth(
            _lines(result, answers, *SURPRISAL),
            log=True,
            caption=f"Surprisal 0.7 is a probability of 1/2, 7 of 1/1,000. {band} Look for the depth at which the "
            "final choice falls below the null, another position's choice.",
        ),
        "How often does the final choice lead?": curve_over_depth(
            _lines(result, {lens: (PASSAGES, "leads", lens) for lens in lenses}, *CURVES["leads"]),
            caption=band,
        ),
        "Divergence from the end, by category of token": curve_over_depth(
            _lines(
                result, {kind.removeprefix(TOKEN): (kind, "kl", lenses[0]) for kind in kinds}, *CURVES["kl"]
            ),
            log=True,
            caption=f"The token at which the lens reads what comes next. {band}",
        ),
    }


def _of_prompts(result: xr.Dataset) -> dict[str, Any]:
    band = _band(result, ALL_PROMPTS)
    filled = [group for group in groups_named(result, PROMPT) if int(curve(result, group, "kl").n.max())][
        :_MOST_GROUPS
    ]
    if not filled:
        return {}
    figures: dict[str, Any] = {}
    reads = {
        "probability": " Where a line rises, the answer stands in a form that the unembedding reads.",
        "log_rank": " Rank 1 is the top token.",
    }
    titles = {
        "probability": "When does the answer become probable?",
        "log_rank": "When does the answer rise to rank 1?",
        "kl": "How far is each category from the end?",
    }
    for lens in map(str, result.lens.values):
        for name, title in titles.items():
            wanted = {group.removeprefix(PROMPT): (group, name, lens) for group in filled}
            heading = title if lens == "logit lens" else f"{title[:-1]} ({lens})?"
            figures[heading] = curve_over_depth(
                _lines(result, wanted, *CURVES[name]),
                log=name in ("log_rank", "kl"),
                caption=band + reads.get(name, ""),
            )
    figures |= _settled(result, filled)
    compared = result.isel(contrast=np.flatnonzero(np.isfinite(result.p_adjusted.values)))
    if compared.sizes["contrast"]:
        columns = {
            "difference": "difference",
            "low": "difference_low",
            "high": "difference_high",
            "p_adjusted": "p_adjusted",
        }
        figures["Do categories differ in settled depth?"] = differences(
            xr.Dataset({name: compared[of].reset_coords(drop=True) for name, of in columns.items()}),
            caption="Permutation over prompts, Holm's correction over pairs.",
        )
    return figures


def _settled(result: xr.Dataset, filled: list[str]) -> dict[str, Any]:
    groups = [stored(group) for group in filled]
    names = [stored(group.removeprefix(PROMPT)) for group in filled]
    kept = np.flatnonzero(result.prompt_left_out_because.values == "")
    order = {name: place for place, name in enumerate(names)}  # each category has one colour in all figures
    places = sorted(kept, key=lambda place: order.get(str(result.prompt_category.values[place]), len(order)))
    used = result.isel(prompt=places, lens=0)
    columns = {"value": "settled", "low": "settled_low", "high": "settled_high"}
    chosen = result.isel(lens=0).sel(group=groups)
    means = xr.Dataset(
        {to: ("category", chosen[of].values) for to, of in columns.items()},
        coords={
            "category": text_coordinate([restored(name) for name in names], "category", "category of prompts")
        },
    )
    return {
        "Where is each prompt's answer settled?": distribution(
            used.prompt_settled.reset_coords(drop=True).assign_coords(prompt=used.prompt.values),
            [str(name) for name in used.prompt_category.values],
            means,
            caption="Each point is a prompt; below it the mean with its interval over prompts.",
        )
    }


def _lines(
    result: xr.Dataset, wanted: Mapping[str, tuple[str, str, str]], long_name: str, units: str
) -> xr.Dataset:
    """Quantities as lines of one figure: labels to group, quantity and lens."""
    read = surprisal if (long_name, units) == SURPRISAL else curve
    rows = as_rows({label: read(result, *of) for label, of in wanted.items()}, long_name, units)
    if read is surprisal or any(name == "kl" for _, name, _ in wanted.values()):  # no log axis shows 0
        known = rows["value"] > 0
        rows = rows.assign({part: rows[part].where(known) for part in ("value", "low", "high")})
        rows["value"].attrs = {"long_name": long_name, "units": units}
    return rows
