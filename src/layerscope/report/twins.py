"""A run beside the same run on the model's untrained twin: claims in pairs, curves in one picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layerscope.plots.strip import StripRow, layers_at_a_glance
from layerscope.report.figures import PageFigure, page_figure
from layerscope.report.sections import ClaimCard, Section

_TWIN = "Dotted, with grey bands: the untrained twin."


@dataclass(frozen=True)
class Beside:
    """What the untrained twin shows where the trained model shows something.

    Attributes:
        anchor: of the twin's own section.
        model: the twin's name.
        pairs: claims on the same quantity, in the order of the trained model's; either may be missing.
        figure: both curves over depth, where both have one.
        problems: why the twin has no result, where it has none.
    """

    anchor: str
    model: str
    pairs: tuple[tuple[ClaimCard | None, ClaimCard | None], ...]
    figure: PageFigure | None
    problems: tuple[str, ...]


def put_beside(sections: Sequence[Section]) -> dict[str, Beside]:
    """By anchor of the trained model's section: what its twin shows. Twins are sections of the same page."""
    found = {}
    for one, twin in _pairs(sections):
        figure = None
        row = twinned_row(one, twin)
        if row is not None and row.twin is not None:
            own = "The trained model, with bands" + (
                " and, dashed, the experiment's own null." if "null" in row.values else "."
            )
            drawn = layers_at_a_glance([row], caption=f"{own} {_TWIN}", panel=260)
            figure = page_figure(f"{one.anchor}-twin", "Beside the untrained twin", drawn)
        found[one.anchor] = Beside(
            anchor=twin.anchor,
            model=twin.model,
            pairs=tuple(_claims_in_pairs(one.claims, twin.claims)),
            figure=figure,
            problems=tuple(twin.problems),
        )
    return found


def twinned_row(one: Section, twin: Section | None, name: str = "") -> StripRow | None:
    """A panel for a section's curve over depth, its twin's dotted; None where it has none."""
    if one.over_depth is None or not one.n_layers:
        return None
    other = None if twin is None else twin.over_depth
    if other is not None and not np.isfinite(other["value"].values).any():
        other = None  # a twin that gets no prompt right has nothing to average
    return StripRow(name or one.experiment, one.over_depth, one.n_layers, other)


def twins_of(sections: Sequence[Section]) -> dict[str, Section]:
    """The twin's section, by anchor of the trained model's."""
    return {one.anchor: twin for one, twin in _pairs(sections)}


def _pairs(sections: Sequence[Section]) -> Iterator[tuple[Section, Section]]:
    """Sections that were asked the same, one of a model and one of its untrained twin."""
    twins = {one.asked_name: one for one in sections if one.asked_name and one.untrained}
    for one in sections:
        if not one.untrained and one.asked_name in twins:
            yield one, twins[one.asked_name]


def _claims_in_pairs(
    own: Sequence[ClaimCard], others: Sequence[ClaimCard]
) -> Iterator[tuple[ClaimCard | None, ClaimCard | None]]:
    """Claims that rest on one quantity, first with first; then what only the twin claims."""
    left: dict[str, list[ClaimCard]] = defaultdict(list)
    for card in others:
        left[_about(card)].append(card)
    for card in own:
        same = left[_about(card)]
        yield card, (same.pop(0) if same else None)
    for card in others:
        if card in left[_about(card)]:
            yield None, card


def _about(card: ClaimCard) -> str:
    return str(card.claim.select.get("variable", card.claim.text))
