"""What was left out of a result, and why."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from layerscope.plots.axes import plain
from layerscope.results.record import RunRecord

REASON = "left_out_because"
"""A result's variable of this name holds "" for what was used, and else the reason; any one dimension."""


@dataclass(frozen=True)
class Exclusions:
    """How many of the items were used, and the name and reason of each that was not."""

    items: str
    used: int
    total: int
    left_out: tuple[tuple[str, str], ...]


def exclusions(result: xr.Dataset) -> list[Exclusions]:
    """Every such variable of a result; its name may carry a prefix, as in `passage_left_out_because`."""
    names = [name for name in result.variables if str(name).endswith(REASON)]
    return [_exclusions(result[name]) for name in names if result[name].ndim == 1]


def unreadable(record: RunRecord) -> list[Exclusions]:
    """Prompts that the tokenizer could not read, which no result knows of."""
    out = tuple(record.left_out.items())
    return [Exclusions("further prompts, which this model cannot read", 0, len(out), out)] if out else []


def _exclusions(reasons: xr.DataArray) -> Exclusions:
    dimension = str(reasons.dims[0])
    pairs = zip(reasons[dimension].values, reasons.values, strict=True)
    left_out = tuple((plain(name), plain(reason)) for name, reason in pairs if str(reason))
    return Exclusions(f"{dimension}s", reasons.size - len(left_out), reasons.size, left_out)
