"""What future_use says in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.plots.numbers import number

_LEVEL = 0.05


def claims(result: xr.Dataset) -> list[Claim]:
    """Sentences, each with the cells that it rests on."""
    found = [
        _crossing(result),
        _half_gone(result),
        _far_less_near(result),
        _control(result),
        _next_token(result),
    ]
    return [claim for claim in found if claim is not None]


def _ends(result: xr.Dataset, name: str, **cell: object) -> tuple[float, float, float]:
    value, low, high = (float(result[f"{name}{end}"].sel(cell)) for end in ("", "_low", "_high"))
    return value, low, high


def _crossing(result: xr.Dataset) -> Claim:
    value, low, high = _ends(result, "crossing")
    last, horizon = int(result.depth[-1]), int(result.attrs["horizon"])
    corrupted = f"a state replaced by {_WITH[result.attrs['corruption']]}"
    if np.isnan(value):
        text = f"{corrupted} changes no prediction: it serves neither present nor future"
    elif value <= 0:
        text = f"{corrupted} is missed more by the token's own prediction than by the next {horizon} at every depth"
    else:
        text = (
            f"up to depth {number(value)} of {last}, {corrupted} is missed more by the next {horizon} predictions "
            "together than by the token's own; deeper, more by its own"
        )
    other, control = float(result.crossing_of_loss), float(result.crossing_of_control)
    return Claim(
        text=text,
        value=number_or_none(value),
        low=number_or_none(low),
        high=number_or_none(high),
        caveat=f"interval over {result.attrs['passages']} passages; by the log-probability of actual next tokens "
        f"{number(other)}, for a random change of the same length {number(control)}; counted over "
        f"{int(result.horizon[0])} later token it would be {number(float(result.crossing_by_horizon[0]))}",
        select={"variable": "crossing"},
    )


_WITH = {
    "another text": "another text's",
    "noise": "itself under noise",
    "mean": "the mean state",
    "truncated": "what its last tokens alone would give",
    "swapped": "what its last tokens behind another text would give",
}


def _half_gone(result: xr.Dataset) -> Claim | None:
    readers = str(result.readers.values[0])
    value, low, high = _ends(result, "half_gone", readers=readers)
    if np.isnan(value):
        return None
    return Claim(
        text=f"by depth {number(value)}, predictions {readers} have taken half of what they take from a state",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        caveat="where the effect of a corruption falls to half of its largest for good",
        select={"variable": "half_gone", "readers": readers},
    )


def _far_less_near(result: xr.Dataset) -> Claim | None:
    value, low, high = _ends(result, "far_less_near")
    if np.isnan(value) or result.sizes["readers"] < 3:
        return None
    told = bool(low > 0 or high < 0)
    _, near, far = (str(name) for name in result.readers.values)
    order = ("deeper" if value > 0 else "less deep") if told else "not distinguishably to another depth"
    return Claim(
        text=f"predictions {far} take from a state {order} than those {near} (by {number(value)} blocks)",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        significant=told,
        caveat="difference of the depths at which half of either effect is gone: above 0 if early layers serve near "
        f"readers; interval over {result.attrs['passages']} passages",
        select={"variable": "far_less_near"},
    )


def _control(result: xr.Dataset) -> Claim | None:
    p = result.share_less_control_p.values
    if not np.isfinite(p).any():
        return None
    told = [int(depth) for depth, one in zip(result.depth.values, p, strict=True) if one < _LEVEL]
    depth = int(result.depth[int(np.nanargmin(p))])
    value, low, high = _ends(result, "share_less_control", depth=depth)
    where = (
        f"at {len(told)} of {len(p) - 1} depths the future share differs"
        if told
        else "at no depth does the future share distinguishably differ"
    )
    return Claim(
        text=f"{where} from that of a random change of the same length; at depth {depth} it "
        f"is {'higher' if value > 0 else 'lower'} by {number(abs(value))}",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        p_adjusted=float(np.nanmin(p)),
        significant=bool(told),
        caveat="signs dealt to whole passages, corrected for all depths; the depth shown has the smallest p",
        select={"variable": "share_less_control", "depth": depth},
    )


def _next_token(result: xr.Dataset) -> Claim | None:
    shares = result.on_the_next_token.values
    if not np.isfinite(shares[:-1]).any():
        return None
    depth = int(result.depth[np.flatnonzero(np.isfinite(shares[:-1]))[0]])
    value, low, high = _ends(result, "on_the_next_token", depth=depth)
    horizon = int(result.attrs["horizon"])
    return Claim(
        text=f"of what the next {horizon} predictions lose when a state is replaced at depth {depth}, {value:.0%} "
        "falls on the very next one",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        caveat=f"spread evenly it would be {1 / horizon:.0%}",
        select={"variable": "on_the_next_token", "depth": depth},
    )
