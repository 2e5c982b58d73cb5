"""Findings in a result: one by its labels, the strongest of many, what was too little to test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import wording
from layerscope.evidence.findings import COMPARES_NOTHING, Finding
from layerscope.evidence.places import places_in_words
from layerscope.evidence.wording import ALPHA
from layerscope.maths.bootstrap import FEWEST_UNITS


def finding(
    result: xr.Dataset,
    name: str,
    *,
    p: str = "",
    null: float = 0.0,
    unit: str = "",
    units: str = "",
    n: Sequence[str] = (),
    picked: Sequence[str] = (),
    **labels: Any,
) -> Finding:
    """A number of a result, with whatever the result holds about it.

    Args:
        result: of the experiment; what an older version did not write is unknown.
        name: of the variable, written by `Over`: ends, n and p lie beside it.
        p: name of the variable of its p, by default `name_p_adjusted` where there is one.
        null: the value that means no effect.
        unit: by default the variable's.
        units: what it is counted over, by default what `Over` wrote: "prompts".
        n: names of the variables of its numbers of units, by default `name_n`.
        picked: dimensions whose labels were picked in another way than by `strongest`.
        labels: the cell, by dimension.
    """
    p = p or f"{name}_p_adjusted"
    cells = {ending: _cell(result, f"{name}{ending}", labels) for ending in ("", "_low", "_high")}
    counts = [_cell(result, one, labels) for one in (n or (f"{name}_n",))]
    twin = _cell(result, f"untrained_{name}", labels)
    return Finding(
        value=cells[""],
        low=cells["_low"],
        high=cells["_high"],
        unit=unit or str(result[name].attrs.get("units", "1")),
        level=level_of(result),
        n=tuple(int(count) for count in counts if math.isfinite(count)),
        units=units or f"{result[name].attrs.get('over', 'unit')}s",
        null=null,
        tested=p in result,
        p=_cell(result, p, labels),
        least_p=_cell(
            result,
            f"{name}_least_p_adjusted" if f"{name}_least_p_adjusted" in result else f"{name}_least_p",
            labels,
        ),
        least_alone=_cell(result, f"{name}_least_p", labels),
        twins=(twin,) if math.isfinite(twin) else (),
        select={"variable": name, **labels},
        picked=tuple(picked),
    )


def strongest(
    result: xr.Dataset,
    name: str,
    over: str | Sequence[str],
    *,
    by: Callable[[np.ndarray], np.ndarray] = np.asarray,
    **how: Any,
) -> Finding:
    """The largest value along some dimensions; of those that are significant, where there are any.

    Its interval holds for all of them at once where `Over` was told `together`; where it was not, the claim's caveat
    says so.

    Args:
        result: of the experiment.
        name: of the variable.
        over: dimensions to pick from.
        by: what is largest where not the value: `np.abs` for the largest size, `np.negative` for the smallest.
        how: `p`, `null`, `unit`, `units`, `n` as in `finding`, and labels of the other dimensions.
    """
    dims = (over,) if isinstance(over, str) else tuple(over)
    options = {key: how.pop(key) for key in ("p", "null", "unit", "units", "n") if key in how}
    values = result[name].sel(how).transpose(*dims)
    p_name = options.get("p") or f"{name}_p_adjusted"
    known = np.isfinite(values.values)
    if not known.any():
        first = {dim: _label(values, dim, 0) for dim in dims}
        return finding(result, name, picked=dims, **options, **how, **first)
    p = result[p_name].sel(how).transpose(*dims).values if p_name in result else np.full(known.shape, np.nan)
    clear = known & (p < ALPHA)
    # Of those that are significant; if none is, of those that could be; if none could, of all.
    allowed = next(some for some in (clear, known & np.isfinite(p), known) if some.any())
    place = np.unravel_index(int(np.where(allowed, by(values.values), -np.inf).argmax()), values.shape)
    cell = {dim: _label(values, dim, int(index)) for dim, index in zip(dims, place, strict=True)}
    found = finding(result, name, picked=dims, **options, **how, **cell)
    joint = f"{name}_joint_low" in result
    if joint:
        low, high = (_cell(result, f"{name}_joint_{end}", how | cell) for end in ("low", "high"))
        found = replace(found, low=low, high=high)
    line = values[dims[0]].values
    numbered = len(dims) == 1 and line.dtype.kind in "iu"
    return replace(
        found,
        family=int(known.sum()),
        joint=joint,
        also=tuple(int(one) for one in line[clear]) if numbered else (),
        clear=int(clear.sum()),
    )


def on_either_side(
    result: xr.Dataset, name: str, over: str, above: str, below: str, *, p: str = "", null: float = 0.0
) -> str:
    """The places that are significantly above the null, and those below: "more in layers 1 and 4, less in no layer".

    Args:
        result: of the experiment.
        name: of the variable.
        over: the dimension.
        above, below: a word for each side.
        p: name of the variable of its p; without one, ends that hold for all places at once decide, where there are.
        null: the value that means no effect.
    """
    values = result[name].values
    if p:
        sides = ((result[p].values < ALPHA) & side for side in (values > null, values < null))
    else:
        low, high = (
            result.get(f"{name}_joint_{end}", result[f"{name}_{end}"]).values for end in ("low", "high")
        )
        sides = (side for side in (low > null, high < null))
    said = (
        f"{word} in {places_in_words(result[over].values[side], over)}"
        for word, side in zip((above, below), sides, strict=True)
    )
    return ", ".join(said)


def supported(found: Finding, resamples: int) -> Finding:
    """One whose value is the share of resamples in which something holds: its p is the share in which it does not."""
    enough, least = not found.n or min(found.n) >= FEWEST_UNITS, 1 / (1 + resamples)
    p = max(1 - found.value, least) if enough and found.known else math.nan
    return replace(found, tested=True, p=p, least_p=least)


def rest_of(
    result: xr.Dataset,
    name: str,
    p: str,
    *,
    nothing: str,
    of: str,
    caveat: str = "",
    untrained: Untrained | None = None,
    **labels: Any,
) -> Claim:
    """One sentence on all cells of a family that are not significant, where each alone would be too many.

    Args:
        result: of the experiment.
        name: of the variable.
        p: name of the variable of its p.
        nothing: what was looked for, a noun without an article.
        of: what the cells are, plural: "pairs of categories".
        caveat: what qualifies it.
        untrained: what an untrained twin must come to.
        labels: the cell of other dimensions.
    """
    known = result[p].sel(labels).values
    quiet, tested = int((known >= ALPHA).sum()), int(np.isfinite(known).sum())
    return Claim(
        text=wording.null_sentence(f"{nothing} in {quiet} of {tested} {of}"),
        significant=False,
        stated=True,
        untrained=untrained,
        caveat=caveat,
        select={"variable": name, **labels},
    )


def untested(
    result: xr.Dataset, name: str, p: str, *, nothing: str, of: str, units: str, caveat: str = ""
) -> Claim:
    """One sentence on all cells of a family that have no p at all; arguments as in `rest_of`."""
    known = result[p].values
    unknown = int(np.isnan(known).sum())
    return Claim(
        text=wording.sentence(f"Too few {units} to test the {nothing} in {unknown} of {known.size} {of}"),
        stated=True,
        untrained=COMPARES_NOTHING,
        caveat=caveat,
        select={"variable": name},
    )


def level_of(result: xr.Dataset) -> float:
    """The level of a result's intervals, from the settings that it carries."""
    return float(settings_of(result).get("level", 0.95))


def settings_of(result: xr.Dataset) -> dict[str, Any]:
    """The settings that a saved result carries; empty for one that was put together by hand."""
    return dict(json.loads(result.attrs["settings"])) if "settings" in result.attrs else {}


def _label(values: xr.DataArray, dim: str, place: int) -> Any:
    label = values[dim].values[place]
    return label.item() if hasattr(label, "item") else label


def _cell(result: xr.Dataset, name: str, labels: Mapping[str, Any]) -> float:
    """One number of a result; NaN where it has no such variable."""
    if name not in result:
        return math.nan
    values = result[name]
    return float(values.sel({dim: label for dim, label in labels.items() if dim in values.dims}))
