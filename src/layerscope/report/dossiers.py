"""Layer by layer: everything that the runs of one model say of a layer, as plain values for the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.atlas.layers import Layers
from layerscope.evidence.wording import counted, interval, measured
from layerscope.plots.numbers import p_text
from layerscope.report.layer_map import measured_of
from layerscope.report.reading import ShownChapter
from layerscope.report.sections import ClaimCard, Section

_EXAMPLES = 3


@dataclass(frozen=True)
class Place:
    """A layer's place in one measure.

    Attributes:
        measure: its name in the data.
        label: in words.
        anchor: of the section that it comes from.
        value, ends: in the layer.
        rank: among layers, 1 the largest.
        others, null, twins: what it is held against.
        p: of standing out, adjusted.
        stands_out: whether it does.
    """

    measure: str
    label: str
    anchor: str
    value: str
    ends: str
    rank: str
    others: str
    null: str
    twins: str
    p: str
    stands_out: bool


@dataclass(frozen=True)
class Examples:
    """Excerpts on a layer from one page for reading: its first chapters, the first lines of each."""

    heading: str
    anchor: str
    chapters: tuple[ShownChapter, ...]


@dataclass(frozen=True)
class Dossier:
    """One layer.

    Attributes:
        layer: its number.
        anchor: its id in the page.
        summary: how often it stands out and how many heads have a role.
        sentences: where it stands out, its phase, its heads with a role.
        claims: findings of single experiments whose place is the layer, with the section's name and anchor.
        examples: what its keys and directions speak of.
        places: its place in every measure.
        python: gives these numbers.
    """

    layer: int
    anchor: str
    summary: str
    sentences: tuple[str, ...]
    claims: tuple[tuple[Section, ClaimCard], ...]
    examples: tuple[Examples, ...]
    places: tuple[Place, ...]
    python: str


def dossiers(layers: Layers, sections: Sequence[Section], prefix: str, folder: str) -> list[Dossier]:
    """One for each layer of a model.

    Args:
        layers: the atlas of the model.
        sections: of its runs.
        prefix: of their ids in the page.
        folder: that holds the runs, as a reader would name it.
    """
    anchors = {one.experiment: one.anchor for one in sections}
    python = f'layers = ls.layers("{folder}")'
    return [
        _dossier(layers, layer, sections, anchors, f"{prefix}layer-{layer}", python)
        for layer in range(layers.number)
    ]


def _dossier(
    layers: Layers, layer: int, sections: Sequence[Section], anchors: dict[str, str], anchor: str, python: str
) -> Dossier:
    _, *sentences = (line.strip() for line in layers.describe(layer).splitlines())
    rows = [layers.data.isel(measure=place) for place in range(layers.data.sizes["measure"])]
    claims = tuple(
        (one, card)
        for one in sections
        for card in one.claims
        if card.claim.select.get("layer") == layer and card.claim.significant is not False
    )
    return Dossier(
        layer=layer,
        anchor=anchor,
        summary=_summary(layers, layer),
        sentences=tuple(sentences),
        claims=claims,
        examples=tuple(_examples(sections, layer)),
        places=tuple(_place(row, layer, anchors) for row in rows),
        python=f"{python}\nlayers.data.sel(measure=NAME, layer={layer})\nlayers.describe({layer})",
    )


def _summary(layers: Layers, layer: int) -> str:
    out = int(layers.data.stands_out.values[:, layer].sum())
    heads = len({head.name for head in layers.roles if head.layer == layer})
    said = [f"stands out in {counted((out,), 'measures')}"] * bool(out)
    said += [f"{counted((heads,), 'heads')} with a role"] * bool(heads)
    return ", ".join(said)


def _examples(sections: Sequence[Section], layer: int) -> Iterator[Examples]:
    for one in sections:
        for page in one.reading:
            if page.layer == layer:
                first = tuple(chapter.beginning(1) for chapter in page.chapters[:_EXAMPLES])
                yield Examples(page.heading, page.anchor, first)


def _place(row: xr.Dataset, layer: int, anchors: dict[str, str]) -> Place:
    unit = str(row.unit.values)
    value, low, high, apart, null, p, rank = (
        float(row[name].values[layer])
        for name in ("value", "low", "high", "apart", "null", "p_adjusted", "rank")
    )
    untrained = float(row.untrained_mean.values[layer]) if "untrained_mean" in row else float("nan")

    def said(number: float) -> str:
        return measured(number, unit, low, high) if np.isfinite(number) else ""

    return Place(
        measure=str(row.measure.values),
        label=str(row.label.values),
        anchor=anchors.get(str(row.experiment.values), ""),
        value=measured_of(row, layer),
        ends=interval(unit, low, high, 0.95).removeprefix("95% CI "),
        rank=f"{rank:.0f}" if np.isfinite(rank) else "",
        others=said(value - apart),
        null=said(null),
        twins=said(untrained),
        p=p_text(p).removeprefix("p ").removeprefix("= ") if np.isfinite(p) else "",
        stands_out=bool(row.stands_out.values[layer]),
    )
