"""Planted heads: what they look at, and what comes of it."""

import numpy as np
import pytest
import torch

from layerscope.planted.first_token import first_token
from layerscope.planted.looks_back import looks_back
from layerscope.planted.reads_nothing import reads_nothing
from layerscope.planted.token_set import COLOURS, HEAD, LAYER, PEOPLE, token_set
from planted.reading import ids_of, says, site, states

TEXT = "the red fox met an old dog in a town of stone"


@pytest.mark.parametrize(("by", "layer"), [(1, 0), (3, 1), (7, 2)])
def test_a_head_looks_exactly_k_back_and_the_others_do_not(by: int, layer: int) -> None:
    model = looks_back(by=by, layer=layer)

    pattern = site(model, TEXT, f"pattern {layer}")

    looked = pattern[1].argmax(-1)[by:]
    assert looked.tolist() == list(range(len(looked)))
    assert float(pattern[1][by:].max(-1).values.min()) > 1 - 1e-5
    assert float(pattern[2][by:].max(-1).values[1:].max()) < 0.6


def test_the_word_k_back_is_what_the_model_says() -> None:
    words = TEXT.split()

    assert says(looks_back(by=3), TEXT) == words[-4]
    assert says(looks_back(by=1), TEXT) == words[-2]


def test_a_state_behind_the_head_is_decided_by_one_token_more() -> None:
    model = looks_back(by=3, layer=1)
    here = len(TEXT.split())
    for changed, differs in ((here - 3, True), (here - 2, False), (here - 4, False), (here - 1, False)):
        words = TEXT.split()
        words[changed - 1] = "birds"  # BOS stands at position 0

        apart = (states(model, TEXT) - states(model, " ".join(words)))[:, here].norm(dim=-1)

        assert torch.all(apart[:2] < 1e-4)
        assert bool((apart[2:] > 0.5).all()) is differs


def test_without_strength_the_head_looks_everywhere_alike() -> None:
    for model in (looks_back(by=3, strength=0.0), first_token(strength=0.0)):
        pattern = site(model, TEXT, "pattern 1")[1]

        last = pattern[-1]
        np.testing.assert_allclose(last, 1 / len(last), rtol=1e-4)


def test_a_head_always_takes_the_first_token() -> None:
    model = first_token()

    pattern = site(model, TEXT, "pattern 1")

    assert float(pattern[1, :, 0].min()) > 1 - 1e-5
    assert float(pattern[0, 5:, 0].max()) < 0.2
    assert says(model, TEXT) == "<bos>"


def test_a_layer_reads_nothing_though_it_looks() -> None:
    model = reads_nothing(layer=2)

    reading = [float(site(model, TEXT, f"attn_out {layer}").abs().max()) for layer in range(4)]
    looking = site(model, TEXT, "pattern 2")[:, -1].std(-1)

    assert reading[2] == 0.0
    assert min(reading[:2] + reading[3:]) > 0.5
    assert float(looking.max()) > 0.02


def test_a_layer_that_reads_nothing_does_the_same_in_any_context() -> None:
    model = reads_nothing(layer=2)
    words = TEXT.split()
    words[2] = "birds"
    one, other = states(model, TEXT), states(model, " ".join(words))

    block = model.module.transformer.h[2]
    mixed = torch.cat([other[2][:-1], one[2][-1:]])[None]

    with torch.no_grad():
        after = block(mixed)
    after = after[0] if isinstance(after, tuple) else after

    torch.testing.assert_close(after[0, -1], one[3][-1])


def test_the_first_direction_of_ov_is_the_set_and_the_second_is_not() -> None:
    model = token_set()
    attention = model.module.transformer.h[LAYER].attn
    size = model.facts.width // model.facts.n_heads
    here = slice(HEAD * size, (HEAD + 1) * size)
    value = attention.c_attn.weight[:, 2 * model.facts.width :][:, here]
    _, singular, right = torch.linalg.svd(value @ attention.c_proj.weight[here], full_matrices=False)

    sets = [_top_words(model, right[index]) for index in range(3)]

    assert sets[0] == set(COLOURS)
    assert all(len(words & set(COLOURS)) < 5 for words in sets[1:])
    assert float(singular[0] / singular[1]) == pytest.approx(4.0, rel=1e-4)


def _top_words(model: object, direction: torch.Tensor) -> set[str]:
    logits = model.module.lm_head.weight @ direction
    logits = logits * logits[logits.abs().argmax()].sign()
    return set(model.tokenizer.convert_ids_to_tokens(logits.topk(len(COLOURS)).indices.tolist()))


def test_attending_to_people_writes_the_set() -> None:
    model = token_set()
    colours = model.tokenizer.convert_tokens_to_ids(list(COLOURS))

    def raised(text: str) -> float:
        written = site(model, text, f"attn_out {LAYER}")[-1]
        return float((model.module.lm_head.weight @ written)[colours].mean())

    assert raised(" ".join(PEOPLE[:3])) > 2
    assert abs(raised("the house of")) < raised(" ".join(PEOPLE[:3])) / 2
    assert len(ids_of(model, "the house of")) == 4
