"""Heads with a role: their score, its interval, and the threshold that both must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence import head_name
from layerscope.evidence.wording import article, interval, measured, sentence

THRESHOLD = 0.3
"""Share of a head's attention that makes it a head of that role: what `attention_patterns` calls a sink by."""

_NAMED = 5
"""So many weaker heads are named in a sentence."""


@dataclass(frozen=True)
class Role:
    """A role of heads: what it is called, which score of which experiment says so, and what that is a share of."""

    name: str
    experiment: str
    variable: str
    share: str


_PATTERNS = "attention_patterns"
ROLES = (
    Role(
        "previous-token head",
        _PATTERNS,
        "head_previous_token_share",
        "of its attention on the previous token",
    ),
    Role(
        "induction head",
        _PATTERNS,
        "head_repeat_induction_share",
        "of its attention on what followed an earlier copy of the token",
    ),
    Role(
        "duplicate-token head",
        _PATTERNS,
        "head_repeat_duplicate_share",
        "of its attention on earlier copies of the token",
    ),
    Role("first-token head", _PATTERNS, "head_first_token_share", "of its attention on the first token"),
    Role(
        "subject reader",
        "final_token_attention",
        "head_subject_excess",
        "more of the last token's attention on the subject than uniform attention gives",
    ),
)


@dataclass(frozen=True)
class HeadWithRole:
    """One head, its role, and the score with its interval (for all heads of the model at once, where there is such)."""

    role: Role
    layer: int
    head: int
    value: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """Which head it is: L3H1."""
        return head_name(self.layer, self.head)

    def said(self, others: Sequence[HeadWithRole] = ()) -> str:
        """The sentence on it, and on weaker heads of the same layer with the same role."""
        share = measured(self.value, "share", self.low, self.high)
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        weaker = ", ".join(one.name for one in others[:_NAMED]) + more
        is_one = (
            f"is the strongest of {1 + len(others)} {self.role.name}s (then {weaker})"
            if others
            else f"is {article(self.role.name)}"
        )
        return sentence(
            f"{self.name} {is_one}: {share} {self.role.share}", interval("share", self.low, self.high, 0.95)
        )


def said_of_layer(heads: Sequence[HeadWithRole], layer: int) -> list[str]:
    """A sentence on each role that heads of a layer have.

    Args:
        heads: of `heads_with_roles`, strongest first within a role.
    """
    here = [one for one in heads if one.layer == layer]
    alike = ([one for one in here if one.role == role] for role in ROLES)
    return [first.said(others) for first, *others in filter(None, alike)]


def heads_with_roles(results: Mapping[str, xr.Dataset]) -> tuple[HeadWithRole, ...]:
    """All heads whose score's lower end lies above THRESHOLD, by role, strongest first.

    The first token's share counts as a role of single heads only; of the best of many, ends that hold for all heads at
    once are used where the result has them.

    Args:
        results: of one model, by experiment; those without head scores are passed over.
    """
    found: list[HeadWithRole] = []
    for role in ROLES:
        if role.experiment in results and role.variable in results[role.experiment]:
            found += _heads(results[role.experiment], role)
    return tuple(found)


def _heads(result: xr.Dataset, role: Role) -> list[HeadWithRole]:
    joint = f"{role.variable}_joint_low" in result
    ends = [f"{role.variable}{'_joint' * joint}_{end}" for end in ("low", "high")]
    value, low, high = (_by_head(result[name]) for name in (role.variable, *ends))
    places = np.argwhere(low > THRESHOLD)
    heads = [
        HeadWithRole(role, int(a), int(b), value[a, b], low[a, b], min(high[a, b], 1.0)) for a, b in places
    ]
    return sorted(heads, key=lambda head: -head.value)


def _by_head(scores: xr.DataArray) -> np.ndarray:
    """[layer head], of the first label of every other dimension: all attention, before anything is set aside."""
    others = {dim: 0 for dim in scores.dims if dim not in ("layer", "head")}
    return np.asarray(scores.isel(others).transpose("layer", "head").values)
