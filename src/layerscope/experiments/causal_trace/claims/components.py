"""What windows, severed states, heads, single subject tokens and doses say in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, finding, head_name, level_of, strongest
from layerscope.experiments.causal_trace.conclude.metrics import metric_of
from layerscope.experiments.causal_trace.measure.tokens import TOKEN_CLASSES
from layerscope.results.escaping import restored

UNKNOWING: Untrained = ("not applicable", "an untrained model has no answer to lose")
_SUBJECT, _LAST = TOKEN_CLASSES[3], TOKEN_CLASSES[6]
_NAMES = {"attn_out": "attention", "mlp_out": "MLPs"}
_FEWEST_TOKENS = 3
_RELATED = {
    "transition and attention's window peak": "crossover depth and attention's peak layer",
    "transition and the MLPs' window peak": "crossover depth and the MLPs' peak layer",
    "attention's and the MLPs' window peaks": "attention's and the MLPs' peak layers",
}


def _most(result: xr.Dataset, name: str, over: str | Sequence[str], **how: Any) -> Finding:
    """The largest recovery along some dimensions, as a share of the answer."""
    return strongest(result, name, over, **{"unit": "share", "units": "prompts"} | how)


def outputs(result: xr.Dataset) -> Iterator[Claim]:
    """Where attention at the last token, and MLPs at the subject's, restore most."""
    width = int(result.window)
    windows = "single layers" if width == 1 else f"windows of {width} layers"
    for site, place in (("mlp_out", _SUBJECT), ("attn_out", _LAST)):
        cell: dict[str, Any] = {"site": site, "token_class_name": place}
        if not np.isfinite(result.output_recovery.sel(cell)).any():
            continue
        most = _most(result, "output_recovery", "layer", **cell)
        yield most.claim(
            f"restoring {_NAMES[site]} at the {place} brings back most round layer {most.select['layer']}: "
            f"{most.estimate} of the answer",
            nothing=f"recovery by {_NAMES[site]} at the {place}, in any window",
            caveat=windows,
            untrained=UNKNOWING,
        )


