"""Pairs of categories in sentences, from what `Over.contrasts` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence.findings import Finding
from layerscope.evidence.found import finding, rest_of, untested
from layerscope.evidence.wording import ALPHA
from layerscope.results.escaping import restored

_FEW = 10
"""Up to so many pairs, each has its sentence; of more, only those that are significant."""
_OF = "pairs of categories"


def claims_of_pairs(
    result: xr.Dataset,
    *,
    says: Callable[[Finding, str, str], str],
    nothing: str,
    units: str = "prompts",
    caveat: str = "",
    untrained: Untrained | None = None,
) -> Iterator[Claim]:
    """A sentence for each pair, the largest difference first; of many pairs only for those that are significant, and
    one for all the others.

    Args:
        result: with `difference` along contrast, and `p_adjusted`.
        says: (finding, first category, second category) -> what holds where the pair differs.
        nothing: what was looked for: "difference in crossover depth".
        units: what is counted.
        caveat: what qualifies each sentence.
        untrained: what an untrained twin must come to.
    """
    p = result.p_adjusted.to_numpy()
    few, method = len(p) <= _FEW, f"permutation over {units}, Holm's method over all pairs"
    shown = np.flatnonzero(np.isfinite(p) if few else p < ALPHA)
    sizes = np.abs(result.difference.to_numpy()[shown]) if shown.size else np.zeros(0)
    for place in shown[np.argsort(-sizes, kind="stable")]:
        here = result.isel(contrast=slice(place, place + 1))
        first, second = (restored(str(here[f"contrast_{which}"].item())) for which in ("first", "second"))
        gap = finding(
            here,
            "difference",
            p="p_adjusted",
            units=units,
            n=("difference_n_first", "difference_n_second"),
            contrast=here.contrast.item(),
        )
        yield gap.claim(
            says(gap, first, second),
            nothing=f"{nothing} between {first} and {second}",
            caveat=caveat or method,
            untrained=untrained,
        )
    if (p >= ALPHA).any() and not few:
        yield rest_of(
            result, "p_adjusted", "p_adjusted", nothing=nothing, of=_OF, caveat=method, untrained=untrained
        )
    if np.isnan(p).any():
        yield untested(result, "p_adjusted", "p_adjusted", nothing=nothing, of=_OF, units=units)
