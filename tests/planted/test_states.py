"""Planted MLPs and states: facts, keys, word indices, positions, joined words, growth."""

import numpy as np
import pytest
import torch

import layerscope as ls
from layerscope.models.layered import LayeredModel
from layerscope.planted.bigram_key import KEY, LAYER, bigram_key
from layerscope.planted.growing import growing, passages, word_rates
from layerscope.planted.joined_word import WORDS, joined_word, word_place
from layerscope.planted.mover import ANSWERS, SUBJECTS
from layerscope.planted.positions import (
    MOST_WORDS,
    SENTENCES,
    STARTS,
    index_place,
    position_only,
    word_index,
)
from layerscope.planted.stored_fact import STORED, stored_fact
from planted.reading import ids_of, says, site, states

PROMPT = "my friend {} has a coat that is"
SUBJECT_AT = 3  # <bos> my friend ANNA


@pytest.mark.parametrize("subject", SUBJECTS)
def test_one_mlp_writes_the_fact_at_the_subject_and_nowhere_else(subject: str) -> None:
    model = stored_fact(mlp=1, mover=2)

    written = [site(model, PROMPT.format(subject), f"mlp_out {layer}") for layer in range(4)]

    assert [bool(out.any()) for out in written] == [False, True, False, False]
    assert written[1].any(dim=-1).nonzero()[:, 0].tolist() == [SUBJECT_AT]
    assert int(written[1][SUBJECT_AT, STORED].argmax()) == SUBJECTS.index(subject)
    assert says(model, PROMPT.format(subject)) == ANSWERS[SUBJECTS.index(subject)]


def test_a_fact_moved_before_it_is_written_does_not_arrive() -> None:
    answers = {says(stored_fact(mlp=2, mover=1), PROMPT.format(subject)) for subject in SUBJECTS}

    assert len(answers) == 1


def test_one_key_is_excited_by_one_bigram_only() -> None:
    model = bigram_key()
    text = "the red fox met a fox and the red dog in town of red fox"
    excited: list[torch.Tensor] = []
    activation = model.module.transformer.h[LAYER].mlp.act
    with torch.no_grad():
        hook = activation.register_forward_hook(lambda m, args, out: excited.append(out[0]))
        model.logits(torch.tensor([ids_of(model, text)]))
        hook.remove()

    words = ["<bos>", *text.split()]
    expected = [before == "red" and here == "fox" for before, here in zip(["", *words], words, strict=False)]
    assert (excited[0][:, KEY] > 0).tolist() == expected
    assert sum(expected) == 2
    assert int((excited[0] > 0).sum()) == 2
    assert says(model, text) == "sang"
    assert site(model, text, f"mlp_out {LAYER}").any(-1).tolist() == expected


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_state_carries_the_index_of_its_word_beyond_the_layer(sentence: str) -> None:
    model = word_index(layer=1)
    of_word = [index_place(index) for index in range(1, MOST_WORDS + 1)]

    counted = states(model, sentence)[:, 1:, of_word]

    expected = np.cumsum(_begins(model, sentence))
    assert expected.max() >= 5
    np.testing.assert_allclose(counted[2:], np.eye(MOST_WORDS)[expected - 1][None].repeat(2, 0), atol=0.1)
    assert not counted[:2].any()


def _begins(model: LayeredModel, sentence: str) -> list[bool]:
    tokens = model.tokenizer.convert_ids_to_tokens(ids_of(model, sentence)[1:])
    assert any(token.startswith("##") for token in tokens)
    return [token in STARTS for token in tokens]


def test_a_state_carries_the_position_and_nothing_of_the_word() -> None:
    model = position_only()
    one, other = (states(model, sentence) for sentence in SENTENCES[:2])
    length = min(one.shape[1], other.shape[1])

    torch.testing.assert_close(one[:, :length], other[:, :length], rtol=0, atol=0)
    assert torch.linalg.matrix_rank(one[2] - one[2].mean(0)) == one.shape[1] - 1


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_word_is_joined_at_its_last_piece_at_one_layer(layer: int) -> None:
    model = joined_word(layer=layer)
    text = "bara kine molo kilo"
    places = [word_place(word) for word in WORDS]

    joined = states(model, text)[..., places]

    assert not joined[: layer + 1].any()
    for depth in range(layer + 1, 4):
        at = (joined[depth] > 0.5).nonzero()
        assert at.tolist() == [[2 * n + 2, WORDS.index(word)] for n, word in enumerate(text.split())]


def test_pieces_of_two_words_are_not_joined() -> None:
    model = joined_word()
    separate, whole = (
        states(model, text)[-1][..., [word_place("bara")]].max() for text in ("ba ki ba", "bara")
    )

    assert float(separate) == 0.0
    assert float(whole) == pytest.approx(1.0, abs=0.02)


def test_every_word_grows_at_its_own_rate_round_the_planted_one() -> None:
    model = growing(rate=0.03)
    text = passages(words=20)[0]

    lengths = states(model, text).norm(dim=-1)
    factors = lengths[1:] / lengths[:-1]

    own = word_rates(len(model.tokenizer))[list(ids_of(model, text))].exp()
    torch.testing.assert_close(factors, (1.03 * own).expand_as(factors), rtol=1e-4, atol=0)
    assert float(word_rates(len(model.tokenizer)).sum()) == pytest.approx(0, abs=1e-6)
    assert float(own.std()) > 0.01


@pytest.mark.slow
def test_the_interval_of_no_growth_holds_zero_as_often_as_it_says() -> None:
    texts, model = passages(seed=1, number=12 * 20), growing(rate=0.0)

    holds = []
    for start in range(0, len(texts), 12):
        some = texts[start : start + 12]
        few = {"phase_resamples": 1, "sampled_tokens": 1, "aligned_tokens": 4}  # what this test does not read
        found = ls.run("hidden_states", model, passages=some, progress=False, **few)
        holds.append(float(found.growth_rate_low) <= 0 <= float(found.growth_rate_high))

    assert sum(holds) >= 16  # with intervals of 95 % fewer hold once in 400 tries
