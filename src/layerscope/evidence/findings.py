"""A quantity of a result that knows how to say itself: value, interval, p, null, place, direction and digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import wording
from layerscope.evidence.places import places_in_words
from layerscope.evidence.wording import ALPHA
from layerscope.maths.bootstrap import FEWEST_UNITS

COMPARES_NOTHING: Untrained = ("not applicable", "it compares nothing")
"""What a claim declares of untrained twins that no verdict belongs to."""


@dataclass(frozen=True)
class Finding:
    """One number of a result with all that a sentence about it may need.

    Attributes:
        value: NaN where it is unknown.
        low, high: its interval; of the best of many, one that holds for all of them at once where there is such.
        unit: of all three, as `named` was told; "share" is said as a percentage, "point" in percentage points.
        level: of the interval.
        n: units that it rests on; two numbers where two groups are compared.
        units: what n counts: "prompts", "passages".
        null: the value that means no effect.
        tested: whether there is a p, so that p decides and not the interval. An interval decides from six units on:
            of fewer, no percentile interval reaches 95 %.
        p: adjusted for every comparison of its family.
        least_p: the smallest adjusted p that was possible.
        least_alone: the smallest p of this comparison alone that was possible.
        family: of how many it was picked as the best; 0 where nothing was picked.
        joint: whether the interval holds for all of that family.
        clear: how many of the family are significant.
        also: where they are, the picked one included, if the family lies along one dimension.
        beyond: whether it also exceeds what was declared a condition beforehand, such as every random control.
        twins: the same number of untrained twins, where the result holds it as `untrained_` and the variable's name;
            what runs on twins found, claims are told (evidence/twins.py).
        select: where it stands in the result.
        picked: dimensions along which that place was picked: a twin's best may lie elsewhere.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    unit: str = "1"
    level: float = 0.95
    n: tuple[int, ...] = ()
    units: str = "units"
    null: float = 0.0
    tested: bool = False
    p: float = math.nan
    least_p: float = math.nan
    least_alone: float = math.nan
    family: int = 0
    joint: bool = False
    clear: int = 0
    also: tuple[int, ...] = ()
    beyond: bool = True
    twins: tuple[float, ...] = ()
    select: Mapping[str, Any] = field(default_factory=dict)
    picked: tuple[str, ...] = ()

    # -- what is known ---------------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        """Whether there is a value at all."""
        return math.isfinite(self.value)

    @property
    def testable(self) -> bool:
        """Whether a significant outcome was possible: there is a p that could have been small, or an interval."""
        if self.tested:
            return math.isfinite(self.p) and not self.least_p >= ALPHA
        enough = not self.n or min(self.n) >= FEWEST_UNITS
        return enough and math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def significant(self) -> bool:
        """Whether it differs from its null: by p where there is one, else by the interval; never where untestable."""
        if not (self.known and self.testable and self.beyond):
            return False
        return self.p < ALPHA if self.tested else self.low > self.null or self.high < self.null

    # -- words -----------------------------------------------------------------------------------------

    def which(self, positive: str, negative: str) -> str:
        """The word for a value above its null, or for one below: the one place where a direction is chosen."""
        return negative if self.value < self.null else positive

    @property
    def size(self) -> str:
        """How far the value lies from its null, without a sign, in its unit: `which` says the direction."""
        return wording.measured(abs(self.value - self.null), self.unit, self.low, self.high)

    @property
    def estimate(self) -> str:
        """The value itself in its unit."""
        return wording.measured(self.value, self.unit, self.low, self.high)

    @property
    def interval(self) -> str:
        """The interval in words."""
        return wording.interval(self.unit, self.low, self.high, self.level)

    @property
    def where(self) -> str:
        """The places of the family that are significant, in words: "depths 1 and 3"."""
        dimension = next(reversed(list(self.select)), "")
        return places_in_words(self.also, str(dimension))

    def other(self, value: float) -> str:
        """Another number in the same unit and to the same digit, for a null or a control beside this one."""
        return wording.measured(value, self.unit, self.low, self.high)

    # -- sentences -------------------------------------------------------------------------------------

    def claim(
        self,
        says: str,
        *,
        nothing: str = "",
        unknown: str = "",
        caveat: str = "",
        untrained: Untrained | None = None,
        signed: bool = False,
    ) -> Claim:
        """The claim that this finding supports: its own sentence, the null's, or that there was too little to test.

        Args:
            says: what holds if the finding is significant, without its interval and without a full stop.
            nothing: a noun without an article, for "No detectable ...": what was looked for. A claim that
                compares nothing has none: it is said as it is.
            unknown: why there is no estimate, for where there is none.
            caveat: what qualifies it, in at most one sentence.
            untrained: what an untrained twin must come to, declared beforehand, and why; a claim that compares
                nothing need not say it.
            signed: whether `says` gives the value with its sign. Else a sentence that says a negative value by
                `which` and `size` has its interval turned round too.
        """
        compares = bool(nothing)
        return Claim(
            text=self._text(says, nothing, unknown, signed),
            value=number_or_none(self.value),
            low=number_or_none(self.low),
            high=number_or_none(self.high),
            unit=self.unit,
            n=min(self.n) if self.n else None,
            p_adjusted=number_or_none(self.p),
            significant=self.significant if compares else None,
            stated=True,
            untrained=untrained or (None if compares else COMPARES_NOTHING),
            unsigned=compares and self.significant and self._turned(signed),
            caveat="; ".join(filter(None, [caveat, self._picked(), wording.twins_too(untrained)])),
            select=dict(self.select),
            picked=self.picked,
        )

    def _text(self, says: str, nothing: str, unknown: str, signed: bool) -> str:
        if not self.known and nothing:
            return wording.unknown_sentence(nothing, unknown)
        if not nothing:
            return wording.sentence(says, self.interval)
        if not self.testable:
            return wording.too_few_sentence(
                nothing, self.n, self.units, self.least_alone, self.least_p, self.estimate
            )
        if not self.significant:
            return wording.null_sentence(nothing, self.estimate, self.interval)
        said = replace(self, low=-self.high, high=-self.low) if self._turned(signed) else self
        return wording.sentence(says, said.interval, wording.p_in_words(self.p, self.least_p))

    def _turned(self, signed: bool) -> bool:
        """Whether a sentence says it without its minus, so that its interval is turned round too."""
        return self.value < self.null and self.null == 0 and not signed

    def _picked(self) -> str:
        if self.family < 2:
            return ""
        if math.isnan(self.low):
            return f"best of {self.family}"
        kind = "interval for all of them at once" if self.joint else "interval of this one alone"
        return f"best of {self.family}, {kind}"


def number_or_none(value: float | np.ndarray | xr.DataArray) -> float | None:
    """A single number for a claim; None where it is not known."""
    number = float(value)
    return number if math.isfinite(number) else None
