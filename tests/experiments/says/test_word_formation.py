"""What word_formation says, from patched pairs through its own conclusion: both ways, of nothing, of too little."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.word_formation import Settings, claims, conclude, draw
from turned import compares, said_of

LAYERS = 6


def _pairs(n: int, words: float, made_up: float, attention: float, mlp: float) -> xr.Dataset:
    """Pairs of each kind whose last piece takes over at some depth, and whose parts work about some layer."""
    wobble = np.random.default_rng(0).normal(scale=0.2, size=(2, n, 3))
    wobble = (wobble - wobble.mean(axis=1, keepdims=True)).reshape(2 * n, 3)
    at = np.repeat([words, made_up], n) + wobble[:, 0]
    last = 1 / (1 + np.exp(3 * (at[:, None] - np.arange(LAYERS + 1))))
    place = np.array([attention, mlp]) + wobble[:, 1:]
    parts = np.exp(-((np.arange(LAYERS) - place[..., None]) ** 2))
    return xr.Dataset(
        {
            "recovered": (("prompt", "piece", "depth"), np.stack([1 - last, last], axis=1)),
            "recovered_part": (("prompt", "site", "layer"), parts),
            "recovered_whole_part": (("prompt", "site"), np.broadcast_to([0.75, 0.25], (2 * n, 2))),
            "apart": ("prompt", np.ones(2 * n)),
        },
        coords={
            "prompt": [f"a{i} → b{i}" for i in range(2 * n)],
            "kind": ("prompt", np.repeat(["words", "made up"], n)),
            "pieces": ("prompt", np.resize([2, 3], 2 * n)),
            "piece": ["earlier pieces", "last piece"],
            "site": ["attention", "MLP"],
            "depth": range(LAYERS + 1),
            "layer": range(LAYERS),
        },
    )


def _twins(n: int, gain: float) -> xr.Dataset:
    """Words whose last piece is more like their single token, from depth 3 on, than behind another first piece."""
    rng, dims = np.random.default_rng(1), ("word", "form", "depth")
    own = 0.3 + rng.normal(scale=0.02, size=(n, 2, LAYERS + 1))
    own[:, 0, 3:] += gain
    nearest = np.zeros((n, 2, LAYERS + 1), dtype=bool)
    nearest[: n // 2, 0, 4] = nearest[: n // 4, 1, 4] = True
    return xr.Dataset(
        {
            "own_similarity": (dims, own),
            "other_similarity": (dims, np.full_like(own, 0.1)),
            "found_twin": (dims, nearest),
        },
        coords={
            "word": [f"w{i}" for i in range(n)],
            "form": ["split", "swapped"],
            "depth": range(LAYERS + 1),
        },
    )


def _cases(n: int, within: float, across: float) -> xr.Dataset:
    """Probes that fall by so much from depth 1 to 2, over two contexts of each word."""
    rng = np.random.default_rng(2)
    kinds = np.repeat(["within", "across"], 2 * n)
    told = 0.9 + rng.normal(scale=0.02, size=(4 * n, LAYERS + 1))
    told[:, 2:] -= np.repeat([within, across], 2 * n)[:, None]
    return xr.Dataset(
        {"told": (("token", "depth"), told)},
        coords={
            "case_kind": ("token", kinds),
            "case_class": ("token", np.tile(np.repeat(np.arange(n) % 2, 2), 2)),
            "case_token": ("token", np.tile(np.repeat(np.arange(n), 2), 2)),
            "depth": range(LAYERS + 1),
        },
    )


@cache
def _result(
    n: int = 10,
    *,
    words: float = 3,
    made_up: float = 3,
    attention: float = 2,
    mlp: float = 2,
    gain: float = 0.0,
    within: float = 0.2,
    across: float = 0.2,
    empty: bool = False,
) -> xr.Dataset:
    erased = json.dumps([{"label": label} for label in range(2)])
    design = xr.Dataset({"words": ("n_pieces", [5])}, coords={"n_pieces": [2]}).assign_attrs(erased=erased)
    stages = {
        "design": design,
        "pairs": _pairs(n, words, made_up, attention, mlp),
        "twins": xr.Dataset() if empty else _twins(n, gain),
        "erasure": xr.Dataset() if empty else _cases(n, within, across),
    }
    return conclude(stages, Settings(resamples=200, erasure_to=2))


def _said(name: str, n: int = 10, **how: Any) -> Claim:
    return said_of(list(claims(_result(n, **how))), name)


@pytest.mark.parametrize(
    ("name", "one", "other", "says", "opposite", "nothing"),
    [
        ("crossing_gap", {"words": 4, "made_up": 2}, {"words": 2, "made_up": 4},
         "Words are joined ", "Words are joined ",
         "difference in the depth at which words and made-up ones are joined"),
        ("mlp_behind_attention", {"attention": 1.5, "mlp": 3.5}, {"attention": 3.5, "mlp": 1.5},
         "At the last piece, what MLPs add matters ", "At the last piece, what MLPs add matters ",
         "difference in depth between what attention and MLPs add at the last piece"),
        ("erasure", {"within": 0.6}, {"across": 0.6},
         "From depth 1 to 2 the piece before fades more within words than between words, by 0.3",
         "From depth 1 to 2 the piece before fades less within words than between words, by 0.4",
         "difference in how the piece before fades within and between words, from depth 1 to 2"),
    ],
)  # fmt: skip
def test_each_direction_nothing_and_too_little(
    name: str, one: dict[str, float], other: dict[str, float], says: str, opposite: str, nothing: str
) -> None:
    said, turned, null, few = (_said(name, **one), _said(name, **other), _said(name), _said(name, 4, **one))

    assert said.text.startswith(says)
    assert turned.text.startswith(opposite)
    assert name == "erasure" or (" later than " in said.text and " earlier than " in turned.text)
    assert "(95% CI " in said.text
    assert said.value == pytest.approx(0.4 if name == "erasure" else 2, abs=0.1)
    assert turned.value == pytest.approx(-0.4 if name == "erasure" else -2, abs=0.1)
    compares(said, turned, null, few, nothing, n="4")


def test_the_depth_at_which_pieces_are_joined_is_said_with_each_number_of_pieces() -> None:
    said = _said("mean_crossing", words=4)

    assert said.text.startswith("The pieces of words are joined at depth ")
    assert said.value == pytest.approx(4, abs=0.2)
    assert said.caveat.startswith("10 of 10 pairs of words cross over; 2 pieces: ")
    assert said.significant is None


def test_pairs_whose_predictions_are_alike_are_left_out_and_counted() -> None:
    stages = _pairs(10, 3, 3, 2, 2)
    stages["apart"][:4] = 0.001
    nothing = xr.Dataset()
    design = xr.Dataset({"words": ("n_pieces", [5])}, coords={"n_pieces": [2]}).assign_attrs(erased="[]")
    kept = {"design": design, "pairs": stages, "twins": nothing, "erasure": nothing}

    said = said_of(list(claims(conclude(kept, Settings(resamples=50)))), "mean_crossing")

    assert said.caveat.startswith("6 of 10 pairs of words cross over")


def test_what_each_part_recovers_is_said_beside_their_order() -> None:
    assert (
        "attention alone recovers 0.75 of the prediction and MLPs alone 0.25"
        in _said("mlp_behind_attention").caveat
    )


NOTHING = (
    "convergence of words split where the tokenizer's last merge joined them to the single token's state"
)


@pytest.mark.parametrize("gain", [0.0, -0.3])
def test_no_convergence_and_divergence_are_no_detectable_convergence(gain: float) -> None:
    said = _said("likeness_gain", gain=gain)

    assert said.text.startswith(f"No detectable {NOTHING} (")
    assert said.significant is False


def test_convergence_is_said_at_its_best_depth_with_an_interval_for_all_depths() -> None:
    said = _said("likeness_gain", gain=0.3)

    assert "converges to the single token's, most at depth " in said.text
    assert ": Δcosine 0.3" in said.text
    assert "interval for all of them at once" in said.caveat
    assert said.significant
    few = _said("likeness_gain", 4, gain=0.3)
    assert few.text.startswith(f"Too few words to test the {NOTHING} (4 words; estimate 0.3")


def test_fewer_than_six_words_with_two_forms_have_no_interval() -> None:
    few, enough = _result(5, gain=0.3), _result(6, gain=0.3)

    for name in ("mean_likeness", "mean_found_twin", "likeness_gain"):
        for end in ("low", "high"):
            assert few[f"{name}_{end}"].isnull().all()
            assert enough[f"{name}_{end}"].notnull().all()
    assert few.likeness_gain_joint_low.isnull().all()
    assert few.likeness_gain.notnull().all()


def test_the_share_of_words_nearest_to_their_token_is_said_beside_chance_and_the_control() -> None:
    said = _said("mean_found_twin", 20)

    assert said.text.startswith(
        "The single token's state is the closest one for 50% of 20 split words at depth 4 (95% CI "
    )
    assert said.caveat.startswith("chance is 5%; behind another first piece it is 2")


def test_without_twins_and_cases_nothing_is_said_of_them() -> None:
    names = {claim.select["variable"] for claim in claims(_result(empty=True))}

    assert names == {"mean_crossing", "crossing_gap", "mlp_behind_attention"}


def test_words_that_nowhere_cross_have_no_estimate() -> None:
    stages = _pairs(10, 3, 3, 2, 2)
    stages["recovered"][:10] = 0.0
    design = xr.Dataset({"words": ("n_pieces", [5])}, coords={"n_pieces": [2]}).assign_attrs(erased="[]")
    kept = {"design": design, "pairs": stages, "twins": xr.Dataset(), "erasure": xr.Dataset()}

    said = list(claims(conclude(kept, Settings(resamples=50))))

    assert (
        said[0].text
        == "No estimate of the depth at which the pieces of words are joined (no pair crosses over)."
    )
    assert said[1].text.endswith("made-up ones are joined (no pair crosses over).")


def test_its_measure_over_depth_has_made_up_words_for_null() -> None:
    measures = experiments.load("word_formation").over_depth(_result(words=4, made_up=2))

    assert set(measures["joined"]) == {"value", "low", "high", "n", "null", "draws"}
    assert (
        float(measures["joined"].value.sel(depth=3)) < 0.2 < 0.8 < float(measures["joined"].null.sel(depth=3))
    )


def test_titles_of_figures_have_at_most_eight_words() -> None:
    assert all(len(title.split()) <= 8 for title in draw(_result(gain=0.3)))
