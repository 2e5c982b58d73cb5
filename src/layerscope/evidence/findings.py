"""A quantity of a result that knows how to say itself: value, interval, p, null, place, direction and digits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import wording
from layerscope.evidence.places import places_in_words
from layerscope.evidence.wording import ALPHA
from layerscope.maths.prediction import prediction_interval

FEWEST_UNITS = 6
"""Units from which an interval alone may decide (maths/bootstrap.py)."""


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
        twins: the same number of untrained twins, where the result holds it as `untrained_` and the variable's name.
        select: where it stands in the result.
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

    @property
    def beyond_twins(self) -> bool | None:
        """Whether it lies outside of where another untrained twin would; None with too few twins to say."""
        low, high = prediction_interval(np.asarray(self.twins, dtype=float), level=self.level)
        return None if math.isnan(low) else not low <= self.value <= high

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
            untrained: what an untrained twin must come to, declared beforehand, and why.
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
            untrained=untrained,
            caveat="; ".join(filter(None, [caveat, self._picked(), _beside_twins(untrained)])),
            select=dict(self.select),
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
        turned = self.value < self.null and self.null == 0 and not signed
        said = replace(self, low=-self.high, high=-self.low) if turned else self
        return wording.sentence(says, said.interval, wording.p_in_words(self.p, self.least_p))

    def _picked(self) -> str:
        if self.family < 2:
            return ""
        if math.isnan(self.low):
            return f"best of {self.family}"
        kind = "interval for all of them at once" if self.joint else "interval of this one alone"
        return f"best of {self.family}, {kind}"


def finding(
    result: xr.Dataset,
    name: str,
    *,
    p: str = "",
    null: float = 0.0,
    unit: str = "",
    units: str = "",
    n: Sequence[str] = (),
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
        return finding(result, name, **options, **how, **first)
    p = result[p_name].sel(how).transpose(*dims).values if p_name in result else np.full(known.shape, np.nan)
    clear = known & (p < ALPHA)
    # Of those that are significant; if none is, of those that could be; if none could, of all.
    allowed = next(some for some in (clear, known & np.isfinite(p), known) if some.any())
    place = np.unravel_index(int(np.where(allowed, by(values.values), -np.inf).argmax()), values.shape)
    cell = {dim: _label(values, dim, int(index)) for dim, index in zip(dims, place, strict=True)}
    found = finding(result, name, **options, **how, **cell)
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
    result: xr.Dataset, name: str, p: str, *, nothing: str, of: str, caveat: str = "", **labels: Any
) -> Claim:
    """One sentence on all cells of a family that are not significant, where each alone would be too many.

    Args:
        result: of the experiment.
        name: of the variable.
        p: name of the variable of its p.
        nothing: what was looked for, a noun without an article.
        of: what the cells are, plural: "pairs of categories".
        caveat: what qualifies it.
        labels: the cell of other dimensions.
    """
    known = result[p].sel(labels).values
    quiet, tested = int((known >= ALPHA).sum()), int(np.isfinite(known).sum())
    return Claim(
        text=wording.null_sentence(f"{nothing} in {quiet} of {tested} {of}"),
        significant=False,
        stated=True,
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


def number_or_none(value: float | np.ndarray | xr.DataArray) -> float | None:
    """A single number for a claim; None where it is not known."""
    number = float(value)
    return number if math.isfinite(number) else None


def _beside_twins(untrained: Untrained | None) -> str:
    """Said with every claim whose null is not an untrained twin's: only twins tell what training brought."""
    if untrained is None or untrained[0] != "effect":
        return ""
    return f"untrained twins show an effect too: {untrained[1]}"
