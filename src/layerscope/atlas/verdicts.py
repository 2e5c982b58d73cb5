"""Whether a claim that somebody published holds on the model at hand: holds, does not hold, cannot be decided here.

A claim has parts; each part is a number with an interval, a prediction, and the smallest effect that would matter,
fixed with its reason where the claim is written down, before any result is seen. *Holds*: every part's interval,
widened for all claims of the post, lies wholly beyond the smallest effect on the predicted side. *Does not hold*: some
part's interval excludes it. Everything else cannot be decided here, and the verdict says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import xarray as xr

from layerscope.evidence.wording import interval, measured
from layerscope.maths.several_claims import is_above, is_within, widened

Holds = Literal["holds", "does not hold", "cannot be decided here"]
_SAID: dict[bool | None, Holds] = {True: "holds", False: "does not hold", None: "cannot be decided here"}
LEVEL = 0.95
"""All intervals of a post hold together at this level."""


class CannotBeDecidedError(Exception):
    """Why there is no estimate: raised by what reads one, said in the verdict."""


@dataclass(frozen=True)
class Pinned:
    """A run that a claim needs: the experiment, and what of its settings the claim fixes.

    Attributes:
        experiment: its name.
        settings: those that are fixed; all others are free.
        prompts: the set, where it is not the one that the model is asked by default: what stands behind its name, as
            "invented" in "english-invented".
    """

    experiment: str
    settings: tuple[tuple[str, Any], ...] = ()
    prompts: str = ""

    @classmethod
    def of(cls, experiment: str, prompts: str = "", **settings: Any) -> Pinned:
        """The same with settings by name."""
        return cls(experiment, tuple(sorted(settings.items())), prompts)

    @property
    def said(self) -> str:
        """In words: "causal_trace (noise=11sd, positions=rows) on invented prompts"."""
        inside = ", ".join(f"{name}={_short(value)}" for name, value in self.settings)
        return (
            self.experiment
            + f" ({inside})" * bool(inside)
            + f" on {self.prompts} prompts" * bool(self.prompts)
        )


def _short(value: Any) -> str:
    """A setting in a sentence: numbers to three digits."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


