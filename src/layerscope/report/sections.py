"""What a report says of one run, as plain values: all that the page's template sees."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from layerscope import experiments
from layerscope.atlas.parts import Part, part_of
from layerscope.contract import Claim, Experiment, Judged
from layerscope.errors import LayerscopeError
from layerscope.plots.axes import depth_axis
from layerscope.plots.strip import StripRow
from layerscope.report.exclusions import Exclusions, exclusions, unreadable
from layerscope.report.figures import PageFigure, page_figure
from layerscope.report.prose import Paragraph, paragraphs
from layerscope.report.provenance import Group, line_of_facts, provenance
from layerscope.report.reading import ShownPage, shown_page
from layerscope.report.reproduce import Recipe, recipe
from layerscope.report.settings import SettingRow, setting_rows
from layerscope.report.twins import TwinNumbers, Twins, figure_beside, numbers_of_twins, twins_beside
from layerscope.results.annotation_sheets import FOLDER as ANNOTATIONS
from layerscope.results.annotation_sheets import read_sheets
from layerscope.results.record import RunRecord
from layerscope.results.schema import read_json
from layerscope.results.store import RunFolder
from layerscope.results.twins import twins_of

State = Literal["complete", "incomplete", "refused", "unknown", "damaged"]


@dataclass(frozen=True)
class ClaimCard:
    """A claim, how to get its number again, and the same number of untrained twins."""

    anchor: str
    claim: Claim
    recipe: Recipe
    twins: TwinNumbers | None = None


@dataclass
class Section:
    """One run on the page; what could not be read stays empty and is named in `problems`."""

    anchor: str
    where: str
    state: State = "complete"
    experiment: str = ""
    model: str = ""
    created: str = ""
    n_layers: int = 0
    question: str = ""
    problems: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    claims: list[ClaimCard] = field(default_factory=list)
    figures: list[PageFigure] = field(default_factory=list)
    reading: list[ShownPage] = field(default_factory=list)
    exclusions: list[Exclusions] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    procedure: list[Paragraph] = field(default_factory=list)
    settings: list[SettingRow] = field(default_factory=list)
    provenance: list[Group] = field(default_factory=list)
    recipe: Recipe | None = None
    twins: Twins | None = None
    weights: str = ""
    line: str = ""
    headlines: tuple[str, ...] = ()
    place: int = 0
    part: Part | None = None
    told_apart: str = ""

    @property
    def group(self) -> str:
        """The group of questions that it belongs to; empty where it measures no layer."""
        return self.part.group.capitalize() if self.part else ""

    @property
    def leads(self) -> list[ClaimCard]:
        """The claims to begin with: one on each quantity, headline indices first; then whatever else is claimed."""
        order = sorted(self.claims, key=lambda card: card.claim.select.get("variable") not in self.headlines)
        firsts: dict[object, ClaimCard] = {}
        for card in order:
            firsts.setdefault(card.claim.select.get("variable"), card)
        return [*firsts.values(), *(card for card in order if card not in firsts.values())][:_LEADS]

    @property
    def lead_figures(self) -> list[PageFigure]:
        """The figures to begin with: those that the experiment does not mark as more, at most three."""
        return [one for one in self.figures if not one.more][:_LEADS]

    @property
    def more_figures(self) -> list[PageFigure]:
        """All others."""
        leads = self.lead_figures
        return [one for one in self.figures if one not in leads]


_LEADS = 3


def section(run: RunFolder, number: int, beside: Path, among: Sequence[RunFolder] = ()) -> Section:
    """What the page says of a run.

    Args:
        run: a run folder, in whatever state.
        number: its place on the page, from 1.
        beside: the page's folder; the run is named by its path from there.
        among: runs among which its untrained twins are looked for, besides those in the same folder.
    """
    shown = Section(f"run-{number}", _path_from(beside, run.path))
    try:
        record = run.record
    except (LayerscopeError, OSError) as error:
        shown.state, shown.experiment = "damaged", run.path.name
        shown.problems.append(str(error))
        return shown
    _describe(shown, record)
    try:
        experiment = experiments.load(record.asked.experiment)
    except LayerscopeError as error:
        shown.state = "unknown"
        shown.problems.append(str(error))
        return shown
    _add_experiment(shown, run, record, experiment, among)
    return shown


def refused_section(name: str, error: LayerscopeError, number: int) -> Section:
    """An experiment that could not be run: its question, and why it has no answer here."""
    try:
        question = experiments.question(name)
    except LayerscopeError:  # which is why it was refused
        question = ""
    return Section(f"run-{number}", "", "refused", name, question=question, problems=[str(error)])


def _path_from(folder: Path, path: Path) -> str:
    inside = path.resolve().is_relative_to(folder.resolve())
    return str(path.resolve().relative_to(folder.resolve())) if inside else str(path)


def _describe(shown: Section, record: RunRecord) -> None:
    shown.experiment = shown.question = record.asked.experiment
    shown.model = str(record.facts.get("name", record.asked.model))
    shown.n_layers = int(record.facts.get("n_layers") or 0)
    shown.created = record.created
    shown.weights = record.asked.weights + (
        f" untrained {record.asked.untrained}" * (record.asked.untrained is not None)
    )
    shown.line = line_of_facts(record)
    shown.provenance = provenance(record)


def _add_experiment(
    shown: Section, run: RunFolder, record: RunRecord, experiment: Experiment, among: Sequence[RunFolder]
) -> None:
    shown.question, shown.headlines, shown.place = experiment.question, experiment.headlines, experiment.place
    shown.procedure = paragraphs(experiment.doc)
    shown.settings = setting_rows(experiment, record.asked.settings)
    shown.recipe = recipe(run, record, experiment, shown.where)
    if not run.has_result:
        shown.state = "refused" if record.refused else "incomplete"
        shown.problems += [record.refused] if record.refused else []
        shown.progress = [(name, len(run.done(name)), stage.items) for name, stage in record.stages.items()]
        return
    try:
        result = run.result()
    except LayerscopeError as error:
        shown.state = "damaged"
        shown.problems.append(str(error))
        return
    of_twins = twins_of(run, among)
    shown.twins = twins_beside(run, among, of_twins, experiment, partial(_tried, shown))
    _add_result(shown, run, record, experiment, result)
    part: Part | None = _tried(shown, "over_depth", lambda: part_of(result, of_twins), None)
    shown.part = part.alone if part is not None else None


def _add_result(
    shown: Section, run: RunFolder, record: RunRecord, experiment: Experiment, result: xr.Dataset
) -> None:
    shown.cautions = [*map(str, read_json(result, "cautions", [])), *record.all_cautions]
    shown.exclusions = [*exclusions(result), *unreadable(record)]
    judged = _judged(shown, run, experiment, result)
    own: list[Claim] = _tried(shown, "claims", lambda: experiment.claims(result), [])
    claims = (own if shown.twins is None else shown.twins.beside(own)) + judged.claims
    shown.claims = [
        ClaimCard(
            f"{shown.anchor}-claim-{place}",
            claim,
            recipe(run, record, experiment, shown.where, claim),
            numbers_of_twins(claim),
        )
        for place, claim in enumerate(claims, start=1)
    ]
    figures: dict[str, Any] = _tried(shown, "draw", lambda: experiment.draw(result), {}) | judged.figures
    shown.figures = [
        page_figure(f"{shown.anchor}-figure-{place}", name, figure)
        for place, (name, figure) in enumerate(figures.items(), start=1)
    ]
    if experiment.read is not None:
        pages = _tried(shown, "read", partial(experiment.read, result), {})
        shown.reading = [
            shown_page(f"{shown.anchor}-reading-{place}", name, page, judged.notes)
            for place, (name, page) in enumerate(pages.items(), start=1)
        ]
    beside = _tried(shown, "over_depth", lambda: _beside_twins(shown, experiment, result), None)
    shown.figures += [beside] if beside is not None else []


def _judged(shown: Section, run: RunFolder, experiment: Experiment, result: xr.Dataset) -> Judged:
    """What people wrote into this run's sheets, if anybody did."""
    if experiment.sheet is None or experiment.judged is None or not (run.path / ANNOTATIONS).is_dir():
        return Judged()
    sheet = _tried(shown, "sheet", partial(experiment.sheet, result), None)
    if sheet is None:
        return Judged()
    judgements = read_sheets(run.path, sheet)
    shown.problems += judgements.problems
    if not judgements.answers:
        return Judged()
    found: Judged = _tried(shown, "judged", partial(experiment.judged, result, judgements), Judged())
    return found


