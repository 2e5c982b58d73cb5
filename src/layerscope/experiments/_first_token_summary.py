"""What the first token gets along a text, from every passage's shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, head_name, strongest, text_coordinate
from layerscope.evidence.quantities import interval_variables
from layerscope.maths.bootstrap import Interval, bootstrap_mean
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import holm, sign_flip_p
from layerscope.maths.ratios import known_mean
from layerscope.results.schema import quantity, write_json

_ROUNDING = 1e-6
_SHARE = "share of attention on the first token"
_STRETCHES_PER_DOUBLING = 2


def stretches(positions: int) -> list[tuple[int, int]]:
    """Ranges of positions, first .. last + 1, that lengthen as the text goes on; position 0 sees itself only."""
    edges = [1]
    while edges[-1] < positions:
        edges.append(
            min(positions, max(edges[-1] + 1, round(edges[-1] * 2 ** (1 / _STRETCHES_PER_DOUBLING))))
        )
    return list(pairwise(edges))


def conclude(result: xr.Dataset, settings: Any) -> xr.Dataset:
    """Shares along the text, late in it, over uniform attention, and compared between readings."""
    shares = result.attention_to_first.values.astype(np.float64)  # passage reading layer head position
    uniform = 1 / (1 + result.position.values)
    uniform = np.where(np.isnan(shares).all(axis=(2, 3)), np.nan, uniform)  # passage reading position
    late, late_uniform = (_late(_read_by_all(values), settings) for values in (shares, uniform))
    readings = [str(name) for name in result.reading.values]
    main = next((name for i, name in enumerate(readings) if np.isfinite(late[:, i]).any()), "")
    parts = stretches(shares.shape[-1])
    result = result.assign(
        _along(shares, uniform, parts, settings)
        | _late_in_the_text(late, late_uniform, settings)
        | _compared(late, main, readings, settings)
        | {
            "left_out_because": quantity(
                np.full(result.sizes["passage"], ""), "passage", "why the passage is left out, or empty"
            )
        }
    ).assign_coords(
        stretch=xr.Variable(
            ("stretch",),
            [(first + after - 1) / 2 for first, after in parts],
            {"long_name": "position, middle of a stretch"},
        ),
        other_reading=text_coordinate(
            [name for name in readings if name != main], "other_reading", "what stands first"
        ),
    )
    return write_json(result.assign_attrs(main_reading=main), cautions=_cautions(result, main))


def _mean(settings: Any) -> Callable[[np.ndarray], Interval]:
    """The mean over passages, with its interval."""
    return partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)


def _along(
    shares: np.ndarray, uniform: np.ndarray, parts: Sequence[tuple[int, int]], settings: Any
) -> dict[str, Any]:
    """Means over stretches of the text, beside those of uniform attention."""
    along = np.stack([known_mean(shares[..., a:b], -1) for a, b in parts], axis=-1)
    alike = np.stack([known_mean(uniform[..., a:b], -1) for a, b in parts], axis=-1)
    over_heads, find = known_mean(along, 3), _mean(settings)
    return (
        interval_variables(
            "share_along", find(over_heads), "reading layer stretch", f"{_SHARE}, mean over heads"
        )
        | interval_variables(
            "overall_along", find(known_mean(over_heads, 2)), "reading stretch", f"{_SHARE}, all heads"
        )
        | {
            "mean_along_text": quantity(
                known_mean(known_mean(shares, 3), 0).astype(np.float32),
                "reading layer position",
                f"{_SHARE}, mean over heads and passages",
            ),
            "uniform_along": quantity(
                known_mean(alike, 0), "reading stretch", f"{_SHARE}, uniform attention"
            ),
        }
    )


def _late_in_the_text(late: np.ndarray, uniform: np.ndarray, settings: Any) -> dict[str, Any]:
    """Means late in the text, by layer and by head, and what they have over uniform attention."""
    find, excess = _mean(settings), known_mean(late, 3) - uniform[..., None]
    long_name = f"{_SHARE}, late in the text"
    over = f"{_SHARE} late in the text, less uniform"
    of_heads = late - uniform[..., None, None]
    return (
        interval_variables("late_share", find(known_mean(late, 3)), "reading layer", long_name)
        | interval_variables("head_late_share", find(late), "reading layer head", long_name)
        | interval_variables("late_excess", _not_below_rounding(find(excess)), "reading layer", over)
        | interval_variables(
            "head_late_excess", _not_below_rounding(find(of_heads)), "reading layer head", over
        )
        | {
            "late_excess_p": quantity(
                _excess_p(excess, settings),
                "reading layer",
                "p by sign-flip permutation over passages, adjusted for all layers",
            ),
            "uniform_late_share": quantity(
                known_mean(uniform, 0), "reading", f"{_SHARE}, uniform attention, late"
            ),
        }
    )


def _read_by_all(values: np.ndarray) -> np.ndarray:
    """Shares [passage reading ... position] at positions that a passage has in every reading, NaN at others.

    A text with nothing in front ends a position earlier; with that position in the one mean and not in the
    other, a share that falls like 1 / position would change where nothing has.
    """
    there = ~np.isnan(values).all(axis=tuple(range(2, values.ndim - 1)))  # passage reading position
    tried = there.any(axis=(0, 2))  # a reading that no passage has (no BOS) decides nothing
    by_all = there[:, tried].all(axis=1)
    shape = (len(values), *(1,) * (values.ndim - 2), values.shape[-1])
    return np.where(by_all.reshape(shape), values, np.nan)


def _late(values: np.ndarray, settings: Any) -> np.ndarray:
    """Mean over the last positions; of every text, the same positions."""
    first = int(np.floor(values.shape[-1] * (1 - settings.late_share)))
    return known_mean(values[..., max(1, first) :], -1)


def _excess_p(excess: np.ndarray, settings: Any) -> np.ndarray:
    """Is a layer's share another than uniform attention's? One family of layers for each reading."""
    p = np.full(excess.shape[1:], np.nan)
    for place in range(excess.shape[1]):
        reaching = np.isfinite(excess[:, place]).any(axis=-1)  # the other texts end before late positions
        if reaching.any():
            p[place] = compare_pairs(excess[reaching, place], seed=settings.seed)
    return p


def _not_below_rounding(interval: Interval) -> Interval:
    """No interval is narrower than float32's rounding of a share, even where all texts agree to the last bit."""
    return Interval(interval.value, interval.low - _ROUNDING, interval.high + _ROUNDING, interval.n)


