"""What syntax_probe says, from probes' answers through its own conclusion: both ways, of nothing, of too little."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.syntax_probe import Settings, claims, conclude, draw
from turned import said_of

DEPTHS, WORDS, READ = 4, 40, 9
FLAT, RISES = (0.5,) * DEPTHS, (0.5, 0.6, 0.9, 0.7)


def _words(documents: int) -> xr.Dataset:
    """Documents of one sentence each; every word is "x", half of them nouns: its type alone allows one half."""
    several = [f"train-{i}" for i in range(4)] + [f"test-{i}" for i in range(documents)]
    n, tags = len(several) * WORDS, np.tile(["NOUN", "VERB"], len(several) * WORDS // 2)
    place = np.tile(np.arange(WORDS), len(several))
    texts = {"form": "x", "xpos": "", "deprel": "", "head": "", "left_out": ""}
    return xr.Dataset(
        {
            "sentence_tokens": ("sentence", np.full(len(several), WORDS)),
            "sentence_words": ("sentence", np.full(len(several), WORDS)),
            "sentence_draws": ("sentence", np.array([1] * 4 + [-1] * documents)),
            "token_id": ("token", np.zeros(n, dtype=int)),
            "first": ("word", place),
            "last": ("word", place),
        },
        coords={
            "sentence": several,
            "sentence_document": ("sentence", several),
            "sentence_genre": ("sentence", [""] * len(several)),
            "upos": ("word", tags),
            **{name: ("word", np.full(n, text)) for name, text in texts.items()},
        },
    )


def _fits(
    documents: int, right: tuple[float, ...], control: tuple[float, ...], twin: float | None
) -> xr.Dataset:
    """Probes that are right about a share of each document's words at each depth, give or take."""
    rng, tested = np.random.default_rng(0), documents * WORDS
    true = np.tile([0, 1], tested // 2)

    def hits(share: float) -> np.ndarray:
        each = np.clip(share + rng.normal(scale=0.03, size=documents), 0, 1)
        return rng.random(tested) < each.repeat(WORDS)

    rows = [("trained", share, about) for share, about in zip(right, control, strict=True)]
    rows += [] if twin is None else [("untrained", twin, 0.0)] * DEPTHS
    guesses = [hits(share) for _, share, _ in rows]
    dims = ("fit", "task", "tested")
    return xr.Dataset(
        {
            "loss": (dims, np.array([np.where(hit, 0.2, 1.2) for hit in guesses])[:, None]),
            "predicted": (dims, np.array([np.where(hit, true, 1 - true) for hit in guesses])[:, None]),
            "control_right": (dims, np.array([hits(about) for *_, about in rows], dtype=int)[:, None]),
            "code_bits": (("fit", "task"), np.full((len(rows), 1), np.nan)),
            "converged": (("fit", "task"), np.ones((len(rows), 1), dtype=bool)),
        },
        coords={
            "fit": np.tile(np.arange(DEPTHS), len(rows) // DEPTHS),
            "fit_draw": ("fit", np.zeros(len(rows), dtype=int)),
            "fit_weights": ("fit", [weights for weights, *_ in rows]),
            "fit_piece": ("fit", ["last"] * len(rows)),
            "tested": range(tested),
            "task": [0],
        },
    )


def _passages(n: int) -> xr.Dataset:
    """Passages of two genres, alternating, all of the same tokens: the token alone allows one half."""
    tokens = n * READ
    return xr.Dataset(
        {
            "token_id": ("token", np.zeros(tokens, dtype=int)),
            "since": (("token", "label_kind"), np.tile(np.arange(READ), n)[:, None]),
            "passage_tokens": ("passage", np.full(n, READ)),
        },
        coords={
            "label_kind": ["genre"],
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(n)], READ)),
            "passage": [f"p{i}" for i in range(n)],
            "passage_label": (("label_kind", "passage"), np.resize(["law", "news"], n)[None]),
        },
    )


def _label_fits(n: int, right: tuple[float, ...]) -> xr.Dataset:
    """Probes that are right about a share of the passages at each depth; about dealt labels half of the time."""
    rng, steps = np.random.default_rng(1), [1, 2, 4, 8]
    read = (np.arange(n)[:, None] * READ + np.array(steps)).ravel()
    hits = np.array([[rng.permutation(n) < round(share * n) for _ in steps] for share in right])
    dealt = rng.random((DEPTHS, 1, 1, len(read))) < 0.5
    own = hits.transpose(0, 2, 1).reshape(DEPTHS, 1, 1, -1)
    both = np.concatenate([own, dealt], axis=2).astype(float)
    return xr.Dataset(
        {"right": (("fit", "label_kind", "against", "read"), both)},
        coords={"fit": range(DEPTHS), "label_kind": ["genre"], "against": ["label", "dealt"], "read": read},
    )


@cache
def _result(
    *,
    documents: int = 8,
    right: tuple[float, ...] = FLAT,
    control: tuple[float, ...] = FLAT,
    twin: float | None = None,
    passages: int = 0,
    label: tuple[float, ...] = FLAT,
) -> xr.Dataset:
    stages = {
        "words": _words(documents),
        "fits": _fits(documents, right, control, twin),
        "passages": _passages(passages) if passages else xr.Dataset(),
        "labels": _label_fits(passages, label) if passages else xr.Dataset(),
    }
    return conclude(stages, Settings(tasks=("part of speech",), next_word=False, fewest=5, resamples=200))


def _said(name: str, **how: Any) -> Claim:
    return said_of(list(claims(_result(**how))), name)


