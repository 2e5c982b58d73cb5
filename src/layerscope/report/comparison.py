"""Several models on one page: layer maps under one another on the fraction of depth, indices, overlaid curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from layerscope.atlas.compare import Comparison
from layerscope.atlas.first_sentences import standing_out_in_words
from layerscope.atlas.reproduced import SavedClaim
from layerscope.plots import more
from layerscope.plots.by_model import curves_by_model
from layerscope.report.figures import PageFigure, page_figure
from layerscope.report.layer_map import Row, layer_map
from layerscope.report.page import filled
from layerscope.results.files import make_folder, write_text


@dataclass(frozen=True)
class Stacked:
    """One measure: a row for each model that has it.

    Attributes:
        label: in words.
        sense: what a large value means.
        rows: by name of the model.
    """

    label: str
    sense: str
    rows: tuple[tuple[str, Row], ...]


@dataclass(frozen=True)
class IndexRow:
    """One headline index.

    Attributes:
        label: in words.
        cells: of each model: value, difference from the first, and whether that difference excludes 0.
    """

    label: str
    cells: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class ComparisonPage:
    """What the template needs.

    Attributes:
        models: names, the reference first.
        sentences: phases and layers that stand out of each model, and how layers align.
        groups: of questions, each with its measures.
        indices: side by side.
        figures: curves that all models have.
    """

    models: tuple[str, ...]
    sentences: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Stacked, ...]], ...]
    indices: tuple[IndexRow, ...]
    figures: tuple[PageFigure, ...]


def write_comparison(found: Comparison, path: Path, posts: Sequence[SavedClaim] = ()) -> Path:
    """Write the page of a comparison; returns where it lies.

    Args:
        found: models side by side.
        path: the page.
        posts: what the posts claimed, judged on these models.

    Raises:
        LayerscopeError: the file cannot be written.
    """
    page = ComparisonPage(
        models=found.models,
        sentences=tuple(_sentences(found)),
        groups=_groups(found),
        indices=tuple(
            IndexRow(str(label), tuple(found.in_words(place, model) for model in range(len(found.models))))
            for place, label in enumerate(found.indices.label.values)
        ),
        figures=tuple(_figures(found)),
    )
    title = f"{_listed(page.models)}, layer by layer"
    make_folder(path.parent)
    write_text(path, filled("comparison.html.j2", title=title, page=page, posts=posts))
    return path


def _sentences(found: Comparison) -> Iterator[str]:
    for name, layers in zip(found.models, found.each, strict=True):
        yield f"{name}: {layers.phases.said()} {standing_out_in_words(layers)}"
    for model in range(1, len(found.models)):
        yield found.aligned(model)


def _groups(found: Comparison) -> tuple[tuple[str, tuple[Stacked, ...]], ...]:
    rows: dict[tuple[str, str], list[tuple[str, Row]]] = {}
    for name, layers in zip(found.models, found.each, strict=True):
        for group, own in layer_map(layers, {}).groups:
            for row in own:
                rows.setdefault((group, row.measure), []).append((name, row))
    stacked = (
        (group, Stacked(same[0][1].label, same[0][1].sense, tuple(same))) for (group, _), same in rows.items()
    )
    order = sorted(stacked, key=lambda pair: [group for group, _ in rows].index(pair[0]))
    return tuple(
        (group, tuple(one for _, one in same)) for group, same in groupby(order, key=lambda pair: pair[0])
    )


def _figures(found: Comparison) -> Iterator[PageFigure]:
    """The first measure of each experiment, then the others for who wants more."""
    seen: set[str] = set()
    like = found.each[0].data
    for number, name in enumerate(map(str, found.curves.measure.values), start=1):
        said = like.sel(measure=name)
        curves = found.curves.sel(measure=name, drop=True)
        label, unit = str(said.label.values), str(said.unit.values)
        for column in curves.data_vars:
            curves[column] = curves[column].assign_attrs(long_name=label, units=unit)
        drawn = curves_by_model(curves, caption=f"Large where {said.sense.values}; bands are 95% intervals.")
        experiment = str(said.experiment.values)
        drawn = drawn if experiment not in seen else more({"": drawn})[""]
        seen.add(experiment)
        yield page_figure(f"curve-{number}", label, drawn)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
