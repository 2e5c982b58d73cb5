"""What future_use says in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, strongest

_WITH = {
    "another text": "another text's",
    "noise": "itself under noise",
    "mean": "the mean state",
    "truncated": "what its last tokens alone would give",
    "swapped": "what its last tokens behind another text would give",
}


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


def _crossing(result: xr.Dataset) -> Claim:
    depth = finding(result, "crossing", unit="1", units="passages")
    last, horizon = int(result.depth[-1]), int(result.attrs["horizon"])
    replaced = f"replacing a state by {_WITH[result.attrs['corruption']]}"
    if not depth.known:
        return depth.claim(
            "",
            nothing="depth up to which states serve later tokens more",
            unknown=f"{replaced} changes no prediction",
        )
    ours, next_ones = "the token's own prediction", f"the next {horizon} predictions together"
    says = (
        f"up to depth {depth.estimate} of {last}, {replaced} costs {next_ones} more than {ours}"
        if depth.value > 0
        else f"at every depth, {replaced} costs {ours} more than {next_ones}"
    )
    other, control = float(result.crossing_of_loss), float(result.crossing_of_control)
    fewest = float(result.crossing_by_horizon[0])
    return depth.claim(
        says,
        caveat=f"over {result.attrs['passages']} passages; by the log-probability of actual next tokens "
        f"{depth.other(other)}, for a random change of the same length {depth.other(control)}; counted over "
        f"{int(result.horizon[0])} later token {depth.other(fewest)}",
    )


def _half_gone(result: xr.Dataset) -> Claim | None:
    readers = str(result.readers.values[0])
    depth = finding(result, "half_gone", unit="1", units="passages", readers=readers)
    if not depth.known:
        return None
    return depth.claim(
        f"by depth {depth.estimate}, predictions {readers} have taken half of what they take from a state",
        caveat="where the effect of a corruption falls to half of its largest for good",
    )


def _far_less_near(result: xr.Dataset) -> Claim | None:
    gap = finding(result, "far_less_near", unit="layer", units="passages")
    if not gap.known or result.sizes["readers"] < 3:
        return None
    _, near, far = (str(name) for name in result.readers.values)
    return gap.claim(
        f"predictions {far} have taken half of what they take from a state {gap.size} "
        f"{gap.which('later', 'earlier')} than those {near}",
        nothing=f"difference between predictions {far} and {near} in the depth at which they have taken half of what "
        "they take from a state",
        caveat=f"over {result.attrs['passages']} passages",
    )


def _control(result: xr.Dataset) -> Claim | None:
    if not np.isfinite(result.share_less_control_p).any():
        return None
    gap = strongest(
        result,
        "share_less_control",
        "depth",
        by=np.abs,
        p="share_less_control_p",
        unit="point",
        units="passages",
    )
    return gap.claim(
        f"the future share at depth {gap.select['depth']} is {gap.size} {gap.which('higher', 'lower')} than for a "
        "random change of the same length",
        nothing="difference in the future share from a random change of the same length, at any depth",
        caveat=f"significant at {gap.where}; sign-flip permutation over passages, corrected for all depths",
    )


def _next_token(result: xr.Dataset) -> Claim | None:
    known = np.flatnonzero(np.isfinite(result.on_the_next_token.values[:-1]))
    if not known.size:
        return None
    depth, horizon = int(result.depth[known[0]]), int(result.attrs["horizon"])
    share = finding(result, "on_the_next_token", unit="share", units="passages", depth=depth)
    return share.claim(
        f"{share.estimate} of what the next {horizon} predictions lose when a state is replaced at depth {depth} falls "
        "on the very next one",
        caveat=f"spread evenly it would be {1 / horizon:.0%}",
    )
