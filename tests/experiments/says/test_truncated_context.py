# ruff: noqa: E501
"""What truncated_context says, from samples through its own conclusion: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope.contract import Claim
from layerscope.experiments.truncated_context import Settings, claims, conclude
from turned import compares

DEPTHS, LADDER, TARGETS = 11, (12, 24, 40), 6
KEPT = (*range(1, 11), *LADDER)


def _cut(
    passages: int = 8, *, curve: Any = 0.5, half: float = 0.0, far: float = 0.0, commas: float = 0.0
) -> xr.Dataset:
    """Similarities that follow a curve over depth, more of it with more context, give or take.

    Args:
        passages: how many.
        curve: similarity with the whole local context at each depth.
        half: how much more five tokens keep than one.
        far: by how many layers the effect of far context rises after that of near context.
        commas: how much less the commas keep.
    """
    rng, n = np.random.default_rng(0), passages * TARGETS
    wobble = rng.normal(scale=0.005, size=(passages, 1, 1)).repeat(TARGETS, axis=0)
    kind = np.array(["alphabetic", "comma"] * (n // 2))
    more = np.where(np.array(KEPT) >= 5, half, 0.0)[None, :, None]
    similarity = np.broadcast_to(curve, (n, len(KEPT), DEPTHS)) + more + wobble
    similarity = similarity - np.where(kind == "comma", commas, 0.0)[:, None, None]
    depth = np.arange(DEPTHS)
    rises = np.stack([1 / (1 + np.exp(3 - depth)), 1 / (1 + np.exp(3 + far - depth)), depth / 10], axis=0)
    arrival = rises[None] * (1 + wobble)
    text = {"token_text": "x", "token_before": "", "token_genre": "", "token_piece": "whole word"}
    flags = dict.fromkeys(("pronoun", "entity_final", "climbs"), False)
    each, cells = ("token", "depth"), ("token", "kept_tokens", "depth")
    return xr.Dataset(
        {
            "similarity": (cells, similarity),
            "cut_norm": (cells, np.ones_like(similarity)),
            "full_norm": (each, np.ones((n, DEPTHS))),
            "text_norm": (each, np.ones((n, DEPTHS))),
            "floor": (each, np.full((n, DEPTHS), 0.1)),
            "ceiling": (each, np.full((n, DEPTHS), np.nan)),
            "arrival": (("token", "range", "depth"), arrival),
            **{name: ("token", np.zeros(n, dtype=bool)) for name in ("shifted", "sink", "window_unknown")},
        },
        coords={
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(passages)], TARGETS)),
            "token_category": ("token", kind),
            "position": ("token", np.tile(np.arange(50, 50 + TARGETS), passages)),
            "token_unread": ("token", np.zeros(n, dtype=int)),
            **{name: ("token", np.full(n, value)) for name, value in (text | flags).items()},
            "kept_tokens": list(KEPT),
            "range": ["12 to 24 tokens", "24 to 40 tokens", "40 to all tokens"],
            "depth": depth,
        },
    )


def _said(name: str, **how: Any) -> Claim:
    return _of(_cut(**how), xr.Dataset(), name)


def _of(cut: xr.Dataset, prefix: xr.Dataset, name: str) -> Claim:
    result = conclude({"cut": cut, "prefix": prefix}, Settings(resamples=200, ladder=LADDER))
    return next(claim for claim in claims(result) if claim.select["variable"] == name)


FALLS, RISES = np.linspace(0.9, 0.5, DEPTHS), np.linspace(0.5, 0.9, DEPTHS)
HALF = {"curve": 0.5}


@pytest.mark.parametrize(
    ("name", "one", "other", "says", "opposite", "nothing"),
    [
        ("early_less_middle", {"curve": FALLS}, {"curve": RISES}, "preserves early layers better than middle ones, by 0.1",
         "preserves early layers worse than middle ones, by 0.1",
         "difference between early and middle layers in what keeping only the last 10 tokens preserves"),
        ("recent_tokens", {"half": 0.2}, {"half": -0.2}, "the last 5 tokens preserve a state better than the token alone, by",
         "the last 5 tokens preserve a state worse than the token alone, by",
         "difference between the last 5 tokens and the token alone after the first layer"),
        ("last_step", {"curve": RISES}, {"curve": FALLS}, "brings a state nearer to what the last 10 tokens alone give",
         "brings a state farther from what the last 10 tokens alone give",
         "change in the last layer of what the last 10 tokens preserve"),
        ("half_rise_difference", {"far": 2.0}, {"far": -2.0}, "Context 24-40 tokens back has half of its effect 1.",
         "layers earlier than context 12-24 tokens back",
         "difference in depth between the effects of context 24-40 tokens back and context 12-24 tokens back"),
        ("category_difference", {"commas": 0.2}, {"commas": -0.2}, "preserve “comma” worse than alphabetic tokens, by 0.2",
         "preserve “comma” better than alphabetic tokens, by 0.2",
         "difference between “comma” and alphabetic tokens in what the last 10 tokens preserve"),
    ],
)  # fmt: skip
def test_each_direction_nothing_and_too_little(
    name: str, one: dict[str, Any], other: dict[str, Any], says: str, opposite: str, nothing: str
) -> None:
    said, turned, null, few = (_said(name, **how) for how in (one, other, HALF, one | {"passages": 4}))

    assert says in said.text
    assert opposite in turned.text
    assert "(95% CI " in said.text
    compares(said, turned, null, few, nothing, n="4 passages; ")


def test_the_least_preserved_depth_is_said_with_an_interval_for_all_of_them() -> None:
    said = _said("median_similarity", curve=FALLS)

    assert said.text.startswith(
        "Keeping only the last 10 tokens preserves a state least at depth 10: cosine similarity 0.5"
    )
    assert "best of 10, interval for all of them at once" in said.caveat
    assert said.significant is None


def test_the_reach_is_said_in_tokens_or_as_more_than_was_measured() -> None:
    here, nowhere = (_said("reach", curve=level, half=0.1) for level in (0.85, 0.2))

    assert "by the last 5 tokens at depth 2 and by the last 5 tokens at depth 5" in here.text
    assert "by more than the last 40 tokens at depth 2" in nowhere.text
    assert nowhere.value is None


@pytest.mark.parametrize("long", [0, 3])
def test_tokens_with_long_states_are_counted_as_sinks(long: int) -> None:
    cut = _cut()
    cut["sink"] = ("token", np.arange(cut.sizes["token"]) < long)

    said = _of(cut, xr.Dataset(), "sink")

    assert said.text == (
        f"{long} of 48 target tokens have states more than ten times as long as the median (attention sinks)."
    )
    assert said.value == long
    assert said.significant is None


@pytest.mark.parametrize(
    ("without", "alone", "says"), [(0.9, 0.3, ("0.90", "0.30")), (0.3, 0.9, ("0.30", "0.90"))]
)
def test_a_name_is_said_without_its_prefix_and_without_all_but_its_last_token(
    without: float, alone: float, says: tuple[str, str]
) -> None:
    wobble = np.random.default_rng(0).normal(scale=0.05, size=(12, 1))
    prefix = xr.Dataset(
        {
            f"{kind}_similarity": (
                ("name", "depth"),
                np.broadcast_to(value + wobble, (12, DEPTHS)),
                {"long_name": f"similarity, {kind}", "units": "1"},
            )
            for kind, value in (("prefix", without), ("last_token", alone))
        },
        coords={"name": [f"n{i}" for i in range(12)], "depth": range(DEPTHS)},
    )

    said = _of(_cut(), prefix, "mean_prefix_similarity")

    assert said.text.startswith(
        f"At depth 2 the last state of a name keeps a cosine similarity of {says[0]} without “"
    )
    assert f"before it, and of {says[1]} without all but its last token (95% CI " in said.text
    assert said.caveat == "mean over 12 names"
    assert "mean_prefix_similarity" not in {
        one.select["variable"]
        for one in claims(
            conclude({"cut": _cut(), "prefix": xr.Dataset()}, Settings(resamples=200, ladder=LADDER))
        )
    }


def test_p_of_a_category_counts_all_the_categories_that_are_compared() -> None:
    cut = _cut(commas=0.2)
    cut["pronoun"] = ("token", np.arange(cut.sizes["token"]) % 3 == 0)
    result = conclude({"cut": cut, "prefix": xr.Dataset()}, Settings(resamples=200, ladder=LADDER))
    tested = int(result.category_p_adjusted.notnull().sum())

    assert tested == 3  # commas, pronouns and whole words, each against the alphabetic tokens
    # No resample lies on the other side: 2 / (1 + 200), the smallest p there is, times what it was picked from.
    comma = result.sel(category="comma")
    assert float(comma.category_p_adjusted) == pytest.approx(tested * 2 / 201)
    assert float(comma.category_difference_least_p) == pytest.approx(tested * 2 / 201)


def _result(cut: xr.Dataset) -> xr.Dataset:
    return conclude({"cut": cut, "prefix": xr.Dataset()}, Settings(resamples=50, ladder=LADDER))


def test_categories_are_compared_as_if_they_stood_at_the_same_positions() -> None:
    cut = _cut()
    rises, most_commas = (
        np.tile(np.repeat(each, 2), 8) for each in ([-0.2, 0.0, 0.2], [7, 4, 1])
    )  # both by position
    passage = np.repeat(np.arange(8), TARGETS)
    cut["similarity"] = cut.similarity + xr.DataArray(rises, dims="token")
    cut["token_category"] = ("token", np.where(passage < most_commas, "comma", "alphabetic"))

    similarity = _result(cut).category_similarity

    for name in ("comma", "alphabetic"):
        np.testing.assert_allclose(similarity.sel(category=name), 0.5, atol=0.02, err_msg=name)


def test_shares_of_norm_are_squares_and_norms_are_those_of_cut_states() -> None:
    cut = _cut(curve=FALLS)
    cut["cut_norm"] = 3 * cut.cut_norm
    result = _result(cut)

    np.testing.assert_allclose(result.explained, result.median_similarity**2, rtol=0.01)
    np.testing.assert_allclose(result.category_norm_ratio, 3)


@pytest.mark.parametrize(("curve", "said"), [(0.05, True), (0.5, False)])
def test_a_state_less_like_the_full_one_than_another_text_gives_has_a_caution(
    curve: float, said: bool
) -> None:
    assert (
        "At 11 of 11 depths the local context alone" in _result(_cut(curve=curve)).attrs["cautions"]
    ) == said


def test_tokens_whose_cut_states_are_long_are_sinks_too() -> None:
    cut = _cut(commas=0.2)
    long = np.arange(cut.sizes["token"]) < 2
    cut["cut_norm"] = cut.cut_norm + 20 * xr.DataArray(long, dims="token")

    sinks = _result(cut).category_sinks

    assert (int(sinks.sel(category="comma")), int(sinks.sel(category="alphabetic"))) == (1, 1)
