"""What an experiment is made of. Everything else (progress, resume, replay, plan, report) rests on it.

An experiment is a folder whose `__init__` holds a docstring whose first line is its question, `TAKES`,
`Settings`, `STAGES`, `conclude`, `claims`, `over_depth` and `draw`. Other packages build on this module and
on `layerscope.evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator

from layerscope.maths.prediction import prediction_interval
from layerscope.models.facts import ModelFacts
from layerscope.results.annotation_sheets import Judgements, Sheet
from layerscope.results.notebook import as_html
from layerscope.results.pages import Page
from layerscope.results.record import PlugIn
from layerscope.results.schema import GROWS
from layerscope.text.passages import Passage
from layerscope.text.prompts import Prompt
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt
from layerscope.text.tokenised_words import TokenisedSentence, TokenisedWord
from layerscope.text.tokens import BosPolicy

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

__all__ = [
    "OPERATIONS_A_SECOND",
    "Claim",
    "Earlier",
    "Experiment",
    "ExperimentSettings",
    "Group",
    "Inputs",
    "Judged",
    "Passage",
    "Prompt",
    "Stage",
    "TokenisedPassage",
    "TokenisedPrompt",
    "TokenisedSentence",
    "TokenisedWord",
    "Untrained",
    "WorkItem",
]

Earlier = Mapping[str, xr.Dataset]
"""Results of the stages before this one, by name: laid one after another, or folded."""


MOST, MOST_DRAWS = 1_000_000, 100_000
"""Bounds on whole numbers among settings, and on numbers of draws: beyond them a run would not end, or not fit."""

_DRAWS = ("samples", "draws", "permutations", "repeats")


class ExperimentSettings(BaseModel):
    """Choices of an experiment: frozen, checked, and saved whole with the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON holds neither

    seed: int = Field(
        0, ge=0, lt=2**64, description="seed of every random draw; resamples and permutations use it too"
    )

    @property
    def together(self) -> int:
        """Draws that depend on one another: numbers of draws are multiples of it."""
        return 1

    @property
    def needs_first(self) -> bool:
        """Whether the experiment, so set, cannot do without a token that stands first."""
        return False

    def seeded(self, *names: object) -> np.random.Generator:
        """A numpy generator of a named stream of the run's seed: the same names give the same draws."""
        from layerscope.runs.noise import stream

        return np.random.default_rng(stream(self.seed, *names).initial_seed())

    @field_validator("*", mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, value: Any, field: Any) -> Any:  # a ValidationInfo
        given = value if isinstance(value, list | tuple) else (value,)
        switch = any(isinstance(one, bool) for one in given)
        if switch and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError("a number or a word, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _it_ends_within_a_lifetime(cls, value: Any, field: Any) -> Any:
        name = str(field.field_name)
        most = MOST_DRAWS if name.endswith(_DRAWS) else MOST
        given = value if isinstance(value, list | tuple) else (value,)
        if name != "seed" and any(isinstance(one, int) and one > most for one in given):
            raise ValueError(f"at most {most:,}")
        return value


class Inputs(BaseModel):
    """What a run is about: the texts as this model's tokenizer reads them, and the model's own facts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: ModelFacts
    prompts: tuple[TokenisedPrompt, ...] = ()
    passages: tuple[TokenisedPassage, ...] = ()
    treebank: tuple[TokenisedSentence, ...] = ()
    words: tuple[TokenisedWord, ...] = ()
    bos: BosPolicy = Field(
        "auto", description="what stands first, also before texts that an experiment writes itself"
    )
    tokens_per_pass: int = Field(2048, gt=0, description="bound on rows times tokens of one forward pass")


class WorkItem(BaseModel):
    """A piece of work of at most about a minute, that can be sent to another process.

    Subclasses add what the work is about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what progress shows")
    size: float = Field(
        gt=0,
        description="expected cost in floating-point operations (`inputs.facts.operations`); of other work, those "
        "that a core does meanwhile (OPERATIONS_A_SECOND)",
    )


OPERATIONS_A_SECOND = 6e10
"""Of one core in float32 matrix products: by it work that has none is counted in operations."""


@dataclass(frozen=True)
class Stage:
    """Work items, and what turns one into numbers.

    Attributes:
        name: the key under which later stages and `conclude` find the result.
        items: (inputs, settings, earlier) -> the work items, in a fixed order.
        measure: (model, item, settings, earlier) -> a Dataset that averages over nothing.
        combine: folds (folded so far, next part) in item order, where parts must not be kept apart.
        along: dimensions along which parts are laid one after another.
        expected: (inputs, settings) -> sizes of the items that there will be, where these rest on earlier results:
            told before anything is measured, as if no text were left out.
        reads_ahead: whether it reads texts into the cache of states for later stages, which would read what it left.
    """

    name: str
    items: Callable[[Inputs, Any, Earlier], Iterable[WorkItem]]
    measure: Callable[[LayeredModel, Any, Any, Earlier], xr.Dataset]
    combine: Callable[[xr.Dataset, xr.Dataset], xr.Dataset] | None = None
    along: tuple[str, ...] = GROWS
    expected: Callable[[Inputs, Any], Iterable[float]] | None = None
    reads_ahead: bool = False


Group = Literal["where information moves", "context", "attention", "state", "what is decodable", "weights"]
"""Groups of questions about layers: what the atlas sorts measures by, and gives equal weight."""

Untrained = tuple[Literal["null", "effect", "not applicable"], str]
"""What a claim must come to on an untrained twin, declared before anything is measured, and the reason."""


class Claim(BaseModel):
    """One sentence of the report, with the numbers that it rests on.

    `evidence.Finding.claim` makes them: it words the interval, the null and what was too little to test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = Field("1", description="of value, low and high; 1 for a pure number")
    n: int | None = Field(None, description="prompts, passages, ... that the value rests on")
    p_adjusted: float | None = Field(None, description="after correction for the number of comparisons")
    significant: bool | None = Field(None, description="None where the claim compares nothing")
    stated: bool = Field(False, description="whether the text itself states interval and p")
    untrained: Untrained | None = Field(
        None, description="what an untrained twin must come to: its null, an effect too, or neither; and why"
    )
    twins: tuple[float, ...] = Field((), description="values of untrained twins that claim the same")
    unsigned: bool = Field(
        False, description="whether the text says a negative value by a word and without its sign"
    )
    caveat: str = ""
    select: dict[str, Any] = Field(
        default_factory=dict,
        description="the part of the result it rests on: variable, and labels by dimension",
    )
    picked: tuple[str, ...] = Field(
        (), description="dimensions along which that part was picked, as the best of many"
    )

    def _repr_html_(self) -> str:
        return as_html([self.text, *[f"({self.caveat})"] * bool(self.caveat)])

    @property
    def about(self) -> str:
        """What is claimed, wherever in the result: the best of another model lies at other labels."""
        labels = {name: label for name, label in self.select.items() if name not in self.picked}
        return repr(sorted(labels.items())) if labels else self.text

    @property
    def twins_range(self) -> tuple[float, float]:
        """Ends of the 95 % prediction interval for one more untrained twin; NaN with fewer than five."""
        return prediction_interval(np.asarray(self.twins, dtype=float))


@dataclass(frozen=True)
class Judged:
    """What annotators' answers add to a report.

    Attributes:
        claims: sentences, agreement between annotators among them.
        figures: by name.
        notes: by name of a chapter of the pages for reading.
    """

    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A loaded experiment, checked to hold everything that it promises.

    `takes` are the kinds of text it reads; of these, `needs` are read even where only others are given
    (all of them, unless the experiment says otherwise by `NEEDS`).

    `over_depth` gives named measures over layer or depth, the one that speaks for the experiment first; each
    is a Dataset of `value`, `low`, `high`, and where known `null` and `draws`, with the attributes `label`
    and `sense` (see `evidence.measure`), and `log` = 1 where it spans powers of ten: its panel has a log axis.
    `headlines` names at most two variables of the result that compare models, each with a claim on it. `place`
    says where it stands among experiments of its group of questions, the smallest first. `plugin` is the
    package that it comes from, by its distribution, where that is not Layerscope.

    The last four are optional, None where an experiment has none: `read` gives pages of excerpts for reading,
    `sheet` what a person can be asked to judge, `judged` what the answers say, and `tell` lines that the terminal
    shows before the claims.
    """

    name: str
    question: str
    takes: frozenset[str]
    needs: frozenset[str]
    settings: type[ExperimentSettings]
    stages: tuple[Stage, ...]
    conclude: Callable[[Earlier, Any], xr.Dataset]
    claims: Callable[[xr.Dataset], list[Claim]]
    over_depth: Callable[[xr.Dataset], dict[str, xr.Dataset]]
    draw: Callable[[xr.Dataset], dict[str, Any]]
    doc: str = field(repr=False)
    headlines: tuple[str, ...] = ()
    place: int = 9
    plugin: Mapping[str, PlugIn] = field(default_factory=dict)
    read: Callable[[xr.Dataset], dict[str, Page]] | None = None
    sheet: Callable[[xr.Dataset], Sheet] | None = None
    judged: Callable[[xr.Dataset, Judgements], Judged] | None = None
    tell: Callable[[xr.Dataset], list[str]] | None = None
