"""Who writes the answer, in sentences: the head and the MLP with the largest direct effect, attention against MLPs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, head_name, strongest
from layerscope.evidence.groups import ALL_PROMPTS, PROMPT
from layerscope.experiments.logit_lens.claims.order import latest_first
from layerscope.results.escaping import restored, stored

_FRESH: Untrained = ("null", "fresh weights write towards no prompt's answer more than towards another's")


def direct_claims(result: xr.Dataset) -> Iterator[Claim]:
    """For each category of prompts, or for all where there is one: head, MLP, and attention against MLPs."""
    if "head_beyond_other" not in result:
        return
    names = [restored(str(name)) for name in result.answered.values]
    order = [group.removeprefix(PROMPT) for group in latest_first(result)]
    for group in sorted(names[1:], key=order.index) or names:
        for kind, dims in (("head", ("layer", "head")), ("mlp", ("layer",))):
            if np.isfinite(result[f"{kind}_beyond_other"].sel(answered=stored(group))).any():
                yield _most(result, kind, dims, group)
        if np.isfinite(result.attention_less_mlps.sel(answered=stored(group))):
            yield _attention_against_mlps(result, group)


def _for(group: str) -> str:
    return "" if group == ALL_PROMPTS else f" for {group}"


def _most(result: xr.Dataset, kind: str, dims: tuple[str, ...], group: str) -> Claim:
    most = strongest(
        result, f"{kind}_beyond_other", dims, by=np.abs, unit="1", units="prompts", answered=stored(group)
    )
    layer = most.select["layer"]
    writer, those = (
        (head_name(layer, most.select["head"]), "head") if kind == "head" else (f"the L{layer} MLP", "MLP")
    )
    return most.claim(
        f"{writer} {most.which('raises', 'lowers')} the answer's logit over another prompt's answer by {most.size}"
        f"{_for(group)}, the largest direct effect of any {those}",
        nothing=f"direct effect of any {those} on the answer's logit over another prompt's answer{_for(group)}",
        caveat=f"significant in {most.clear} of {most.family} {those}s",
        untrained=_FRESH,
    )


def _attention_against_mlps(result: xr.Dataset, group: str) -> Claim:
    gap = finding(result, "attention_less_mlps", unit="1", units="prompts", answered=stored(group))
    return gap.claim(
        f"attention writes {gap.size} {gap.which('more', 'less')} than the MLPs to the answer's logit over another "
        f"prompt's answer{_for(group)}",
        nothing=f"difference between attention and MLPs in their direct effect on the answer's logit{_for(group)}",
        caveat="direct logit attribution, all layers together",
        untrained=_FRESH,
    )
