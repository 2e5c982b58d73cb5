"""Every claim of every post can hold, fail to hold, and stay undecided."""

from __future__ import annotations

import pytest

from atlas.posts.made_results import made
from layerscope.atlas.posts import post_named, posts
from layerscope.atlas.posts.svd_directions import WEIGHTS
from layerscope.atlas.verdicts import PostClaim, judge
from layerscope.errors import LayerscopeError

CLAIMS = [(post.name, claim.name) for post in posts() for claim in post.claims]
LARGE, NONE, WIDE = made(1.0), made(0.0), made(0.3, noise=3.0)
UNSURE = dict.fromkeys(("five and ten move together", "no pickup at either end"), made(1.0, noise=0.02))
"""Shares and correlations are decided where noise is as large as in WIDE: it makes them small."""

# Claims that something stays small hold where the effect is none.
SMALL = {
    "noise level matters little",
    "distance matters little",
    "confidence matters little",
    "attention restores where recall crosses",
    "invented subjects alike",
    "near and far in the same layers",
    "QK directions mean nothing",
}


def verdict(post: str, claim: str, results: object) -> str:
    return next(one.holds for one in judge(post_named(post), results, "m") if one.claim.name == claim)  # type: ignore[arg-type]


@pytest.mark.parametrize(("post", "claim"), CLAIMS)
def test_a_verdict_can_go_every_way(post: str, claim: str) -> None:
    large, none = ("does not hold", "holds") if claim in SMALL else ("holds", "does not hold")

    assert (verdict(post, claim, LARGE), verdict(post, claim, NONE)) == (large, none)
    assert verdict(post, claim, UNSURE.get(claim, WIDE)) == "cannot be decided here"


def test_without_its_run_a_claim_cannot_be_decided_and_says_which_is_missing() -> None:
    for post in posts():
        for found in judge(post, {}, "m"):
            assert found.holds == "cannot be decided here"
            assert found.claim.parts[0].needs.experiment in found.why
            assert found.why.endswith("was not run")


def test_every_claim_says_what_would_matter_and_why() -> None:
    for post in posts():
        names = [claim.name for claim in post.claims]
        assert len(set(names)) == len(names)
        for claim in post.claims:
            assert claim.said.endswith(".")
            assert claim.where
            assert all(part.because for part in claim.parts)
            _no_smallest_effect_is_negative(claim)


def _no_smallest_effect_is_negative(claim: PostClaim) -> None:
    assert all(part.smallest > 0 for part in claim.parts if part.predicted == "within")
    assert all(part.smallest >= 0 for part in claim.parts)


def test_a_claim_that_untrained_twins_show_too_is_marked() -> None:
    post = post_named("word-positions")
    found = judge(post, LARGE, "m", {0: LARGE, 1: NONE, 2: {}})

    assert found[0].of_twins == "holds in 1 of 2 untrained twins"


def test_an_unknown_post_is_named() -> None:
    with pytest.raises(LayerscopeError, match="recall-and-regurgitation"):
        post_named("geva")
    assert post_named("word").name == "word-positions"


def test_a_rater_without_power_decides_nothing_about_directions() -> None:
    results = made(1.0)
    before = [one.holds for one in judge(post_named("svd"), results, "m")]
    blind = results[WEIGHTS].assign_attrs(rater_may_rate="false")

    found = judge(post_named("svd"), {**results, WEIGHTS: blind}, "m")

    rated = [one for one in found if one.claim.name != "three phases of cosines"]
    assert {one.holds for one in rated} == {"cannot be decided here"}
    assert all("no rater has power" in one.why for one in rated)
    assert before.count("cannot be decided here") == 0
