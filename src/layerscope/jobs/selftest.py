"""Does every instrument find what was planted, say nothing where nothing was, and how weak may it be?

Instruments are tried as they are used: at their default settings, through a whole run, and judged by
the numbers that `conclude` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr

from layerscope import experiments, planted
from layerscope.contract import Claim
from layerscope.engines.engine import Engine, Task, values_of
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.measuring import threads
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.models import verdicts
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial

_BELOW_CHANCE = 0.05
_PLACES = ("depth", "layer", "head")


@dataclass(frozen=True)
class Finding:
    """One number of a result beside what was planted; NaN where the result has none.

    Attributes:
        answer: what is known.
        strength: of the planted effect in this run.
        value, low, high: what the instrument says, with its interval where it gives one.
        p: the p-value of the claim, where it rests on one.
        said: the sentence of the claim on this number, empty where there is none.
        significant: whether that claim is significant.
    """

    answer: Answer
    strength: float
    value: float
    low: float
    high: float
    p: float
    said: str = ""
    significant: bool | None = None

    @property
    def within_tolerance(self) -> bool:
        """Whether the number is the planted one."""
        return abs(self.value - self.answer.at(self.strength)) <= self.answer.tolerance

    @property
    def claims_nothing(self) -> bool:
        """Whether a reader would conclude that there is no effect."""
        nothing = self.answer.nothing
        if nothing is None or math.isnan(self.value):
            return math.isnan(self.value)
        if self.answer.says and self.significant:
            return False
        return self.low <= nothing <= self.high and not self.p < _BELOW_CHANCE

    def says(self, words: str) -> bool:
        """Whether the claim is significant and has these words in a row; there is nothing to say without words."""
        return not words or (bool(self.significant) and f" {words} " in f" {self.said} ")

    @property
    def found(self) -> bool:
        """Whether the planted number was found, told from no effect, and said."""
        nothing = self.answer.nothing
        told = nothing is None or (
            not self.low <= nothing <= self.high and (self.answer.p is None or self.p < _BELOW_CHANCE)
        )
        return self.within_tolerance and told and self.says(self.answer.says)


@dataclass(frozen=True)
class Run:
    """One run of an instrument on a planted model: its findings, or why it refused."""

    findings: tuple[Finding, ...]
    refused: str = ""

    @property
    def found(self) -> bool:
        """Whether everything that was planted was found."""
        return bool(self.findings) and all(finding.found for finding in self.findings)

    @property
    def claims_nothing(self) -> bool:
        """Whether nothing was claimed. A refusal in words claims nothing either."""
        return all(finding.claims_nothing for finding in self.findings)


@dataclass(frozen=True)
class Tried:
    """An instrument on one planted model.

    Attributes:
        name: the planted model.
        trial: what was planted.
        waiting: why nothing could be run yet, or empty.
        planted: the run at the planted strength.
        absent: the run at strength 0.
        opposite: the run on the opposite, where the trial has one.
        weakest: the weakest strength down to which all were found; None where no sweep was made, NaN
            where not even the planted effect was found.
    """

    name: str
    trial: Trial
    waiting: str = ""
    planted: Run | None = None
    absent: Run | None = None
    opposite: Run | None = None
    weakest: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the effect was found, none where there is none, and the opposite in its place; what waits holds."""
        if self.planted is None or self.absent is None:
            return True
        return self.planted.found and self.absent.claims_nothing and self.turned_round

    @property
    def turned_round(self) -> bool:
        """Whether every claim says the opposite of the opposite."""
        if self.opposite is None:
            return True
        found = self.opposite.findings
        return bool(found) and all(finding.says(finding.answer.opposite) for finding in found)

    def lines(self) -> Iterator[str]:
        """The trial as a person reads it."""
        if self.planted is None or self.absent is None:
            yield f"{self.trial.experiment} on {self.name}: {self.waiting}"
            yield f"  planted   {self.trial.plants}"
            return
        yield f"{self.trial.experiment} on {self.name}: {'holds' if self.holds else 'DOES NOT HOLD'}"
        yield f"  planted   {self.trial.plants}"
        for line in _lines_of_run(self.planted):
            yield f"  found     {line}"
        verdict = "yes" if self.absent.claims_nothing else "NO: " + "; ".join(_lines_of_run(self.absent))
        because = f" (refused: {self.absent.refused})" if self.absent.refused else ""
        yield f"  nothing found at strength 0: {verdict}{because}"
        if self.opposite is not None:
            said = "; ".join(finding.said for finding in self.opposite.findings) or self.opposite.refused
            yield f"  the opposite is said where it was planted: {'yes' if self.turned_round else f'NO: {said}'}"
        if self.weakest is not None:
            yield f"  weakest strength found: {self.weakest:g} ({self.trial.strength_is})"


