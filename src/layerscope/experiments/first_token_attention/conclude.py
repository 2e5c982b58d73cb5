"""What the first token gets along a text and late in it, over uniform attention and between readings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Intervals, Over, along, holm_over, measure, named, text_coordinate
from layerscope.experiments.first_token_attention.measure import BOS_FIRST, SHARE
from layerscope.experiments.first_token_attention.settings import Settings
from layerscope.maths.ratios import known_mean
from layerscope.results.schema import quantity, write_json

_ROUNDING = 1e-6
_STRETCHES_PER_DOUBLING = 2
_LONG_TEXT = 512


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Shares along the text and late in it, their excess over uniform attention, and what BOS has to do with it."""
    reading = stages["attention"]
    over = Over(reading, settings, rows="passage")
    shares = reading.attention_to_first.astype(np.float64)
    uniform = (1 / (1 + reading.position)).where(shares.notnull().any(("layer", "head")))
    late, late_uniform = (_late(_read_by_all(values), settings) for values in (shares, uniform))
    there = late.notnull().any(("passage", "layer", "head"))
    main = next((str(name) for name in reading.reading.values[there.values]), "")
    found = [
        *_along(shares, uniform, over),
        *_late_in_the_text(late, late_uniform, over),
        *_compared(late, main, over),
    ]
    result = reading.merge(xr.merge(found)).assign(
        left_out_because=quantity(
            np.full(reading.sizes["passage"], ""), "passage", "why the passage is left out, or empty"
        )
    )
    return write_json(result.assign_attrs(main_reading=main), cautions=_cautions(result, main))


# -- along the text ----------------------------------------------------------------------------------


def stretches(positions: int) -> list[tuple[int, int]]:
    """Ranges of positions, first .. last + 1, that lengthen as the text goes on; position 0 sees itself only."""
    edges = [1]
    while edges[-1] < positions:
        longer = round(edges[-1] * 2 ** (1 / _STRETCHES_PER_DOUBLING))
        edges.append(min(positions, max(edges[-1] + 1, longer)))
    return list(pairwise(edges))


def _by_stretch(values: xr.DataArray, parts: Sequence[tuple[int, int]]) -> xr.DataArray:
    """Means over stretches of positions, the last dimension, which stands last in their place."""
    means = np.stack([known_mean(values.values[..., a:b]) for a, b in parts], axis=-1)
    middle = xr.Variable(
        ("stretch",),
        [(first + after - 1) / 2 for first, after in parts],
        {"long_name": "position, middle of a stretch"},
    )
    like = values.isel(position=0, drop=True)
    return xr.DataArray(means, dims=(*like.dims, "stretch"), coords={**like.coords, "stretch": middle})


def _along(shares: xr.DataArray, uniform: xr.DataArray, over: Over) -> list[xr.Dataset]:
    """Means over stretches of the text, beside those of uniform attention."""
    parts = stretches(shares.sizes["position"])
    over_heads = along("head", known_mean, _by_stretch(shares, parts))
    everywhere = along("layer", known_mean, over_heads)
    whole = along("passage", known_mean, along("head", known_mean, shares)).astype(np.float32)
    alike = along("passage", known_mean, _by_stretch(uniform.transpose(*_SEEN), parts))
    return [
        over.mean(named(over_heads, "share_along", f"{SHARE}, mean over heads")),
        over.mean(named(everywhere, "overall_along", f"{SHARE}, all heads"), together="stretch"),
        named(whole, "mean_along_text", f"{SHARE}, mean over heads and passages").to_dataset(),
        named(alike, "uniform_along", f"{SHARE}, uniform attention").to_dataset(),
    ]


_SEEN = ("passage", "reading", "position")


# -- late in the text --------------------------------------------------------------------------------


def _read_by_all(values: xr.DataArray) -> xr.DataArray:
    """Shares at positions that a passage has in every reading, NaN at others.

    A text with nothing in front ends a position earlier; with that position in the one mean and not in the
    other, a share that falls like 1 / position would change where nothing has.
    """
    there = values.notnull().any([dim for dim in values.dims if dim not in _SEEN])
    tried = there.any(("passage", "position"))  # a reading that no passage has (no BOS) decides nothing
    return values.where(there.isel(reading=np.flatnonzero(tried)).all("reading"))


def _late(values: xr.DataArray, settings: Settings) -> xr.DataArray:
    """Mean over the last positions; of every text, the same positions."""
    first = int(np.floor(values.sizes["position"] * (1 - settings.late_share)))
    return along("position", known_mean, values.isel(position=slice(max(1, first), None)))


