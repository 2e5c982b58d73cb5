"""Up to which depth states serve later tokens, and who reads them how far, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, finding, strongest

_WITH = {
    "another text": "another text's",
    "noise": "itself under noise",
    "mean": "the mean state",
    "truncated": "what its last tokens alone would give",
    "swapped": "what its last tokens behind another text would give",
}
_READING: Untrained = ("effect", "attention of fresh weights reads earlier tokens too")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    yield _crossing(result)
    if finding(result, "half_gone", readers=str(result.readers.values[0])).known:
        yield _half_gone(result)
    if result.sizes["readers"] > 2:
        yield _far_less_near(result)
    if np.isfinite(result.share_less_control).any():
        yield _beside_control(result)
    known = np.flatnonzero(np.isfinite(result.on_the_next_token.values[:-1]))
    if known.size:
        yield _next_token(result, int(result.depth[known[0]]))


def _crossing(result: xr.Dataset) -> Claim:
    depth, by_loss, control = (
        finding(result, name, unit="1", units="passages")
        for name in ("crossing", "crossing_of_loss", "crossing_of_control")
    )
    last, horizon = int(result.depth[-1]), int(result.attrs["horizon"])
    replaced = f"replacing a state by {_WITH[result.attrs['corruption']]}"
    if not depth.known:
        return depth.claim(
            "",
            nothing="depth from which states serve their own prediction most",
            unknown=f"{replaced} changes no prediction",
            untrained=_READING,
        )
    return depth.claim(
        f"from depth {depth.estimate} of {last} on, {replaced} costs the token's own prediction more than the next "
        f"{horizon} predictions together",
        caveat=f"by the log-probability of actual next tokens {_known(by_loss)}; for a random change of the same "
        f"length {_known(control)}",
        untrained=_READING,
    )


def _known(found: Finding) -> str:
    return f"from depth {found.estimate}" if found.known else "nowhere"


def _half_gone(result: xr.Dataset) -> Claim:
    readers = str(result.readers.values[0])
    depth = finding(result, "half_gone", unit="1", units="passages", readers=readers)
    return depth.claim(
        f"by depth {depth.estimate}, predictions {readers} have taken half of what they take from a state",
        caveat="where the effect of a corruption falls to half for good",
        untrained=_READING,
    )


def _far_less_near(result: xr.Dataset) -> Claim:
    gap = finding(result, "far_less_near", unit="layer", units="passages")
    _, near, far = (str(name) for name in result.readers.values)
    taken = "have taken half of what they take from a state"
    return gap.claim(
        f"predictions {far} {taken} {gap.size} {gap.which('later', 'earlier')} than those {near}",
        nothing=f"difference between predictions {far} and {near} in the depth at which they {taken}",
        unknown="replacing a state changes none of these predictions",
        caveat=f"over {result.attrs['passages']} passages",
        untrained=_READING,
    )


def _beside_control(result: xr.Dataset) -> Claim:
    # The last depth is no comparison: both shares are 0 there by construction.
    gap = strongest(
        result.isel(depth=slice(0, -1)),
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
        caveat=f"significant at {gap.where}",
        untrained=("effect", "another text's states lie where states lie, random changes anywhere"),
    )


def _next_token(result: xr.Dataset, depth: int) -> Claim:
    horizon = int(result.attrs["horizon"])
    share = finding(result, "on_the_next_token", unit="share", units="passages", depth=depth)
    return share.claim(
        f"{share.estimate} of what the next {horizon} predictions lose when a state is replaced at depth {depth} falls "
        "on the very next one",
        caveat=f"spread evenly it would be {share.other(1 / horizon)}",
        untrained=_READING,
    )