def _tried(shown: Section, what: str, call: Callable[[], Any], otherwise: Any) -> Any:
    """A mistake in one experiment's file is said in its place and warned of; the other runs are shown."""
    try:
        return call()
    except LayerscopeError as error:
        shown.problems.append(str(error))
    except Exception as error:
        last = traceback.format_exception_only(error)[-1].strip()
        shown.problems.append(f"{what} of {shown.experiment} failed on this result: {last}")
        warnings.warn(shown.problems[-1], stacklevel=2)
    return otherwise


def _beside_twins(shown: Section, experiment: Experiment, result: xr.Dataset) -> PageFigure | None:
    """The measure that speaks for the experiment, its twins' dotted."""
    if shown.twins is None or not shown.n_layers:
        return None
    values = _over_depth(next(iter(experiment.over_depth(result).values()), None))
    row = None if values is None else StripRow(shown.experiment, values, shown.n_layers, shown.twins.curves)
    return figure_beside(shown.anchor, row)


def _over_depth(values: xr.Dataset | None) -> xr.Dataset | None:
    """What the strip can draw: `value` over layer or depth; anything else is politely left out."""
    if values is None or "value" not in values or not values["value"].size:
        return None
    try:
        others = set(values["value"].dims) - {depth_axis(values["value"])}
    except LayerscopeError:
        return None
    return values if len(others) <= 1 else None