def severed(result: xr.Dataset) -> Iterator[Claim]:
    """What of the subject's early states works through its own later MLPs or attention."""
    early = result.isel(layer=slice(0, max(1, result.sizes["layer"] // 3)))
    for site in map(str, result.site.values):
        cell: dict[str, Any] = {"site": site, "token_class_name": _SUBJECT}
        if not np.isfinite(early.severed_loss.sel(cell)).any():
            continue
        most = strongest(early, "severed_loss", over="layer", unit="point", units="prompts", **cell)
        yield most.claim(
            f"severing the subject's own later {_NAMES[site]} {most.which('lowers', 'raises')} what its state at depth "
            f"{most.select['layer']} brings back by {most.size}",
            nothing=f"change of what the subject's early states bring back by severing its own later {_NAMES[site]}",
            caveat="largest of the first third of depths",
            untrained=UNKNOWING,
        )


def heads(result: xr.Dataset) -> Iterator[Claim]:
    """The head that restores most alone at the last token."""
    if not np.isfinite(result.head_recovery.sel(token_class_name=_LAST)).any():
        return
    most = _most(result, "head_recovery", ("layer", "head"), p="head_p", token_class_name=_LAST)
    head = head_name(most.select["layer"], most.select["head"])
    yield most.claim(
        f"{head} restores most of all single heads at the last token: {most.estimate} of the answer",
        nothing="recovery by any single head at the last token",
        caveat=f"{most.clear} of {most.family} heads are significant",
        untrained=UNKNOWING,
    )


def agreement(result: xr.Dataset) -> Iterator[Claim]:
    """Whether prompts that cross over late have late peaks."""
    for name in map(str, result.measures.values):
        link = finding(result, "agreement", units="prompts", measures=name)
        if link.known:
            both = _RELATED.get(restored(name), restored(name))
            yield link.claim(
                f"{both} are {link.which('positively', 'negatively')} related over prompts: rank correlation "
                f"{link.estimate}",
                nothing=f"relation between {both} over prompts",
                untrained=UNKNOWING,
                signed=True,
            )


def handover(result: xr.Dataset) -> Iterator[Claim]:
    """For tokens at each distance before the subject's last: does it pass through that one, and when is it read?"""
    for distance in map(int, result.subject_end_distance.values):
        cell: dict[str, Any] = {"subject_end_distance": distance}
        if distance == 0 or int(result.mean_alone_recovery_n.sel(cell).max()) < _FEWEST_TOKENS:
            continue
        whose = f"the subject's token {distance} before its last"
        place = "the subject's last token"
        most = _most(result, "mean_alone_recovery", "depth", units="tokens", place=place, **cell)
        yield most.claim(
            f"the subject's last token brings back {most.estimate} of {whose} at depth {most.select['depth']}",
            nothing=f"recovery of {whose} by the subject's last token",
            untrained=UNKNOWING,
            caveat=f"{most.n[0]} tokens, each corrupted alone" if most.n else "",
        )
        last = finding(result, "mean_handover", unit="1", handed_to="the last token", **cell)
        if last.n and last.n[0] >= _FEWEST_TOKENS:
            yield last.claim(
                f"the prompt's last token takes over from {whose} at depth {last.estimate}",
                caveat=f"{last.n[0]} tokens, each corrupted alone",
            )


def doses(result: xr.Dataset) -> Iterator[Claim]:
    """How often patches do harm at each dose of the noise, and whether categories differ at every dose."""
    for dose in map(float, result.dose.values):
        harm = finding(result, "mean_dose_harmful", unit="share", dose=dose)
        if harm.known:
            yield harm.claim(
                f"at {dose:g} times the noise, {harm.estimate} of patches lower {metric_of(result)[0]}",
                caveat=f"{int(result.dose_used.sel(dose=dose))} prompts on which it falls enough",
            )
    if "dose_contrast" not in result.dims:
        return
    for name in map(str, result.dose_contrast.values):
        yield _at_every_dose(result, name)


def _at_every_dose(result: xr.Dataset, name: str) -> Claim:
    """The difference of two categories at the dose where it is smallest: if that is significant, all are."""
    first, _, second = restored(name).partition(" − ")
    found = [_at_dose(result, name, float(dose)) for dose in result.dose.values]
    known = [one for one in found if one.known]
    what = f"difference in crossover depth between {first} and {second} at every dose of noise"
    if not known:
        return found[0].claim("", nothing=what, unknown="too few prompts cross over", untrained=UNKNOWING)
    clear = [one for one in known if one.significant]
    turned = len({one.which("later", "earlier") for one in clear}) > 1
    least = min(known, key=lambda one: (one.significant, abs(one.value)))
    at = ", ".join(f"{one.select['dose']:g}" for one in clear) or "none"
    signs = "; its direction changes with the dose" if turned else ""
    return least.claim(
        f"crossover comes {least.which('later', 'earlier')} for {first} than for {second} at every dose of noise, "
        f"by at least {least.size}",
        nothing=what,
        caveat=f"significant at doses: {at}{signs}",
        untrained=UNKNOWING,
    )


def _at_dose(result: xr.Dataset, name: str, dose: float) -> Finding:
    cell = {"dose": dose, "dose_contrast": name}

    def number(name: str) -> float:
        return float(result[f"dose_{name}"].sel(cell)) if f"dose_{name}" in result else math.nan

    counts = [number("n_first"), number("n_second")]
    return Finding(
        number("difference"),
        number("low"),
        number("high"),
        "layer",
        level_of(result),
        n=tuple(int(count) for count in counts if math.isfinite(count)),
        units="prompts",
        tested=True,
        p=number("p_adjusted"),
        least_p=number("least_p_adjusted"),
        least_alone=number("least_p"),
        select={"variable": "dose_difference", **cell},
    )
