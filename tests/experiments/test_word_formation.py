"""word_formation: pairs, patches against plain hooks, twins, probes, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments import word_formation
from layerscope.experiments.word_formation.items.design import erased_cases, made_up, pairs_of, twins_of
from layerscope.results.escaping import restored
from layerscope.results.schema import read_json
from layerscope.text.tokenised_words import TokenisedWord, tokenise_word

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
FEW: dict[str, Any] = {"pairs": 4, "twins": 6, "contexts": 2, "smallest": 1e-9, "resamples": 30}


def run(family: str = "llama", **more: Any) -> xr.Dataset:
    model = zoo.layered(family, flipped=True)
    return ls.run("word_formation", model, words=WORDS, progress=False, **(FEW | more))


def tokenised() -> list[Any]:
    return [tokenise_word(zoo.tokenizer(), word) for word in WORDS]


def test_pairs_share_the_last_piece_and_made_up_ones_are_no_words() -> None:
    words = tokenised()
    known = {word.ids for word in words}

    pairs = pairs_of(words, 2, 20, np.random.default_rng(0))
    invented = made_up(pairs, words, np.random.default_rng(0))

    assert len(pairs) >= 3
    used = [name for pair in pairs for name in (pair.source, pair.target)]
    assert len(used) == len(set(used))
    for pair in pairs:
        assert {pair.source_ids, pair.target_ids} <= known
        assert pair.source_ids[-1] == pair.target_ids[-1]
        assert pair.source_ids[0] != pair.target_ids[0]
    assert invented
    for pair in invented:
        assert not {pair.source_ids, pair.target_ids} & known
        assert pair.source_ids[-1] == pair.target_ids[-1]


def test_a_blank_that_begins_every_word_is_not_its_first_piece() -> None:
    words = [
        TokenisedWord(word=text, ids=(7, *map(ord, text)), texts=("▁", *text), alone=())
        for text in ("ax", "bx", "cy", "dy", "ez")
    ]

    pairs = pairs_of(words, 3, 10, np.random.default_rng(0))

    assert {frozenset((pair.source, pair.target)) for pair in pairs} == {
        frozenset(("ax", "bx")),
        frozenset(("cy", "dy")),
    }
    assert pairs_of(words[:1], 3, 10, np.random.default_rng(0)) == []
    same = [word.model_copy(update={"ids": (7, 8, word.ids[-1])}) for word in words]
    assert pairs_of(same, 3, 10, np.random.default_rng(0)) == []


def test_the_refusal_of_pairs_names_a_number_of_pieces_that_has_some() -> None:
    words = ["reds", "olds", "toes", "foes", "stoned", "birded"]
    model = zoo.layered("llama")
    sizes = {word: len(tokenise_word(zoo.tokenizer(), word).ids) for word in words}
    few = [word for word, size in sizes.items() if size != 2]
    expected = sorted(
        size for size in set(sizes.values()) if size > 2 and list(sizes.values()).count(size) > 1
    )

    with pytest.raises(LayerscopeError, match="no two split words") as refused:
        ls.run("word_formation", model, words=few, progress=False, **(FEW | {"most_pieces": 2}))

    assert expected, sizes
    assert f"--set most_pieces={expected[0]}" in str(refused.value)


def test_twins_read_alike_and_swapped_ones_keep_the_last_piece() -> None:
    for way in ("merges", "blank", "capital"):
        twins = twins_of(zoo.tokenizer(), tokenised(), way, 10, np.random.default_rng(0))
        assert twins
        for twin in twins:
            said = zoo.tokenizer().decode(list(twin.split)).strip().lower()
            assert said == zoo.tokenizer().decode(list(twin.whole)).strip() == twin.word
            assert len(twin.whole) == 1 < len(twin.split)
            assert twin.swapped[-1] == twin.split[-1]
            assert twin.swapped[:-1] != twin.split[:-1]


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gpt_oss", "gptj"])
def test_recoveries_are_those_of_plain_hooks(family: str) -> None:
    result = run(family)
    module = zoo.make(family, flipped=True)
    head = [0, *zoo.tokenizer().encode("It was about")]

    names = [restored(str(name)) for name in result.prompt.values[result.kind.values == "words"]]
    for row, name in enumerate(names[:2]):
        source, target = ([*head, *zoo.tokenizer().encode(f" {word}")] for word in name.split(" → "))
        last = len(source) - 1
        states = [_states(module, ids) for ids in (source, target)]
        clean, start = (_logs(module, ids) for ids in (source, target))
        apart = _kl(clean, start)
        assert float(result.apart[row]) == pytest.approx(apart, rel=1e-3, abs=1e-5)
        for depth in (1, 3):
            for piece, places in enumerate((range(len(head), last), [last])):
                patched = _logs(module, target, depth, list(places), states[0][depth])
                expected = 1 - _kl(clean, patched) / apart
                assert float(result.recovered[row, piece, depth]) == pytest.approx(expected, abs=2e-3)
        np.testing.assert_allclose(result.recovered[row, :, 0], [1, 0], atol=1e-3)
        np.testing.assert_allclose(result.recovered[row, :, -1], [0, 1], atol=1e-3)
    # With one part put in and the other as it was, the two parts differ; with both put in they would not.
    attention, mlp = result.recovered_whole_part.values.T
    assert np.isnan(attention).all() or not np.allclose(attention, mlp, atol=1e-3)


def _blocks(module: Any) -> Any:
    return next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList))


def _states(module: Any, ids: list[int]) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"])[0]),
            with_kwargs=True,
        )
        for block in _blocks(module)
    ]
    with torch.no_grad():
        module(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def _logs(
    module: Any, ids: list[int], depth: int = -1, places: Any = (), states: torch.Tensor | None = None
) -> torch.Tensor:
    def put(m: Any, args: Any, kwargs: Any) -> Any:
        stream = (args[0] if args else kwargs["hidden_states"]).clone()
        stream[0, places] = states[places]
        return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

    hooks = [_blocks(module)[depth].register_forward_pre_hook(put, with_kwargs=True)] if depth >= 0 else []
    with torch.no_grad():
        logits = module(torch.tensor([ids]), use_cache=False).logits[0, -1]
    for hook in hooks:
        hook.remove()
    return logits.double().log_softmax(-1)


def _kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return float((p.exp() * (p - q)).sum())


def test_likeness_is_the_centred_cosine_of_states_from_plain_hooks() -> None:
    result = run("gpt2")
    module, tokenizer = zoo.make("gpt2", flipped=True), zoo.tokenizer()
    head, depth = [0, *tokenizer.encode("It was about")], 2
    words = [restored(str(word)) for word in result.word.values]
    drawn = word_formation.Settings(**FEW).seeded("twins")
    twins = {twin.word: twin for twin in twins_of(tokenizer, tokenised(), "merges", FEW["twins"], drawn)}

    def last_states(form: str) -> torch.Tensor:
        return torch.stack(
            [_states(module, [*head, *getattr(twins[word], form)])[depth][-1] for word in words]
        )

    whole, n = last_states("whole"), len(words)
    for form in ("split", "swapped"):
        cosines = torch.nn.functional.cosine_similarity(
            (last_states(form) - whole.mean(0))[:, None], (whole - whole.mean(0))[None], dim=-1
        )
        here = result.sel(form=form, depth=depth)
        np.testing.assert_allclose(here.own_similarity, cosines.diagonal(), atol=1e-4)
        others = (cosines.sum(1) - cosines.diagonal()) / (n - 1)
        np.testing.assert_allclose(here.other_similarity, others, atol=1e-4)
        assert here.found_twin.values.tolist() == (cosines.argmax(1) == torch.arange(n)).tolist()


def test_probes_for_the_piece_before_have_cases_of_both_kinds_and_are_tested_on_other_words() -> None:
    words = [*tokenised(), *(tokenise_word(zoo.tokenizer(), word) for word in ("thed", "tos", "tod"))]

    cases = erased_cases(words, 8, 2, np.random.default_rng(0))

    assert {case.kind for case in cases} == {"within", "across"}
    for kind in ("within", "across"):
        here = [case for case in cases if case.kind == kind]
        for label in {case.label for case in here}:
            train, test = (
                {c.ids[-1] for c in here if c.label == label and c.test == t} for t in (False, True)
            )
            assert train
            assert test
            assert not train & test
            assert len({case.ids[-2] for case in here if case.label == label}) == 1
    result = ls.run(
        "word_formation", zoo.layered("gpt2"), words=[w.word for w in words], progress=False, **FEW
    )
    assert ((result.told >= 0) & (result.told <= 1)).all()
    assert np.isfinite(float(result.erasure))


def test_a_token_that_ends_two_words_of_a_class_is_never_learnt_from_and_held_out() -> None:
    words = [
        TokenisedWord(word=f"{first}{piece}{last}", ids=(first, piece, last), texts=("a", "b", "c"), alone=())
        for piece in (8, 9)
        for last in (5, 6, 7)
        for first in (1, 2)
    ]

    for seed in range(20):
        cases = erased_cases(words, 8, 2, np.random.default_rng(seed))

        assert {case.kind for case in cases} == {"within"}
        sides = [
            {(case.label, case.ids[-1]) for case in cases if case.test == test} for test in (False, True)
        ]
        assert [len(side) for side in sides] == [4, 2]
        assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (["the", "red", "fox"], {}, "there is no split word"),
        (["reds", "foe", "them", "then"], {}, "no two split words can be paired"),
        (WORDS, {"prefix": "the red fox " * 30}, "too long for this model"),
    ],
)
def test_what_cannot_be_asked_is_refused(words: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LayerscopeError, match=message):
        ls.run("word_formation", zoo.layered("llama"), words=words, progress=False, **(FEW | settings))


def test_the_middle_of_attention_and_mlp_is_left_open_where_they_cannot_be_told_apart() -> None:
    result = run("recurrent_gemma")

    assert np.isfinite(result.recovered).all()
    if np.isnan(result.recovered_part).any():
        assert "no separate vectors" in result.attrs["cautions"]


def test_few_words_with_two_forms_have_no_interval_and_that_is_said() -> None:
    experiment = experiments.load("word_formation")
    few, enough = run(twins=4), run(twins=6)

    assert (few.sizes["word"], enough.sizes["word"]) == (4, 6)
    assert np.isfinite(few.likeness_gain).all()
    assert np.isnan(few.likeness_gain_low).all()
    assert np.isnan(few.mean_found_twin_high).all()
    assert np.isfinite(enough.likeness_gain_low).any()
    assert any("only 4 words have both" in caution for caution in read_json(few, "cautions"))
    said = {claim.select.get("variable"): claim for claim in experiment.claims(few)}
    assert not said["likeness_gain"].significant
    assert "Too few words to test the convergence of words" in said["likeness_gain"].text
    assert "of 4 split words" in said["mean_found_twin"].text
    experiment.draw(few)


def test_recovery_far_below_nothing_does_not_decide_about_the_scale() -> None:
    experiment = experiments.load("word_formation")
    result = run()
    result["mean_recovered"].values[:] = np.maximum(result.mean_recovered.values, 0)
    result["mean_recovered_low"].values[:] = result.mean_recovered.values
    plain = experiment.draw(result)["Both pieces of each group"]
    result["mean_recovered_low"].values[0, 0, 1] = -10

    cut = experiment.draw(result)["Both pieces of each group"]

    assert plain.layout.yaxis.range[0] > -0.5
    assert cut.layout.yaxis.range == (-1, 1.1)
    assert "The axis ends at −1" in cut.layout.meta["caption"]