def test_the_gain_for_words_seen_in_training_is_of_those_alone() -> None:
    """Half of the tested words are unseen, and the probe is right about all of these and half of the others."""
    words, fits = _words(8), _fits(8, FLAT, FLAT, None)
    tested = np.flatnonzero(np.repeat(words.sentence_draws < 0, WORDS))
    unseen = tested % 4 < 2
    words["form"].values[tested[unseen]] = "y"
    fits.predicted.values[..., unseen] = np.tile([0, 1], len(tested) // 2)[unseen]
    stages = {"words": words, "fits": fits, "passages": xr.Dataset(), "labels": xr.Dataset()}

    result = conclude(stages, Settings(tasks=("part of speech",), next_word=False, fewest=5, resamples=50))

    np.testing.assert_allclose(result.gain, 0.25, atol=0.06)
    np.testing.assert_allclose(result.gain_met, 0.0, atol=0.1)


GAIN = "gain over the word type in decoding part of speech, at any depth"


def test_a_gain_is_said_at_its_best_depth_with_an_interval_for_all_depths() -> None:
    said = _said("gain", right=RISES)

    assert said.text.startswith(
        "Part of speech is most decodable beyond the word type at depth 2: accuracy 89%, 39 "
    )
    assert "percentage points above the word type's 50% (95% CI " in said.text
    assert said.text.endswith(", p < 0.005).")
    assert said.significant
    assert "interval for all of them at once" in said.caveat


@pytest.mark.parametrize("right", [FLAT, (0.2,) * DEPTHS])
def test_no_gain_and_a_loss_are_no_detectable_gain(right: tuple[float, ...]) -> None:
    said = _said("gain", right=right)

    assert said.text.startswith(f"No detectable {GAIN} (")
    assert said.significant is False


@pytest.mark.parametrize(("documents", "counted"), [(1, "1 document"), (5, "5 documents")])
def test_fewer_than_six_documents_are_too_few(documents: int, counted: str) -> None:
    said = _said("gain", right=RISES, documents=documents)

    assert said.text.startswith(f"Too few documents to test the {GAIN} ({counted}; estimate ")
    assert said.significant is False


def test_fewer_than_six_passages_are_too_few() -> None:
    said = _said("label_gain", passages=4, label=(1.0,) * DEPTHS)

    assert said.text.startswith(f"Too few passages to test the {LABEL} depth (4 passages; estimate ")
    assert said.significant is False


@pytest.mark.parametrize(("twin", "adds"), [(0.5, "training adds 3"), (1.0, "training adds −")])
def test_what_training_adds_is_said_with_its_sign(twin: float, adds: str) -> None:
    assert adds in _said("gain", right=RISES, twin=twin).caveat
    assert "untrained" not in _said("gain", right=RISES).caveat


@pytest.mark.parametrize(("right", "depth"), [(RISES, 2), (RISES[::-1], 1)])
def test_the_depth_of_the_least_loss_is_a_whole_number(right: tuple[float, ...], depth: int) -> None:
    said = _said("best_depth", right=right)

    assert (
        said.text
        == f"The probe's loss on part of speech is least at depth {depth} (95% CI {depth} to {depth})."
    )
    assert said.value == depth
    assert "nats by the word type alone" in said.caveat


def test_only_relations_are_said_to_be_selective() -> None:
    result = _result(right=RISES, control=(0.2, 0.3, 0.9, 0.3))
    renamed = result.assign_coords(task=["relation"])

    assert "selectivity" not in {claim.select["variable"] for claim in claims(result)}
    said = said_of(list(claims(renamed)), "selectivity")
    assert said.text.startswith("Dependency relation is most selective at depth 3: accuracy 4")
    assert "percentage points above its control task's (95% CI " in said.text
    assert said.caveat.startswith("accuracy is highest at depth 2")
    worse = _result(right=(0.3,) * DEPTHS, control=(0.9,) * DEPTHS).assign_coords(task=["relation"])
    assert "percentage points below its control task's" in said_of(list(claims(worse)), "selectivity").text


LABEL = "decodability of the genre of the passage beyond chance and the token alone, 8 tokens after it is given, at any"


def test_a_label_is_said_where_it_exceeds_the_token_and_labels_of_other_passages() -> None:
    said = _said("label_gain", passages=40, label=(0.5, 1.0, 1.0, 0.5))

    assert said.text.startswith(
        "Genre of the passage is decodable 8 tokens after it is given at depths 1 and 2 "
        "(1 token after it is given: at depths 1 and 2): accuracy 100% at depth 1, "
    )
    assert "percentage points above the token's own " in said.text
    assert said.significant


@pytest.mark.parametrize("label", [FLAT, (0.1,) * DEPTHS])
def test_a_label_that_no_depth_or_only_chance_gives_is_not_detectable(label: tuple[float, ...]) -> None:
    said = _said("label_gain", passages=40, label=label)

    assert said.text.startswith(f"No detectable {LABEL} depth (")
    assert said.significant is False


def test_its_measure_over_depth_has_the_twin_for_null() -> None:
    measures = experiments.load("syntax_probe").over_depth(_result(right=RISES, twin=0.5))

    assert set(measures["syntax"]) == {"value", "low", "high", "n", "null", "draws"}
    assert int(measures["syntax"].value.argmax("depth")) == 2
    assert measures["syntax"].draws.sizes == {"draw": 200, "depth": DEPTHS}


def test_titles_of_figures_are_questions_or_names_of_at_most_eight_words() -> None:
    figures = draw(_result(right=RISES, twin=0.5, passages=40))

    assert "When is the passage's genre decodable?" in figures
    assert all(len(title.split()) <= 8 for title in figures)


def test_p_of_a_gain_counts_all_tasks_and_depths() -> None:
    said = str(_result(right=RISES).p_adjusted.attrs["long_name"])

    assert said == "one-sided p, adjusted for all tasks and depths"