def _late_in_the_text(late: xr.DataArray, uniform: xr.DataArray, over: Over) -> list[xr.Dataset]:
    """Means late in the text, by layer and by head, and what they have over uniform attention."""
    over_heads = along("head", known_mean, late)
    long_name = f"{SHARE}, late in the text"
    more = f"{SHARE} late in the text, less uniform"
    excess = named(over_heads - uniform, "late_excess", more)
    of_heads = named(late - uniform, "head_late_excess", more)
    alike = along("passage", known_mean, uniform)
    return [
        over.mean(named(over_heads, "late_share", long_name), together="layer", draws=True),
        over.mean(named(late, "head_late_share", long_name), together=("layer", "head")),
        _not_below_rounding(over.mean(excess)),
        _not_below_rounding(over.mean(of_heads)),
        _tested(excess, over.settings),
        named(alike, "uniform_late_share", f"{SHARE}, uniform attention, late").to_dataset(),
    ]


def _tested(excess: xr.DataArray, settings: Intervals) -> xr.Dataset:
    """Is a layer's share another than uniform attention's? One family of layers for each reading.

    What float32 may have rounded is nothing, however alike it is in all passages.
    """
    found, seen = [], excess.where(~(np.abs(excess) <= _ROUNDING), 0.0)
    for name in excess.reading.values:
        own = seen.sel(reading=name, drop=True)
        reaching = own.dropna("passage", how="all")  # the other texts end before late positions
        over = Over((reaching if reaching.size else own).to_dataset(), settings, rows="passage")
        tested = over.paired(reaching if reaching.size else own, p="late_excess_p")
        found.append(tested[["late_excess_p", "late_excess_least_p"]])
    return xr.concat(found, dim=excess.reading)


def _not_below_rounding(found: xr.Dataset) -> xr.Dataset:
    """No interval is narrower than float32's rounding of a share, even where all texts agree to the last bit."""
    by = {"_low": -_ROUNDING, "_high": _ROUNDING}
    moved = {
        name: values.copy(data=values.values + by[ending])
        for ending in by
        for name, values in found.items()
        if str(name).endswith(ending)
    }
    return found.assign(moved)


# -- between readings --------------------------------------------------------------------------------


def _compared(late: xr.DataArray, main: str, over: Over) -> list[xr.Dataset]:
    """Each other reading less the main one, passage by passage, mean over heads."""
    over_heads = along("head", known_mean, late)
    others = [name for name in over_heads.reading.values if name != main]
    apart = over_heads.sel(reading=others) - over_heads.sel(reading=main, drop=True)
    apart = apart.rename(reading="other_reading").assign_coords(
        other_reading=text_coordinate(others, "other_reading", "what stands first")
    )
    long_name = "change of the late share on the first token"
    overall = named(along("layer", known_mean, apart), "overall_change", f"{long_name}, all layers")
    tests = [over.paired(overall.sel(other_reading=name, drop=True)) for name in others]
    adjusted = holm_over(xr.concat(tests, dim=overall.other_reading), "overall_change", along="other_reading")
    adjusted = adjusted.rename(overall_change_p_adjusted="overall_change_p")
    return [
        over.mean(named(apart, "change", long_name)),
        over.mean(overall),
        adjusted[["overall_change_p", "overall_change_least_p"]],
    ]


def _cautions(result: xr.Dataset, main: str) -> list[str]:
    cautions = []
    if main != BOS_FIRST:
        cautions.append("Nothing stands first in the texts of this run: they are not read with BOS.")
    read = np.isfinite(result.attention_to_first.isel(reading=-1)).any(("layer", "head"))
    lengths = read.sum("position").values
    if lengths.min() < 0.75 * lengths.max():
        cautions.append(
            f"Passages have {lengths.min()} to {lengths.max()} tokens: late positions rest on the longer ones."
        )
    if lengths.max() < _LONG_TEXT:
        cautions.append(
            f"The longest text has {lengths.max()} tokens; --longest reads more of long passages."
        )
    return cautions


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """The first token's share of attention late in the text."""
    main = result.attrs["main_reading"]
    return {
        "late_share": measure(
            result,
            "late_share",
            label="late attention to the first token",
            sense="heads give the first token much of their attention, late in the text",
            questions="attention",
            null=result.uniform_late_share.sel(reading=main, drop=True).expand_dims(layer=result.layer),
            reading=main,
        )
    }
