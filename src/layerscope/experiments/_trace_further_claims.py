"""The further conclusions of a causal trace in sentences: effects, pairs, windows, severing, doses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments import _trace_screen_conclusions
from layerscope.experiments._contract import Claim
from layerscope.experiments._summaries import interval_claim, number_or_none
from layerscope.results.words import restored

_SUBJECT, _LAST = "last subject token", "last token"
_NAMES = {"attn_out": "attention", "mlp_out": "MLPs"}
_FEWEST_TOKENS = 3


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Whatever the result holds beside rows and categories."""
    yield from _total(result)
    for name, sentences in (
        ("depth_p", _depths),
        ("paired_difference", _pairs),
        ("regression", _regression),
        ("output_recovery", _outputs),
        ("severed_loss", _severed),
        ("head_p", _heads),
        ("agreement", _agreement),
        ("mean_handover", _handover),
        ("dose_transition", _doses),
        ("screen_missed", _trace_screen_conclusions.claims),
    ):
        if name in result:
            yield from sentences(result)


def _total(result: xr.Dataset) -> Iterator[Claim]:
    if "total_effect" in result and np.isfinite(result.total_effect):
        yield interval_claim(
            f"noise lowers the metric by {float(result.total_effect):.2f} on average",
            result,
            "total_effect",
            {},
            f"over {int(result.total_effect_n)} prompts (the average total effect)",
        )


def _depths(result: xr.Dataset) -> Iterator[Claim]:
    for pair in result.category_pair.values:
        here = result.sel(category_pair=pair)
        depths = here.depth.values[here.depth_p.values < 0.05]
        name = restored(str(pair))
        if len(depths):
            several = f"at {len(depths)} depths from {depths[0]} to {depths[-1]}"
            where = f"at depth {depths[0]}" if len(depths) == 1 else several
            text = f"{name}: recovery at the last token differs {where}"
        else:
            text = f"{name}: not distinguishable in recovery at the last token at any depth"
        p = here.depth_p.values
        yield Claim(
            text=text,
            p_adjusted=float(np.nanmin(p)) if np.isfinite(p).any() else None,
            significant=bool(len(depths)),
            caveat="permutation over prompts, corrected for all depths and pairs",
            select={"variable": "depth_difference", "category_pair": str(pair)},
        )


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.matched.values:
        here = result.sel(matched=name)
        difference, p = float(here.paired_difference), float(here.paired_p)
        clear = p < 0.05
        text = f"within matched pairs, {restored(str(name))} is {difference:+.1f} blocks in transition depth"
        claim = interval_claim(
            text
            if clear
            else f"within matched pairs, {restored(str(name))} is not distinguishable from zero",
            here,
            "paired_difference",
            {"matched": str(name)},
            f"{int(here.paired_difference_n)} pairs with a transition on both sides; signs flipped pair by pair",
        )
        yield claim.model_copy(update={"p_adjusted": None if np.isnan(p) else p, "significant": clear})


