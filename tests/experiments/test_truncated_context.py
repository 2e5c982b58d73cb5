"""truncated_context against one plain forward pass for each token and length, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments

TEXTS = [
    "the red fox met the old dog in the town of stone, and the small bird sang.\nthe old dog ran to the red town",
    "a small bird sang and the dog ran to the red town of stone. the old fox, the red bird and the dog met",
    "the dog ran. the bird sang, and Old Red Fox met the dog in the red town of stone and sang to the old bird",
]
FEW = {"targets": 6, "every": 4, "local": 4, "ladder": (5, 9, 20), "ladder_step": 2, "resamples": 60}


def run(family: str = "llama", texts: Any = TEXTS, **settings: Any) -> xr.Dataset:
    model = zoo.layered(family, flipped=True)
    return ls.run("truncated_context", model, texts, **(FEW | settings), progress=False)


def plain_states(family: str, ids: list[int], positions: list[int]) -> np.ndarray:
    """States at every depth by a bare transformers model, its own attention and its own hooks."""
    module = zoo.make(family, flipped=True)
    found: list[np.ndarray] = []
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    for block in blocks:
        block.register_forward_pre_hook(
            lambda _, a, k: found.append((a[0] if a else k["hidden_states"])[0].numpy().copy()),
            with_kwargs=True,
        )
    blocks[-1].register_forward_hook(
        lambda _, __, out: found.append((out if isinstance(out, torch.Tensor) else out[0])[0].numpy().copy())
    )
    tokens = torch.tensor([ids])
    with torch.no_grad():
        module(
            tokens,
            attention_mask=torch.ones_like(tokens),
            position_ids=torch.tensor([positions]),
            use_cache=False,
        )
    return np.stack(found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "stablelm", "gptj"])
def test_similarities_equal_those_of_one_plain_run_each(family: str) -> None:
    result = run(family)

    tokens = [[0, *zoo.tokenizer().encode(text)] for text in TEXTS]
    whole = [plain_states(family, ids, list(range(len(ids)))) for ids in tokens]
    mean = np.concatenate([states[:, 1:] for states in whole], axis=1).mean(axis=1)
    names = ["passage-001", "passage-002", "passage-003"]
    for row in (0, 7, 13):
        text = names.index(str(result.token_passage.values[row]))
        target = int(result.position[row])
        for kept in (1, 3, 20):
            found = result.similarity.sel(kept_tokens=kept)[row].values
            if np.isnan(found).all():
                assert kept == 20
                continue
            start = target - kept + 1
            ids = [0, *tokens[text][start : target + 1]]
            cut = plain_states(family, ids, [0, *range(start, target + 1)])[:, -1] - mean
            full = whole[text][:, target] - mean
            expected = (cut * full).sum(-1) / np.linalg.norm(cut, axis=-1) / np.linalg.norm(full, axis=-1)
            np.testing.assert_allclose(found, expected, atol=2e-4)
            norms = np.linalg.norm(cut + mean, axis=-1)
            np.testing.assert_allclose(result.cut_norm.sel(kept_tokens=kept)[row], norms, rtol=1e-3)


def test_the_floor_is_the_state_behind_another_passage() -> None:
    family = "gpt2"
    result = run(family)

    tokens = {f"passage-00{i + 1}": [0, *zoo.tokenizer().encode(text)] for i, text in enumerate(TEXTS)}
    order = list(dict.fromkeys(result.token_passage.values.tolist()))
    longest, shorter = order[0], order[1]
    whole = [plain_states(family, ids, list(range(len(ids)))) for ids in tokens.values()]
    mean = np.concatenate([states[:, 1:] for states in whole], axis=1).mean(axis=1)
    row = int(np.flatnonzero(result.token_passage.values == shorter)[0])
    target = int(result.position[row])
    # The donor of every passage but the longest is a longer one.
    donor = tokens[longest if len(tokens[order[2]]) < len(tokens[shorter]) else order[2]]
    spliced = [*donor[:target], tokens[shorter][target]]
    other = plain_states(family, spliced, list(range(len(spliced))))[:, -1] - mean
    full = plain_states(family, tokens[shorter], list(range(len(tokens[shorter]))))[:, target] - mean
    expected = (other * full).sum(-1) / np.linalg.norm(other, axis=-1) / np.linalg.norm(full, axis=-1)
    np.testing.assert_allclose(result.floor[row], expected, atol=3e-4)


def test_nothing_is_cut_where_the_context_has_no_more_tokens() -> None:
    result = run(targets=30)

    beyond = result.kept_tokens >= result.position

    assert np.isnan(result.similarity.where(beyond, drop=True)).all()
    assert np.isfinite(result.similarity.sel(kept_tokens=1)).all()


def test_more_context_brings_a_state_nearer_and_a_longer_context_never_hurts_at_the_embeddings() -> None:
    result = run("gpt2")

    np.testing.assert_allclose(result.median_similarity.sel(depth=0), 1.0, atol=1e-5)
    assert float(result.median_similarity.sel(context_length=9, depth=4)) > float(
        result.median_similarity.sel(context_length=1, depth=4)
    )


def test_the_mean_is_over_all_passages_and_not_over_those_that_are_cut() -> None:
    one, three = run(texts=TEXTS[:1] * 1, resamples=20), run(texts=TEXTS, resamples=20)

    row = int(np.flatnonzero(three.token_passage.values == "passage-001")[0])
    there = one.similarity.sel(kept_tokens=3)[0, 2]
    assert abs(float(there) - float(three.similarity.sel(kept_tokens=3)[row, 2])) > 1e-4


def test_arrival_curves_add_up_at_least_to_the_whole_change() -> None:
    """By the triangle inequality: the ranges together move the state at least as far as all of it."""
    result = run("gpt2")
    climbing = result.isel(token=np.flatnonzero(result.climbs.values))

    total = climbing.arrival.sum("range")
    cut = climbing.similarity.sel(kept_tokens=5)
    # The distance of two vectors is at least the sine of their angle times either length.
    sine = np.sqrt(np.clip(1 - cut**2, 0, None))
    assert (total.values[:, 1:] >= sine.values[:, 1:] - 1e-3).all()
    assert np.isnan(result.arrival.values[~result.climbs.values]).all()


def test_another_text_instead_of_nothing_has_the_floor_at_one_token() -> None:
    result = run("llama", instead="another text")

    there = np.isfinite(result.floor.values)
    np.testing.assert_allclose(
        result.similarity.sel(kept_tokens=1).values[there], result.floor.values[there], atol=1e-5
    )


def test_shifted_positions_are_said_and_rescaled_to_the_ceiling() -> None:
    result = run("gpt2", positions="shifted")

    assert bool(result.shifted.all())
    assert any("counted anew" in caution for caution in ls_cautions(result))
    assert np.isfinite(result.median_ceiling).all()
    assert float(result.median_ceiling[4]) < 1


def ls_cautions(result: xr.Dataset) -> list[str]:
    from layerscope.results.schema import read_json

    return list(read_json(result, "cautions"))


def test_categories_are_those_that_were_asked_for() -> None:
    result = run(categories=({"name": "animal", "words": ["dog", "fox", "bird"]},))

    assert "animal" in result.category.values
    assert "comma" not in result.category.values
    told = int(result.category_tokens.sel(category="animal"))
    assert told == int((result.token_category.values == "animal").sum()) > 0


def test_a_category_that_few_passages_hold_has_neither_interval_nor_p() -> None:
    """Resamples of one or two passages agree with one another whatever they say."""
    words = ["red", "fox", "met", "old", "dog", "town", "small", "bird", "sang", "ran"]
    texts = [" ".join(np.random.default_rng(seed).permutation(words * 2)) for seed in range(8)]
    texts = [text + (", and the dog" if place < 5 else " of the dog") for place, text in enumerate(texts)]

    result = run(texts=texts, targets=5)

    held = result.category_passages.to_series()
    assert held["comma"] == 5
    assert held["alphabetic"] == 8
    assert np.isnan(result.category_p_adjusted.sel(category="comma"))
    assert np.isnan(result.category_difference_low.sel(category="comma"))
    assert np.isnan(result.category_similarity_low.sel(category="comma")).all()
    assert np.isfinite(result.category_similarity.sel(category="comma")).all()
    assert np.isfinite(result.category_p_adjusted.sel(category="common word"))
    assert np.isfinite(result.category_similarity_low.sel(category="common word")).all()


def test_other_categories_are_compared_with_the_first_of_them() -> None:
    named = ({"name": "animal", "words": ["dog", "fox", "bird"]}, {"name": "red", "words": ["red"]})
    result = run(categories=named)

    assert float(result.category_difference.sel(category="animal")) == 0
    assert result.category_difference.long_name.endswith("less that of “animal”")
    said = [claim.text for claim in experiments.load("truncated_context").claims(result)]
    assert any("tokens than “animal”" in text for text in said)
    assert not any("alphabetic" in text for text in said)


def test_known_names_end_where_they_end_and_are_read_behind_a_prefix() -> None:
    result = run(names=("Old Red Fox",), targets=60)

    ends = result.isel(token=np.flatnonzero(result.entity_final.values))
    assert ends.sizes["token"] == 1
    assert str(ends.token_before.values[0]).endswith(("Old Red", "Old Red Fo", "Old Red F"))
    assert result.name.values.tolist() == ["Old Red Fox"]
    assert np.isfinite(result.mean_prefix_similarity).all()
    np.testing.assert_allclose(result.prefix_similarity[0, 0], 1.0, atol=1e-5)


def test_the_prefix_test_compares_with_the_name_alone_at_its_place() -> None:
    family = "gpt2"
    result = run(family, names=("Old Red Fox",))

    tokenizer = zoo.tokenizer()
    whole, before = tokenizer.encode("Mr Old Red Fox"), tokenizer.encode("Mr")
    tokens = [[0, *tokenizer.encode(text)] for text in TEXTS]
    states = [plain_states(family, ids, list(range(len(ids))))[:, 1:] for ids in tokens]
    mean = np.concatenate(states, axis=1).mean(axis=1)
    full = plain_states(family, [0, *whole], list(range(len(whole) + 1)))[:, -1] - mean
    places = [0, *range(len(before) + 1, len(whole) + 1)]
    cut = plain_states(family, [0, *whole[len(before) :]], places)[:, -1] - mean
    expected = (cut * full).sum(-1) / np.linalg.norm(cut, axis=-1) / np.linalg.norm(full, axis=-1)
    np.testing.assert_allclose(result.prefix_similarity[0], expected, atol=2e-4)


def test_texts_without_names_have_no_prefix_test() -> None:
    result = run(
        texts=["the red fox met the old dog in town", "a small bird sang and the dog ran to the town"]
    )

    assert "prefix_similarity" not in result
    assert experiments.load("truncated_context").claims(result)


def test_the_lowest_tokens_are_listed_in_their_context() -> None:
    result = run()
    experiment = experiments.load("truncated_context")
    assert experiment.read is not None

    (page,) = experiment.read(result).values()

    values = result.similarity.sel(kept_tokens=4, depth=4).values
    last = page.chapters[-1]
    lowest = int(np.nanargmin(values))
    assert last.excerpts[0].pieces[1].text == str(result.token_text.values[lowest])
    assert last.excerpts[0].value == f"{values[lowest]:.2f}".replace("-", "−")


@pytest.mark.parametrize(
    ("texts", "settings", "problem"),
    [
        (["x"], {}, "no context is left to cut"),
        (TEXTS, {"ladder": (0.5,)}, "does not fit"),
        (TEXTS, {"ladder": (0.5, -1.0)}, "does not fit"),
        (TEXTS, {"ladder": (0.5, True)}, "not true or false"),
        (TEXTS, {"positions": "sideways"}, "does not fit"),
        ([""], {}, "empty"),
    ],
)
def test_bad_input_is_refused_by_name(texts: list[str], settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LayerscopeError, match=problem):
        run(texts=texts, **settings)


def test_texts_without_bos_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="needs a token to stand first"):
        ls.run("truncated_context", zoo.layered("gpt2"), TEXTS, bos="never", progress=False)


def test_original_positions_are_refused_where_the_family_takes_none() -> None:
    with pytest.raises(LayerscopeError, match="takes no position ids"):
        run("bloom", positions="original")
    assert bool(run("bloom").shifted.all())


def test_a_lone_text_has_no_floor_and_says_so() -> None:
    result = run(texts=TEXTS[:1])

    assert np.isnan(result.floor).all()
    assert any("No floor" in caution for caution in ls_cautions(result))
    assert experiments.load("truncated_context").claims(result)
    assert ls.draw(result)


def test_a_text_longer_than_what_is_read_is_told() -> None:
    assert not any("longer than what is read" in caution for caution in ls_cautions(run()))
    long = [*TEXTS[:2], " ".join(TEXTS * 3)]

    result = run(texts=long)

    assert any("1 of 3 passages are longer than what is read" in caution for caution in ls_cautions(result))
    row = int(np.flatnonzero(result.token_passage.values == "passage-003")[0])
    assert int(result.token_unread[row]) == len(zoo.tokenizer().encode(long[2])) + 1 - 64


def test_figures_name_the_floor_and_give_each_category_a_panel() -> None:
    result = run()

    figures = ls.draw(result)

    curves = figures["How well does each context preserve a state?"]
    assert [trace.name for trace in curves.data if trace.line.dash == "dash"] == ["floor"]
    assert "name" not in result.median_floor.attrs
    (panels,) = (figure for name, figure in figures.items() if name.startswith("Categories of tokens"))
    titles = [note.text.split(" (")[0] for note in panels.layout.annotations]
    assert titles == [name for name in result.category.values.tolist() if name in titles]
    assert "alphabetic" in titles
    drawn = [trace for trace in panels.data if trace.hoverinfo != "skip"]
    assert len(drawn) == 2 * len(titles)
    np.testing.assert_allclose(
        drawn[2 * titles.index("alphabetic")].y, result.category_similarity.sel(category="alphabetic")
    )


def test_delimiters_that_become_sinks_are_seen_and_left_out() -> None:
    """A model in which the first token behind BOS, whatever it is, gets a state twenty times as long."""
    module = zoo.make("gpt2", flipped=True)
    with torch.no_grad():
        module.transformer.wpe.weight[1] *= 300
    from layerscope.models.load import load_model

    model = load_model(module, tokenizer=zoo.tokenizer())
    settings: Any = FEW | {"positions": "shifted", "every": 2, "local": 1, "targets": 12}
    result = ls.run("truncated_context", model, TEXTS, **settings, progress=False)

    assert not result.sink.any()  # no target stands behind BOS in the full text
    assert float(result.cut_norm.sel(kept_tokens=1, depth=1).min()) > 10 * float(result.text_norm.max())
    np.testing.assert_array_equal(result.category_sinks, result.category_tokens)
    assert np.isnan(result.category_without_sinks).all()
    assert any("without sink-like" in name for name in ls.draw(result))


def test_the_reach_is_the_shortest_context_from_which_on_the_median_is_high_enough() -> None:
    result = run("gpt2", enough=0.6)

    medians = {
        int(k): np.nanmedian(result.similarity.sel(kept_tokens=k), axis=0)
        for k in result.kept_tokens.values
        if np.isfinite(result.similarity.sel(kept_tokens=k)).any()
    }
    for depth in range(5):
        enough = [k for k in medians if all(medians[j][depth] >= 0.6 for j in medians if j >= k)]
        assert enough, "the example reaches it everywhere"
        assert float(result.reach.sel(depth=depth)) == min(enough)
    assert len({float(reach) for reach in result.reach}) > 1
    assert np.isnan(run("gpt2", enough=0.999999).reach[-1])


def test_letters_that_read_like_words_are_told() -> None:
    """Where tokens are letters, "a" is a common word in every word that holds one."""
    from layerscope.experiments.truncated_context.conclude import _pieces_as_words

    settings = experiments.load("truncated_context").settings()

    def said(*tokens: tuple[str, str]) -> list[str]:
        names, pieces = zip(*tokens, strict=True)
        coordinates = {
            "token_category": ("token", list(names)),
            "token_piece": ("token", list(pieces)),
        }
        return _pieces_as_words(xr.Dataset(coords=coordinates), settings)

    inside, alone = ("common word", "middle piece"), ("common word", "whole word")
    assert "2 of 3 tokens" in said(inside, inside, alone)[0]
    assert "“common word”" in said(inside, inside, alone)[0]
    assert said(inside, alone, ("alphabetic", "last piece"), ("alphabetic", "last piece")) == []
