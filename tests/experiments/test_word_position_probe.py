"""word_position_probe: its prompts, its numbers against plain computations, its refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments.word_position_probe import Settings, items, measure
from layerscope.experiments.word_position_probe.items.prompts import as_dataset, prompts_of
from layerscope.experiments.word_position_probe.items.tasks import (
    ANY_DEPTH,
    TASKS,
    cases_of,
    gathered,
    guesses,
)
from layerscope.experiments.word_position_probe.measure.fitting import fitted
from layerscope.experiments.word_position_probe.measure.laying import lay
from layerscope.results.combine import concatenate
from layerscope.results.escaping import restored
from layerscope.results.schema import read_json
from layerscope.text.tokenised_words import tokenise_word

WORDS = [
    *(
        "the",
        "red",
        "fox",
        "met",
        "old",
        "dog",
        "in",
        "town",
        "small",
        "bird",
        "sang",
        "and",
        "ran",
        "to",
        "of",
        "stone",
    ),
    *("reds", "mets", "olds", "dogs", "towns", "birds", "stones", "foe", "toe", "them", "then"),
]
FEW: dict[str, Any] = {
    "prompt_words": 4,
    "most_pieces": 2,
    "train_prompts": 24,
    "test_prompts": 16,
    "causal_prompts": 3,
    "moved_word": 1,
    "fewest": 1,
    "resamples": 30,
}


def run(family: str = "llama", **more: Any) -> xr.Dataset:
    model = zoo.layered(family, flipped=True)
    return ls.run("word_position_probe", model, words=WORDS, progress=False, **(FEW | more))


def test_units_lie_where_their_tokens_are_and_no_word_is_in_training_and_test() -> None:
    tokenizer = zoo.tokenizer()
    words = [tokenise_word(tokenizer, word) for word in WORDS]

    prompts, _ = lay(tokenizer, words, "auto", 64, Settings(**FEW))

    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for prompt in prompts:
        assert prompt.ids == (0, *tokenizer.encode(prompt.text))
        pieces = [
            tokenizer.decode(list(prompt.ids[first : last + 1])).strip()
            for first, last in zip(prompt.first, prompt.last, strict=True)
        ]
        if prompt.arm == "anchored":
            assert " ".join(pieces) == prompt.text.split("When ")[1]
            assert set(pieces) <= set(WORDS)
            seen[prompt.test] |= set(pieces)
            sizes = np.diff([prompt.start - 1, *prompt.last])
            assert sorted(sizes) == sorted(np.diff([prompt.start - 1, *prompt.shuffled]))
        if prompt.arm == "sentences":
            assert all(piece.endswith(".") for piece in pieces)
    assert not seen[True] & seen[False]
    lengths = [np.diff([p.start - 1, *p.last]) for p in prompts if p.arm == "anchored"]
    assert np.concatenate(lengths).mean() == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gpt_oss", "recurrent_gemma"])
def test_probabilities_are_those_of_scikit_learn_on_states_from_plain_hooks(family: str) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    result = run(family, scale="none", penalty=2.0, sentences=False, names=False, untrained=False)
    module, depth = zoo.make(family, flipped=True), 2

    states: dict[bool, list[np.ndarray]] = {True: [], False: []}
    labels: dict[bool, list[int]] = {True: [], False: []}
    rows = zip(result.prompt.values, result.prompt_text.values, result.held_out.values, strict=True)
    for name, text, test in rows:
        if str(name).startswith("anchored"):
            whole = restored(str(text))
            ids = [0, *zoo.tokenizer().encode(whole)]
            stream = _input_of_block(module, depth, ids)
            for index in range(4):
                upto = " ".join(whole.split("When ")[1].split()[: index + 1])
                place = len(zoo.tokenizer().encode(f"{whole.split('When ')[0]}When {upto}"))
                states[bool(test)].append(stream[place])
                labels[bool(test)].append(index)
    fit = linear.LogisticRegression(C=1 / 2.0, max_iter=2000, tol=1e-8).fit(
        np.stack(states[False]), labels[False]
    )

    here = result.isel(token=result.case_task.values == "last")
    assert here.case_index.values.tolist() == labels[True]
    expected = fit.predict_proba(np.stack(states[True]))
    np.testing.assert_allclose(
        here.probability.values[:, depth], expected, atol=0.03
    )  # fits end at a gap of 1e-4


def _input_of_block(module: Any, layer: int, ids: list[int]) -> np.ndarray:
    seen: list[torch.Tensor] = []
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList))
    hook = blocks[layer].register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        module(torch.tensor([ids]), use_cache=False)
    hook.remove()
    return seen[0][0].numpy()


@pytest.mark.parametrize("penalty", [1.0, 20.0])
def test_yes_or_no_probes_are_those_of_scikit_learn(penalty: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    several = pytest.importorskip("sklearn.multiclass")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    states = 3 * rng.normal(size=(2, 300, 10)) + 2
    states[:, :, 0] += labels
    settings = Settings(scheme="one-vs-rest", scale="none", penalty=penalty)

    probes = fitted(states, labels, settings, tolerance=1e-10)

    for probe, there in zip(probes, states, strict=True):
        fit = several.OneVsRestClassifier(linear.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000))
        expected = fit.fit(there, labels).predict_proba(there)
        np.testing.assert_allclose(probe.probabilities(there), expected, atol=2e-5)  # half of it: 4e-4, 7e-3


def test_fits_are_cut_by_depth_and_give_the_same_whatever_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"sentences": False, "names": False, "untrained": False}
    whole = run(**few)
    asked: list[tuple[int, ...]] = []
    plain = measure.scores

    def noted(model: Any, item: Any, settings: Any, earlier: Any) -> xr.Dataset:
        asked.append(item.depths)
        return plain(model, item, settings, earlier)

    monkeypatch.setattr(items, "_ITEM_BYTES", 1)
    experiment = experiments.load("word_position_probe")
    stages = tuple(
        replace(stage, measure=noted) if stage.name == "scores" else stage for stage in experiment.stages
    )
    monkeypatch.setattr(experiments, "load", lambda name: replace(experiment, stages=stages))
    by_depth = run(**few)

    depths = whole.sizes["depth"]
    assert sorted(asked) == sorted([(), *[(depth,) for depth in range(depths)] * 2])
    np.testing.assert_allclose(by_depth.probability, whole.probability, atol=2e-3)  # fits end at a gap
    for name in ("case_task", "case_prompt", "case_position", "case_index", "depth"):
        assert (by_depth[name].values == whole[name].values).all()


def test_guesses_lie_where_their_task_and_depth_say() -> None:
    words = [tokenise_word(zoo.tokenizer(), word) for word in WORDS]
    prompts, about = lay(zoo.tokenizer(), words, "auto", 64, Settings(**FEW))
    design = as_dataset(prompts).assign_attrs(about)
    cases = 16 * 4
    first, later = np.random.default_rng(0).random((2, cases, 2, 4))
    parts = [guesses("first", (0, 1), first, 5), guesses("first", (2, 3), later, 5)]
    parts += [guesses("types", ANY_DEPTH, first[:, :1], 5)]

    found = gathered(concatenate(parts), design, depths=4)

    expected = np.concatenate([first, later], axis=1)
    here = found.isel(token=found.case_task.values == "first")
    np.testing.assert_allclose(here.probability.values[..., :4], expected, atol=1e-6)
    assert (here.probability.values[..., 4] == 0).all()
    for depth in range(4):
        types = found.isel(token=found.case_task.values == "types", depth=depth).probability.values
        np.testing.assert_allclose(types[:, :4], first[:, 0], atol=1e-6)
    with pytest.raises(ValueError, match=r"depths \[0, 1\]"):
        gathered(parts[0], design, depths=4)


def test_yes_or_no_probes_and_other_scales_can_be_asked_for() -> None:
    for more in ({"scheme": "one-vs-rest"}, {"scale": "entries"}):
        result = run(**more, sentences=False, names=False, untrained=False)

        sums = result.probability.isel(token=result.case_task.values == "last").sum("unit")
        np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_everything_that_is_promised_for_a_model_with_attention_is_there() -> None:
    result = run(names=False, heads=1)

    assert set(result.task.values) == set(TASKS) - {"names"}
    assert {"word beginnings", "anchor", "random 1"} <= set(result.heads_out.values)
    moved = result.decoded_word.values
    depth = int(result.attrs["causal_depth"])
    np.testing.assert_allclose(moved[:, 1:, :depth], np.repeat(moved[:, :1, :depth], 4, axis=1), atol=1e-5)
    assert (np.abs(moved[:, 1] - moved[:, 2])[:, depth] > 0).all()
    assert float(result.moved_kl.min()) > 0
    assert len(experiments.load("word_position_probe").claims(result)) >= 10


def test_without_attention_the_rest_is_measured_and_said() -> None:
    result = run("gptj", sentences=False, names=False, untrained=False)

    assert "score_lost" not in result
    assert np.isnan(result.attended_word).all()
    assert "attention cannot be watched" in result.attrs["cautions"]


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        ({}, WORDS[:16], "too few words of 2 tokens"),
        ({"most_pieces": 3}, WORDS, "too few words of 3 tokens"),
        ({"most_pieces": 1, "fewest_pieces": 2}, WORDS, "most_pieces does not fit"),
        ({"moved_word": 3}, WORDS, "moved_word does not fit"),
        ({"depth": 9}, WORDS, "depth does not fit"),
        ({"prompt_words": 30}, WORDS, "longer than this model's context"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings: dict[str, Any], words: list[str], message: str) -> None:
    with pytest.raises(LayerscopeError, match=message):
        ls.run("word_position_probe", zoo.layered("llama"), words=words, progress=False, **(FEW | settings))


def test_the_refusal_of_lengths_names_others_that_the_list_allows() -> None:
    model = zoo.layered("llama")
    with pytest.raises(LayerscopeError) as refused:
        ls.run("word_position_probe", model, words=WORDS, progress=False, **(FEW | {"most_pieces": 3}))

    assert "--set fewest_pieces=1 --set most_pieces=2" in str(refused.value)
    result = ls.run(
        "word_position_probe",
        model,
        words=WORDS,
        progress=False,
        **(
            FEW
            | {"fewest_pieces": 1, "most_pieces": 2, "untrained": False, "sentences": False, "names": False}
        ),
    )
    assert np.isfinite(result.accuracy).all()


def test_prompts_and_cases_survive_the_dataset() -> None:
    words = [tokenise_word(zoo.tokenizer(), word) for word in WORDS]
    prompts, _ = lay(zoo.tokenizer(), words, "never", None, Settings(**FEW))

    back = [
        prompt
        for arm in dict.fromkeys(p.arm for p in prompts)
        for test in (False, True)
        for prompt in prompts_of(as_dataset(prompts), arm, test=test)
    ]

    assert back == prompts
    cases = cases_of(prompts[:2], "last")
    assert cases.positions.tolist() == [*prompts[0].last, *prompts[1].last]
    assert (cases.offsets == cases.positions - prompts[0].start).all()
    assert cases.sizes.sum() == sum(p.last[-1] - p.start + 1 for p in prompts[:2])


def test_scores_of_too_few_cases_have_no_interval_and_no_claim() -> None:
    few = run(sentences=False, names=False, untrained=False, test_prompts=5, fewest=2)
    experiment = experiments.load("word_position_probe")

    assert 0 < int(few.score_cases.sel(task="last")) < 20
    assert np.isfinite(few.score.sel(task="last")).any()
    for name in ("score_low", "score_high", "p_adjusted"):
        assert np.isnan(few[name].sel(task="last")).all()
    said = [claim for claim in experiment.claims(few) if claim.select.get("variable") != "decoded_shift"]
    assert not any(claim.significant for claim in said if claim.select["variable"] in ("score", "gain"))
    assert any(claim.text.startswith("Too few prompts to test the decodability") for claim in said)
    assert "What is lost without chosen heads" not in experiment.draw(few)
    more = run(sentences=False, names=False, untrained=False, causal_prompts=16, heads=1)
    assert "What is lost without chosen heads" in experiment.draw(more)


def test_words_too_few_to_test_on_are_told() -> None:
    result = run(sentences=False, names=False, untrained=False)

    assert [tested for _, tested in read_json(result, "words_used").values()] == [3, 2]
    cautions = read_json(result, "cautions")
    assert any("only 3 of the words of 1 token are tested on" in caution for caution in cautions)
    assert any("only 2 of the words of 2 tokens are tested on" in caution for caution in cautions)


def test_figures_name_only_the_coordinates_that_there_are() -> None:
    figures = experiments.load("word_position_probe").draw(run(names=False, untrained=False))

    assert "Is the index of sentences decodable?" in figures
    assert not any("names" in name for name in figures)


def test_a_claim_is_about_the_best_depth_that_can_be_told_and_says_where_else() -> None:
    result = run(sentences=False, names=False, untrained=False)
    score, p = result.score.copy(), result.p_adjusted.copy()
    depths = result.sizes["depth"]
    main = result.task.values.tolist().index("last")
    score.values[main] = [0.1, 0.2, 0.9, 0.3, *[0.0] * (depths - 4)]
    p.values[main] = [0.9, 0.01, 0.2, 0.01, *[0.9] * (depths - 4)]

    said = experiments.load("word_position_probe").claims(result.assign(score=score, p_adjusted=p))[0]

    assert said.select["depth"] == 3  # depth 2 scores more, but cannot be told from nothing
    assert said.significant
    assert "at depth 3: 30% of the possible gain, and significantly so at depth 1" in said.text


def test_depths_are_said_in_words() -> None:
    from layerscope.evidence import at_depths

    assert at_depths([3]) == "at depth 3"
    assert at_depths([0, 1]) == "at depths 0 and 1"
    assert at_depths([2, 3, 4, 6, 8, 9]) == "at depths 2 to 4, 6 and 8 to 9"