Results = Mapping[Pinned, xr.Dataset]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval at `level`, in a unit that `wording` knows, and what it rests on."""

    value: float
    low: float
    high: float
    unit: str = "1"
    n: int | None = None
    units: str = "prompts"
    level: float = LEVEL

    def together(self, claims: int) -> Estimate:
        """The same with an interval that holds for so many claims at once."""
        low, high = widened(self.value, self.low, self.high, level=self.level, claims=claims)
        return Estimate(self.value, low, high, self.unit, self.n, self.units, self.level)

    def __str__(self) -> str:
        inside = [interval(self.unit, self.low, self.high, self.level)]
        inside += [f"{self.n} {self.units}"] if self.n is not None else []
        return f"{measured(self.value, self.unit, self.low, self.high)} ({', '.join(filter(None, inside))})"


@dataclass(frozen=True)
class Part:
    """One number of a claim, and what must be true of it.

    Attributes:
        what: the number in words: "crossover, recall less non-English regurgitation".
        needs: the run that it is read from.
        read: results to the number; raises `CannotBeDecidedError` with the reason where there is none.
        predicted: "above": larger than `smallest`; "within": smaller than it, whichever way.
        smallest, because: the smallest effect of interest, in the number's unit, and why it is that.
        and_needs: further runs that it is read from.
    """

    what: str
    needs: Pinned
    read: Callable[[Results], Estimate]
    predicted: Literal["above", "within"]
    smallest: float
    because: str
    and_needs: tuple[Pinned, ...] = ()

    def decided(self, estimate: Estimate) -> bool | None:
        """Whether the prediction holds, by an interval that holds for all claims."""
        test = is_above if self.predicted == "above" else is_within
        return test(estimate.low, estimate.high, self.smallest)

    @property
    def asked(self) -> str:
        """What must be true of the number: "more than 0.1", "within 0.05 of 0"."""
        size = f"{self.smallest:g}".replace("-", "−")
        return f"more than {size}" if self.predicted == "above" else f"within {size} of 0"


@dataclass(frozen=True)
class PostClaim:
    """What was said, where, and how it is put to a model.

    Attributes:
        name: short, unique within its post.
        said: the claim in one sentence, in our words.
        where: the place in the post.
        by: who said it, where that is not the post's author.
        published: the figure that was published, with its model; empty where there is none.
        parts: all of them must hold.
        other_side: what an objection predicts instead; empty where nobody objected.
        reading: how a vague claim was read, and how else it could be.
    """

    name: str
    said: str
    where: str
    parts: tuple[Part, ...]
    by: str = ""
    published: str = ""
    other_side: str = ""
    reading: str = ""


@dataclass(frozen=True)
class Post:
    """A post: its name in `--post`, its title and author, and what it claims."""

    name: str
    title: str
    claims: tuple[PostClaim, ...]

    @property
    def tests(self) -> int:
        """Over how many numbers the intervals are widened: all parts, decided beforehand."""
        return sum(len(claim.parts) for claim in self.claims)

    @property
    def needs(self) -> tuple[Pinned, ...]:
        """The runs that its claims are read from."""
        parts = (part for claim in self.claims for part in claim.parts)
        return tuple(dict.fromkeys(need for part in parts for need in (part.needs, *part.and_needs)))


@dataclass(frozen=True)
class Decided:
    """One part on one model: the number, whether its prediction holds, or why it is not known."""

    part: Part
    estimate: Estimate | None
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """One claim on one model.

    Attributes:
        post, claim: which.
        model: its name.
        holds: the verdict.
        parts: the numbers that it rests on.
        twins: verdicts of untrained twins on the same claim, by seed.
    """

    post: Post
    claim: PostClaim
    model: str
    parts: tuple[Decided, ...]
    twins: Mapping[int, Holds] = field(default_factory=dict)

    @property
    def holds(self) -> Holds:
        """Holds with every part; does not hold with one that does not."""
        each = [one.holds for one in self.parts]
        return _SAID[False if False in each else None if None in each else True]

    @property
    def why(self) -> str:
        """Why it cannot be decided; empty where it is."""
        return (
            "; ".join(dict.fromkeys(one.why for one in self.parts if one.why))
            if self.holds == _SAID[None]
            else ""
        )

    @property
    def measured(self) -> str:
        """The numbers in words."""
        known = [one for one in self.parts if one.estimate is not None]
        return "; ".join(f"{one.part.what}: {one.estimate}" for one in known)

    @property
    def of_twins(self) -> str:
        """What untrained twins show: a claim that holds of them too is not about what was learnt."""
        if not self.twins:
            return ""
        holding = sum(verdict == "holds" for verdict in self.twins.values())
        return f"holds in {holding} of {len(self.twins)} untrained twins"


def judge(
    post: Post, results: Results, model: str, twins: Mapping[int, Results] | None = None
) -> list[Verdict]:
    """Every claim of a post on one model.

    Args:
        post: what was claimed.
        results: of the runs that its claims need, as far as there are any.
        model: its name.
        twins: the same of untrained twins, by seed; a claim is judged of those that have all it needs.
    """
    return [
        Verdict(
            post,
            claim,
            model,
            _decided(claim, results, post.tests),
            _of_twins(claim, twins or {}, post.tests),
        )
        for claim in post.claims
    ]


def _of_twins(claim: PostClaim, twins: Mapping[int, Results], tests: int) -> dict[int, Holds]:
    found = {}
    for seed, results in twins.items():
        parts = _decided(claim, results, tests)
        if all(one.estimate is not None for one in parts):
            each = [one.holds for one in parts]
            found[seed] = _SAID[False if False in each else None if None in each else True]
    return found


def _decided(claim: PostClaim, results: Results, tests: int) -> tuple[Decided, ...]:
    return tuple(_of_one(part, results, tests) for part in claim.parts)


def _of_one(part: Part, results: Results, tests: int) -> Decided:
    missing = [need.said for need in (part.needs, *part.and_needs) if need not in results]
    if missing:
        return Decided(part, None, None, f"{' and '.join(missing)} was not run")
    try:
        estimate = part.read(results).together(tests)
    except CannotBeDecidedError as reason:
        return Decided(part, None, None, str(reason))
    except KeyError as unknown:  # a twin's shipped result holds less, an older run knows less
        named = re.search(r"'([^']+)'", str(unknown))
        return Decided(part, None, None, f"{part.needs.said} did not keep {named[1] if named else unknown}")
    if not math.isfinite(estimate.value):
        return Decided(part, None, None, f"no value of {part.what}")
    holds = part.decided(estimate)
    open_ends = math.isnan(estimate.low) or math.isnan(estimate.high)
    too_few = f"too few {estimate.units} for an interval of {part.what}"
    wide = f"the interval of {part.what} holds the smallest effect of interest, {part.smallest:g}"
    return Decided(part, estimate, holds, "" if holds is not None else too_few if open_ends else wide)


def needs_of(posts: Sequence[Post]) -> tuple[Pinned, ...]:
    """All runs that the claims of some posts need, each once."""
    return tuple(dict.fromkeys(need for post in posts for need in post.needs))
