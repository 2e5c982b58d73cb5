"""A trial: a planted model, the experiment that must find what was planted, and what it must say.

An experiment is named, not imported: planted models lie on a floor below experiments, and a trial may
name one that is still to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from layerscope.models.layered import LayeredModel


@dataclass(frozen=True)
class Answer:
    """One number of an experiment's result that is known beforehand.

    Attributes:
        variable: its name in what `conclude` gives.
        expected: its value, or how it follows from the strength of what was planted.
        tolerance: how far off it may be.
        labels: the cell, by dimension; empty for a scalar.
        nothing: the value that claims no effect. The interval `variable_low` to `variable_high` must hold
            it at strength 0 and leave it out wherever an effect was planted. None, for numbers that do not
            exist without an effect: then NaN, or a refusal, is what says that there is nothing.
        p: the variable with the p-value that the claim rests on, if it rests on one.
        says: words of the claim on this number where the effect was planted, such as "later". With them, the claim
            must be significant there, and not at strength 0.
        opposite: the words that stand in their place where the opposite was planted.
    """

    variable: str
    expected: float | Callable[[float], float]
    tolerance: float
    labels: Mapping[str, Any] = field(default_factory=dict)
    nothing: float | None = None
    p: str | None = None
    says: str = ""
    opposite: str = ""

    def at(self, strength: float) -> float:
        """The value that must be found at a strength."""
        return self.expected(strength) if callable(self.expected) else self.expected

    def __str__(self) -> str:
        return " ".join([self.variable, *map(str, self.labels.values())])


@dataclass(frozen=True)
class Trial:
    """What was planted, and what an experiment must say about it at its default settings.

    Attributes:
        experiment: file name of the experiment.
        plants: what was planted at the first of the strengths, in one sentence without a stop.
        model: the model at a strength; at 0 the effect is absent and all else is as it was.
        answers: the numbers that must be found. Empty while the experiment does not exist yet.
        texts: what the experiment takes, by kind: prompts, passages.
        strengths: from strong to weak; the first is the planted one, the others are swept for the weakest
            that is still found.
        strength_is: what the strength measures.
        settings: settings that differ from the defaults. None should be needed.
        opposite: the model in which the opposite was planted, where there is one: claims must turn round.
    """

    experiment: str
    plants: str
    model: Callable[[float], LayeredModel]
    answers: tuple[Answer, ...] = ()
    texts: Callable[[], Mapping[str, Any]] = dict
    strengths: tuple[float, ...] = (1.0,)
    strength_is: str = "share of the planted effect"
    settings: Mapping[str, Any] = field(default_factory=dict)
    opposite: Callable[[], LayeredModel] | None = None

    @property
    def planted(self) -> float:
        """The strength at which the effect is planted."""
        return self.strengths[0]