def _compared(late: np.ndarray, main: str, names: list[str], settings: Any) -> dict[str, Any]:
    """Each other reading less the main one, passage by passage, mean over heads."""
    over_heads = known_mean(late, 3)
    others = [i for i, name in enumerate(names) if name != main]
    apart = np.stack([over_heads[:, i] - over_heads[:, names.index(main)] for i in others], axis=1)
    find = _mean(settings)
    overall = known_mean(apart, 2)
    return (
        interval_variables(
            "change", find(apart), "other_reading layer", "change of the late share on the first token"
        )
        | interval_variables(
            "overall_change",
            find(overall),
            "other_reading",
            "change of the late share on the first token, all layers",
        )
        | {
            "overall_change_p": quantity(
                holm([sign_flip_p(column, seed=settings.seed)[0] for column in overall.T]),
                "other_reading",
                "two-sided p of the change, by Holm's method",
            )
        }
    )


def _cautions(result: xr.Dataset, main: str) -> list[str]:
    cautions = []
    if main != "BOS first":
        cautions.append("Nothing stands first in the texts of this run: they are not read with BOS.")
    lengths = np.isfinite(result.attention_to_first.values[:, -1, :, :, :]).any(axis=(1, 2)).sum(axis=-1)
    if lengths.min() < 0.75 * lengths.max():
        cautions.append(
            f"Passages have {lengths.min()} to {lengths.max()} tokens: late positions rest on the longer ones."
        )
    if lengths.max() < 512:
        cautions.append(
            f"The longest text has {lengths.max()} tokens; --longest reads more of long passages."
        )
    return cautions


# -- sentences --------------------------------------------------------------------------------------


def claims(result: xr.Dataset) -> list[Claim]:
    """How large the share is late in the text, along it, by head, and whether it needs BOS."""
    return [*_late_claims(result), *_along_claims(result), *_reading_claims(result)]


def _late_claims(result: xr.Dataset) -> Iterator[Claim]:
    main = result.attrs["main_reading"]
    most = strongest(result, "late_share", "layer", unit="share", units="passages", reading=main)
    layer, uniform = most.select["layer"], float(result.uniform_late_share.sel(reading=main))
    yield most.claim(
        f"late in the text, heads give the first token {most.estimate} of their attention in layer {layer}, the most "
        "of "
        "any layer",
        caveat=f"{main}, mean over heads; uniform attention {uniform:.1%}",
    )
    more = finding(
        result, "late_excess", p="late_excess_p", unit="point", units="passages", reading=main, layer=layer
    )
    yield more.claim(
        f"in layer {layer} the first token gets {more.size} {more.which('more', 'less')} of the attention than under "
        "uniform attention",
        nothing=f"difference between attention to the first token in layer {layer} and uniform attention",
        caveat="late in the text; p is corrected for all layers",
        untrained=("effect", "any fixed preference counts, also one that fresh weights have by chance"),
    )
    best = strongest(
        result, "head_late_share", ("layer", "head"), unit="share", units="passages", reading=main
    )
    name = head_name(best.select["layer"], best.select["head"])
    yield best.claim(
        f"{name} gives the first token the most of all heads: {best.estimate} of its attention",
        caveat="late in the text",
    )


def _along_claims(result: xr.Dataset) -> Iterator[Claim]:
    main = result.attrs["main_reading"]
    least = strongest(
        result, "overall_along", "stretch", by=np.negative, unit="share", units="passages", reading=main
    )
    position = least.select["stretch"]
    uniform = float(result.uniform_along.sel(stretch=position, reading=main))
    yield least.claim(
        f"averaged over all heads, attention to the first token is least near position {position:.0f}: "
        f"{least.estimate}, {_times(least.value / uniform)} times that of uniform attention",
        caveat=f"{main}; stretches of positions",
    )


def _reading_claims(result: xr.Dataset) -> Iterator[Claim]:
    main = result.attrs["main_reading"]
    for other in map(str, result.other_reading.values):
        change = finding(
            result,
            "overall_change",
            p="overall_change_p",
            unit="point",
            units="passages",
            other_reading=other,
        )
        if not change.known:
            continue
        yield change.claim(
            f"the first token gets {change.size} {change.which('more', 'less')} of the attention with "
            f"{_written(other)} than with {_written(main)}",
            nothing=f"difference in attention to the first token between {_written(other)} and {_written(main)}",
            caveat="late in the text, mean over layers and heads, "
            f"{change.n[0]} passages compared with themselves",
        )


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _written(reading: str) -> str:
    return {"nothing added": "an ordinary word first", "another token first": "a random token first"}.get(
        reading, reading
    )