def _lines_of_run(run: Run) -> Iterator[str]:
    if run.refused:
        yield f"refused: {run.refused}"
    for finding in run.findings:
        answer = finding.answer
        interval = "" if math.isnan(finding.low) else f" [{finding.low:.3g}, {finding.high:.3g}]"
        p = "" if math.isnan(finding.p) else f", p = {finding.p:.2g}"
        said = f"{answer}: {finding.value:.4g}{interval}{p}"
        expected = f"planted {answer.at(finding.strength):.4g}, tolerance {answer.tolerance:g}"
        yield f"{said}   ({expected}) {_verdict(finding)}"


def _verdict(finding: Finding) -> str:
    if finding.found:
        return "ok"
    if finding.within_tolerance and finding.answer.says and not finding.says(finding.answer.says):
        return f"NOT SAID: {finding.said or 'no claim'}"
    return "not told from nothing" if finding.within_tolerance else "NOT WITHIN TOLERANCE"


@dataclass(frozen=True)
class LoadChecked:
    """What the load check found on a model and its device."""

    model: LayeredModel

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check["holds"] for check in self.model.checks)

    def lines(self) -> Iterator[str]:
        """One line for each check, and what its failure takes away."""
        yield f"load check of {self.model}: {'holds' if self.holds else 'DOES NOT HOLD'}"
        for check in self.model.checks:
            yield f"  {'holds' if check['holds'] else 'FAILS'}  {check['name']}: {check['detail']}"
            taken = [site for site, why in self.model.refused.items() if why == check["detail"]]
            if taken and not check["holds"]:
                yield f"         refused in consequence: {', '.join(taken)}"


@dataclass(frozen=True)
class Told:
    """What a worker process has to say of a trial: all that is sent of it."""

    holds: bool
    said: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The trial as a person reads it."""
        yield from self.said


@dataclass(frozen=True)
class Untried:
    """An experiment of another package that cannot be tried, and why."""

    name: str
    error: LayerscopeError | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong with it, as far as can be known."""
        return self.error is None

    def lines(self) -> Iterator[str]:
        """Why not."""
        if self.error is None:
            yield f"{self.name}: not tried: its package plants no model (a file planted.py beside its other roles)"
        else:
            yield f"{self.name}: DOES NOT HOLD"
            yield from (f"  {line.strip()}" for line in str(self.error).splitlines())


def selftest(
    model: Any = None,
    *,
    experiment: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quick: bool = False,
    engine: Engine | None = None,
) -> Iterator[LoadChecked | Tried | Told | Untried]:
    """Everything that is tried, one by one.

    Args:
        model: also try this model, by the load check; what `load_model` takes.
        experiment: try this one alone.
        device, dtype: for that model. Planted models run on the CPU.
        quick: leave out the sweep for the weakest effect.
        engine: whose workers try; this process, unless one with workers is given.

    Raises:
        LayerscopeError: there is no such experiment, the model cannot be loaded, or the load check refuses it as a
            whole.
    """
    if experiment is not None:
        experiments.load(experiment)
    if model is not None:
        with verdicts.tried_anew():
            loaded = load_model(model, device=device, dtype=dtype)
        yield LoadChecked(loaded)
    wanted = [(name, trial) for name, trial in planted.trials() if experiment in (None, trial.experiment)]
    if engine is not None and engine.workers:
        threads = torch.get_num_threads()
        yield from values_of(
            engine,
            (
                Task(place, f"{trial.experiment} on {name}", told, (name, trial.experiment, quick, threads))
                for place, (name, trial) in enumerate(wanted)
            ),
        )
    else:
        yield from (tried(name, trial, quick=quick) for name, trial in wanted)
    for name in experiments.names() if experiment is None else [experiment]:
        yield from _of_its_own(name, quick=quick)


