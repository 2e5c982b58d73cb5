"""The page of several models: maps under one another, indices and curves, and nothing that reads alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atlas.posts.made_results import made
from layerscope.atlas.compare import compare
from layerscope.atlas.layers import layers_of_parts
from layerscope.atlas.parts import part_of
from layerscope.atlas.posts import post_named
from layerscope.atlas.reproduced import Reproduction, joined, save, saved
from layerscope.atlas.verdicts import judge
from layerscope.report import write_comparison
from report.made_runs import made_layers
from report.test_report import page_without_library

NAMES = ("small", "<b>large")


@pytest.fixture
def page(tmp_path: Path) -> str:
    each = [layers_of_parts(name, [part_of(made_layers(at))]) for name, at in zip(NAMES, (3, 7), strict=True)]
    return page_without_library(write_comparison(compare(*each), tmp_path / "pages" / "compare.html"))


def test_maps_stand_under_one_another(page: str) -> None:
    strips = re.findall(r'<td class="strip"><div>(.*?)</div>', page)

    assert [
        strip.split("<span").index(next(one for one in strip.split("<span") if "cell out" in one))
        for strip in strips
    ] == [4, 8]
    assert [strip.count("<span") for strip in strips] == [12, 12]


def test_every_row_says_its_model_and_hostile_names_are_text(page: str) -> None:
    assert page.count('<td class="model">small</td>') == 1
    assert page.count('<td class="model">&lt;b&gt;large</td>') == 1
    assert "<b>" not in page


def test_indices_curves_and_sentences_are_there(page: str) -> None:
    assert "mean share of what is done" in page
    assert "small: Layers fall into 3 phases" in page
    assert page.count("<figure") == 1
    assert re.search(r"Layers of small and &lt;b&gt;large agree best|is not decided|No stretch aligns", page)


def test_every_link_has_its_anchor(page: str) -> None:
    anchors, links = re.findall(r'id="([^"]+)"', page), re.findall(r'href="#([^"]+)"', page)

    assert len(anchors) == len(set(anchors))
    assert set(links) <= set(anchors)


def test_claims_of_the_posts_have_a_column_for_each_model(tmp_path: Path) -> None:
    each = [layers_of_parts(name, [part_of(made_layers(at))]) for name, at in zip(NAMES, (3, 7), strict=True)]
    verdicts = [
        judge(post_named("word"), made(strength), name)
        for strength, name in zip((1.0, 0.0), NAMES, strict=True)
    ]
    save(Reproduction(NAMES, tuple(zip(*verdicts, strict=True))), tmp_path)

    claims = joined([saved(tmp_path)], NAMES)
    page = page_without_library(write_comparison(compare(*each), tmp_path / "compare.html", claims))

    assert "What the posts claimed" in page
    assert re.search(r"<th>Published</th><th>small</th><th>&lt;b&gt;large</th>", page)
    assert all(one.holds == "holds" for one in verdicts[0])
    assert page.count("<strong>holds</strong>") == sum(
        one.holds == "holds" for each in verdicts for one in each
    )