def _regression(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.explanation.values:
        here = result.sel(explanation=name)
        value, p = float(here.regression), float(here.regression_p_adjusted)
        if np.isnan(value):
            continue
        clear = p < 0.05
        what = restored(str(name))
        text = f"with the rest held fixed, transition depth changes by {value:+.2f} blocks per unit of {what}"
        unclear = f"with the rest held fixed, {what} has no effect that can be told from none"
        yield Claim(
            text=text if clear else unclear,
            value=value,
            low=number_or_none(here.regression_low),
            high=number_or_none(here.regression_high),
            p_adjusted=p,
            significant=clear,
            caveat=f"least squares over {int(result.regression_n)} prompts, HC3 errors; Holm's correction over terms",
            select={"variable": "regression", "explanation": str(name)},
        )


def _windows(result: xr.Dataset) -> str:
    width = int(result.window)
    return "single blocks" if width == 1 else f"windows of {width} blocks"


def _outputs(result: xr.Dataset) -> Iterator[Claim]:
    for site, place in (("mlp_out", _SUBJECT), ("attn_out", _LAST)):
        here = result.sel(site=site, token_class_name=place)
        curve = here.output_recovery.values
        if not np.isfinite(curve).any():
            continue
        peak = int(np.nanargmax(curve))
        clear = float(here.output_recovery_low.sel(layer=peak)) > 0
        yield interval_claim(
            f"{_NAMES[site]} at the {place} restore most round block {peak}: {curve[peak]:.0%} of the answer"
            if clear
            else f"{_NAMES[site]} at the {place} restore nothing that can be told from none, in any window",
            here.sel(layer=peak),
            "output_recovery",
            {"site": site, "token_class_name": place, "layer": peak},
            f"{_windows(result)}; the highest of {len(curve)} is taken: an optimistic interval",
        ).model_copy(update={"significant": clear})


def _severed(result: xr.Dataset) -> Iterator[Claim]:
    here = result.sel(token_class_name=_SUBJECT)
    for site in here.site.values:
        curve = here.severed_loss.sel(site=site).values
        if not np.isfinite(curve).any():
            continue
        early = slice(0, max(1, len(curve) // 3))
        layer = int(np.nanargmax(curve[early]))
        clear = float(here.severed_loss_low.sel(site=site, layer=layer)) > 0
        name = _NAMES[str(site)]
        yield interval_claim(
            f"of what the subject's state restores at depth {layer}, {curve[layer]:+.0%} of the answer goes "
            f"through the subject's own later {name}"
            if clear
            else f"what the subject's early states restore needs none of its own later {name}, as far as can be told",
            here.sel(site=site, layer=layer),
            "severed_loss",
            {"site": str(site), "token_class_name": _SUBJECT, "layer": layer},
            "recovery with the state alone less recovery with these severed; the largest of the first third of depths",
        ).model_copy(update={"significant": clear})


def _heads(result: xr.Dataset) -> Iterator[Claim]:
    here = result.sel(token_class_name=_LAST)
    known = int(np.isfinite(here.head_recovery).sum())
    if not known:
        return
    cells = np.argwhere(here.head_p.transpose("layer", "head").values < 0.05)
    strongest = here.isel(here.head_recovery.fillna(-np.inf).argmax(("layer", "head")))
    name = f"head {int(strongest['head'])} of block {int(strongest.layer)}"
    p, clear = float(strongest.head_p), bool(strongest.head_p < 0.05)
    yield interval_claim(
        f"{name} at the last token restores most alone: {float(strongest.head_recovery):.0%} of the answer"
        if clear
        else "no single head at the last token restores anything that can be told from none",
        strongest,
        "head_recovery",
        {"token_class_name": _LAST, "layer": int(strongest.layer), "head": int(strongest["head"])},
        f"{len(cells)} of {known} heads differ from none after correction for all; the largest is taken: an "
        "optimistic interval",
    ).model_copy(update={"p_adjusted": None if np.isnan(p) else p, "significant": clear})


def _agreement(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.measures.values:
        here = result.sel(measures=name)
        value, low, high = (float(here[f"agreement{end}"]) for end in ("", "_low", "_high"))
        if np.isnan(value):
            continue
        clear = low > 0 or high < 0
        yield interval_claim(
            f"{restored(str(name))} {'agree' if value > 0 else 'disagree'} over prompts (rank correlation {value:.2f})"
            if clear
            else f"{restored(str(name))}: no agreement over prompts that can be told from none",
            here,
            "agreement",
            {"measures": str(name)},
            f"{int(here.agreement_n)} prompts",
        ).model_copy(update={"significant": clear})


def _handover(result: xr.Dataset) -> Iterator[Claim]:
    """For tokens at each distance before the subject's last: does it pass through that one, and when is it read?"""
    for distance in result.subject_end_distance.values:
        here = result.sel(subject_end_distance=distance)
        if distance == 0 or int(here.mean_alone_recovery_n.max()) < _FEWEST_TOKENS:
            continue
        whose = f"a subject's token {int(distance)} before its last"
        select: dict[str, Any] = {"subject_end_distance": int(distance)}
        yield _passed_on(here.sel(place="the subject's last token"), whose, select)
        last = here.sel(handed_to="the last token")
        if int(last.mean_handover_n) >= _FEWEST_TOKENS:
            yield interval_claim(
                f"{whose} hands over to the prompt's last token at depth {float(last.mean_handover):.1f}",
                last,
                "mean_handover",
                select,
                f"{int(last.mean_handover_n)} tokens, each noised alone",
            )


def _passed_on(here: xr.Dataset, whose: str, select: dict[str, Any]) -> Claim:
    """What the subject's last token brings back of a token before it, at the depth where that is most."""
    peak = here.isel(depth=int(np.nanargmax(here.mean_alone_recovery.values)))
    clear = bool(peak.mean_alone_recovery_low > 0)
    told = (
        f"{float(peak.mean_alone_recovery):.0%} at depth {int(peak.depth)}"
        if clear
        else "nothing that can be told from none"
    )
    return interval_claim(
        f"of {whose}, the subject's last token brings back {told}",
        peak,
        "mean_alone_recovery",
        select | {"place": "the subject's last token", "depth": int(peak.depth)},
        f"{int(peak.mean_alone_recovery_n)} tokens, each noised alone; the depth of the largest mean, so the interval "
        "is optimistic",
    ).model_copy(update={"significant": clear})


def _doses(result: xr.Dataset) -> Iterator[Claim]:
    for dose in result.dose.values:
        here = result.sel(dose=dose)
        yield interval_claim(
            f"at {float(dose):g} times the noise, {float(here.mean_dose_harmful):.0%} of patches lower the metric",
            here,
            "mean_dose_harmful",
            {"dose": float(dose)},
            f"{int(here.dose_used)} prompts whose metric falls enough",
        )
    if "dose_contrast" not in result.dims:
        return
    for name in result.dose_contrast.values:
        here = result.sel(dose_contrast=name)
        p, difference = here.dose_p_adjusted.values, here.dose_difference.values
        clear = p < 0.05
        signs = set(np.sign(difference[clear]).tolist())
        shown = ", ".join(f"{float(d):g}" for d in here.dose.values[clear]) or "none"
        if len(signs) == 2:
            text = (
                f"{restored(str(name))}: the difference in transition depth changes its sign with the noise"
            )
        elif clear.all():
            text = f"{restored(str(name))}: the same sign of difference at every dose"
        elif clear.any():
            text = (
                f"{restored(str(name))}: the difference depends on the noise; it is clear at {shown} times it"
            )
        else:
            text = f"{restored(str(name))}: not distinguishable in transition depth at any dose"
        yield Claim(
            text=text,
            p_adjusted=float(np.nanmin(p)) if np.isfinite(p).any() else None,
            significant=bool(clear.any()),
            caveat="Holm's correction over pairs at each dose, not over doses",
            select={"variable": "dose_difference", "dose_contrast": str(name)},
        )