def _of_its_own(name: str, *, quick: bool) -> Iterator[Tried | Untried]:
    """What an experiment brings its own planted models for."""
    try:
        brought = experiments.whose(name) != "Layerscope"
        if brought:  # Layerscope's own are loaded when they are tried
            experiments.load(name)
        where, trials = experiments.planted_by(name)
    except LayerscopeError as error:
        yield Untried(name, error)
        return
    if brought and not trials:
        yield Untried(name)
    for trial in trials:
        yield tried(where, trial, quick=quick)


def told(name: str, experiment: str, quick: bool, number: int) -> Told:
    """One trial of Layerscope's own planted models, as a worker tells of it."""
    (trial,) = (trial for model, trial in planted.trials() if (model, trial.experiment) == (name, experiment))
    with threads(number):
        outcome = tried(name, trial, quick=quick)
    return Told(outcome.holds, tuple(outcome.lines()))


def tried(name: str, trial: Trial, *, quick: bool = False) -> Tried:
    """One trial: at the planted strength, at 0, and down to the weakest that is found."""
    if trial.experiment not in experiments.names():
        return Tried(name, trial, waiting=f"waiting for {trial.experiment}")
    if not trial.answers:
        return Tried(name, trial, waiting="waiting for its answers to be written into the trial")
    runs = {trial.planted: _run(trial, trial.planted)}
    weakest = None if quick else _weakest(trial, runs)
    opposite = None if trial.opposite is None else _run_on(trial, trial.opposite(), trial.planted)
    return Tried(name, trial, "", runs[trial.planted], _run(trial, 0.0), opposite, weakest)


def _weakest(trial: Trial, runs: dict[float, Run]) -> float:
    weakest = math.nan
    for strength in trial.strengths:
        if strength not in runs:
            runs[strength] = _run(trial, strength)
        if not runs[strength].found:
            break
        weakest = strength
    return weakest


def _run(trial: Trial, strength: float) -> Run:
    return _run_on(trial, trial.model(strength), strength)


def _run_on(trial: Trial, model: LayeredModel, strength: float) -> Run:
    try:
        job = prepare(Request(trial.experiment, model, **trial.texts(), settings=trial.settings))
        result = running.run_in_memory(job, Silent())
    except LayerscopeError as error:
        return Run((), error.problem)
    said = experiments.load(trial.experiment).claims(result)
    return Run(tuple(_finding(result, said, answer, strength) for answer in trial.answers))


def _finding(result: xr.Dataset, claims: Sequence[Claim], answer: Answer, strength: float) -> Finding:
    cell = _cell_reader(result, answer)
    low, high = (cell(f"{answer.variable}_{end}") for end in ("low", "high"))
    p = math.nan if answer.p is None else cell(answer.p)
    here = [claim for claim in claims if claim.select.get("variable") == answer.variable]
    # Where a claim is about the best of several places, it is so whichever place that is.
    kept = {name: label for name, label in answer.labels.items() if name not in _PLACES}
    about = [claim for claim in here if kept.items() <= claim.select.items()]
    said = (about[0].text, about[0].significant) if about else ("", None)
    return Finding(answer, strength, cell(answer.variable), low, high, p, *said)


def _cell_reader(result: xr.Dataset, answer: Answer) -> Callable[[str], float]:
    def read(variable: str) -> float:
        try:
            return float(result[variable].sel(answer.labels))
        except KeyError:  # a group without a single unit has no label
            return math.nan

    return read
