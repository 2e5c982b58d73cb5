from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from plotly.graph_objects import Figure

from layerscope.plots import leading
from layerscope.plots.theme import (
    COLOURS,
    DARK,
    LIGHT,
    NEUTRAL,
    PAPERS,
    Paper,
    colour_scale,
    faded,
    finish,
    more,
    template,
)

# Machado, Oliveira & Fernandes 2009, severity 1, in linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "green-blind": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "red-blind": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    dim, bright = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (bright + 0.05) / (dim + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.array(
        [[0.41222, 0.53633, 0.05145], [0.2119, 0.68070, 0.10740], [0.0883, 0.28172, 0.62998]]
    ) @ np.clip(rgb, 0, 1)
    mixed = np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]])
    return mixed @ np.cbrt(cones)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
@pytest.mark.parametrize("colour", [*COLOURS, NEUTRAL])
def test_every_colour_stands_out_on_both_papers(paper: Paper, colour: str) -> None:
    assert contrast(colour, paper.paper) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_categories_look_alike(sight: str) -> None:
    seen = [oklab(SIGHT[sight] @ linear(colour)) for colour in COLOURS]

    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 0.08


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_zero_has_the_colour_of_the_paper_and_ink_grows_from_there(paper: Paper) -> None:
    recovery, effect = (colour_scale(scale, paper) for scale in ("recovery", "effect"))

    assert recovery[0] == [0.0, paper.paper]
    assert effect[3] == [0.5, paper.paper]
    away = [contrast(colour, paper.paper) for _, colour in recovery]
    assert away == sorted(away)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_text_is_readable(paper: Paper) -> None:
    assert contrast(paper.ink, paper.paper) > 10
    assert contrast(paper.soft, paper.paper) > 4.5
    assert template(paper).layout.font.color == paper.ink


def test_faded_keeps_the_colour() -> None:
    assert faded("#1177bb", 0.18) == "rgba(17,119,187,0.18)"


def test_title_and_caption_get_room_of_their_own_and_are_escaped() -> None:
    bare, titled = finish(Figure()), finish(Figure(), title="<b>", caption="x & y " * 40)

    assert titled.layout.title.text == "&lt;b&gt;"
    assert titled.layout.title.subtitle.text.count("<br>") == 2
    assert (
        titled.layout.height - bare.layout.height
        == titled.layout.margin.t - bare.layout.margin.t
        == 30 + 57 + 10
    )
    assert titled.layout.meta["caption"].startswith("x & y")


def test_papers_are_named_as_the_page_names_them() -> None:
    assert (LIGHT.name, DARK.name) == ("light", "dark")


def test_figures_for_who_wants_more_are_marked_and_keep_what_else_is_known_of_them() -> None:
    one = finish(Figure(), title="states", caption="mean")
    assert one.layout.meta["title"] == "states"
    assert "more" not in one.layout.meta
    marked = more({"states": one})["states"]
    assert marked.layout.meta["more"]
    assert marked.layout.meta["caption"] == "mean"


def test_three_of_the_wanted_lead_at_one_height_and_all_others_are_more() -> None:
    names = ("rare", "tall", "first", "second", "third", "last")
    drawn = {
        name: finish(Figure(), caption="c", height=500, min_height=360 * (name == "tall")) for name in names
    }

    found = leading(drawn, ["missing", "first", "second", "tall", "last"])

    assert list(found) == ["first", "second", "tall", "rare", "third", "last"]
    assert [bool(one.layout.meta.get("more")) for one in found.values()] == [False] * 3 + [True] * 3
    assert {found[name].layout.height - found[name].layout.meta["title_height"] for name in found} == {
        360,
        500,
    }
    assert found["first"].layout.height == found["tall"].layout.height


def test_where_none_of_the_wanted_was_drawn_the_first_two_lead() -> None:
    found = leading({name: finish(Figure()) for name in "abc"}, ["missing"])

    assert [bool(one.layout.meta.get("more")) for one in found.values()] == [False, False, True]
