"""Claims beside those of untrained twins: the same numbers, and whether training has anything to do with them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import xarray as xr

from layerscope.contract import Claim, Experiment
from layerscope.evidence import wording


def claims_beside(experiment: Experiment, result: xr.Dataset, twins: Iterable[xr.Dataset]) -> list[Claim]:
    """What an experiment claims of a result, judged beside its results on the model's untrained twins."""
    return beside_twins(experiment.claims(result), [experiment.claims(twin) for twin in twins])


def beside_twins(claims: Sequence[Claim], of_twins: Sequence[Sequence[Claim]]) -> list[Claim]:
    """Claims that know the same number of each twin.

    Claims are the same that rest on the same quantity, at the same labels but for those that were picked as the
    best of many; of several such, the first is the first. One that is significant and declared an `effect` (an
    untrained model shows it too) stays significant only outside the 95 % prediction interval for one more twin.
    Fewer than five twins are known and decide nothing.

    Args:
        claims: of the model.
        of_twins: of each twin, from the same experiment asked the same.
    """
    others = [_by_quantity(each) for each in of_twins]
    seen: dict[str, int] = defaultdict(int)
    found = []
    for claim in claims:
        place = seen[claim.about]
        seen[claim.about] += 1
        same = (each[claim.about][place] for each in others if len(each[claim.about]) > place)
        values = tuple(one.value for one in same if one.value is not None)
        found.append(_judged(claim.model_copy(update={"twins": values})) if values else claim)
    return found


def _by_quantity(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        found[claim.about].append(claim)
    return found


def _judged(claim: Claim) -> Claim:
    """The claim, as its twins leave it."""
    low, high = claim.twins_range
    effect = claim.untrained is not None and claim.untrained[0] == "effect"
    if not (effect and claim.significant) or claim.value is None or math.isnan(low):
        return claim
    said = (-high, -low) if claim.unsigned else (low, high)
    between = wording.range_of_twins(claim.unit, *said)
    if low <= claim.value <= high:
        text = f"{claim.text.removesuffix('.')}, within the range of untrained twins ({between})."
        return claim.model_copy(update={"significant": False, "text": text})
    beyond = f"outside the range of {len(claim.twins)} untrained twins ({between})"
    caveat = claim.caveat.replace(wording.twins_too(claim.untrained), beyond)
    return claim.model_copy(update={"caveat": caveat})
