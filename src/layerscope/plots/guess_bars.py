"""What a classifier of ordered classes guesses, by true class and by something that may give it away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from plotly.colors import sample_colorscale
from plotly.graph_objects import Bar, Figure
from plotly.subplots import make_subplots

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import escaped
from layerscope.plots.theme import finish, legend_above

_ROW, _TOP = 62, 70
_TICKS = 25  # numbers of two figures that fit side by side


def guess_bars(
    counts: Int[np.ndarray, "true place guess"],
    *,
    classes: Sequence[str],
    place_title: str,
    first_place: int = 0,
    fewest: int = 3,
    title: str = "",
    caption: str = "",
) -> Figure:
    """One row for each true class, one bar for each place, stacked by what was guessed in order of the classes.

    The right guess is outlined in every bar, so that its height is the share right. The colours of classes
    run from dark to light in their order. Bars of fewer than `fewest` cases are left out.

    Args:
        counts: how often each class was guessed.
        classes: names of the classes, in order.
        place_title: what stands under the axis of places.
        first_place: number of the first place.
        fewest: cases that a bar needs.
        title, caption: as everywhere.
    """
    _refuse_other_shapes(counts, classes)
    cases = counts.sum(axis=2)
    shares = np.where(cases[..., None] >= fewest, counts / np.maximum(cases[..., None], 1), np.nan)
    names, spacing = [escaped(name) for name in classes], 0.18 / len(classes)
    figure = make_subplots(len(classes), 1, shared_xaxes=True, vertical_spacing=spacing, row_titles=names)
    places = np.arange(counts.shape[1]) + first_place
    for row in range(len(classes)):
        for bar in _stack(row, places, shares[row], cases[row], names):
            figure.add_trace(bar, row=row + 1, col=1)
    figure.update_yaxes(range=[0, 1.02], tickvals=[0, 1], tickformat=".0%")
    figure.update_xaxes(
        title=escaped(place_title),
        tick0=first_place,
        dtick=-(-len(places) // _TICKS),
        row=len(classes),
        col=1,
    )
    # Row titles stand upright beside their rows: plotly turns them by a right angle, which nobody reads.
    figure.update_annotations(textangle=0, xanchor="left", x=1.005, font={"size": 12})
    inside = _ROW * len(classes)
    figure.update_layout(
        barmode="stack",
        bargap=0.12,
        legend=legend_above(raised=16 / inside) | {"title": {"text": "guessed:"}},
    )
    height = _TOP + inside + 48
    finish(figure, title=title, caption=caption, height=height, top=_TOP, min_width=640, min_height=height)
    return figure.update_layout(margin_r=80)


def _refuse_other_shapes(counts: np.ndarray, classes: Sequence[str]) -> None:
    if counts.ndim != 3 or counts.shape[0] != len(classes) or counts.shape[2] != len(classes):
        raise LayerscopeError(
            "bars of guesses cannot be drawn of this",
            found=f"counts of shape {counts.shape} for {len(classes)} classes",
            expected="true class, place, guessed class",
            hint="counts[true, place, guess]",
        )


def _stack(
    true: int,
    places: Int[np.ndarray, " place"],
    shares: Float[np.ndarray, "place guess"],
    cases: Int[np.ndarray, " place"],
    names: Sequence[str],
) -> Iterator[Bar]:
    """The bars of one true class: one trace for each guess, the right one outlined."""
    for guess, colour in enumerate(sample_colorscale("Viridis", np.linspace(0.05, 0.95, len(names)))):
        outline = {"color": "#d62728", "width": 2} if guess == true else {"color": colour, "width": 0}
        yield Bar(
            x=places,
            y=shares[:, guess],
            name=names[guess],
            legendgroup=str(guess),
            showlegend=true == int(guess == 0),  # of a row where it is not the right guess: no outline
            legendrank=guess,
            marker={"color": colour, "line": outline},
            customdata=cases,
            hovertemplate="%{y:.0%} of %{customdata} cases",
        )
