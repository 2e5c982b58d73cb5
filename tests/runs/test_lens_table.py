"""The table of top tokens by depth and position against a plain loop: states, norm, unembedding, softmax, topk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import zoo
from layerscope import LayerscopeError
from layerscope.runs import read_lens, read_lens_table
from layerscope.runs.lens_table import TOP
from lens_by_hand import FAMILIES, IDS, logits_by_hand

LONG = [0, *(int(i) for i in np.random.default_rng(0).integers(2, zoo.VOCABULARY, 59))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ids", [IDS[:2], LONG], ids=["short", "long"])
def test_it_equals_a_plain_loop(family: str, ids: list[int]) -> None:
    last = len(ids) - 1
    positions = [last] if last < 2 else [0, 5, 40, last - 1, last]

    found = read_lens_table(zoo.layered(family, flipped=True), ids, positions, answer=11)

    logs = log_softmax(logits_by_hand(family, ids).astype(np.float64), axis=-1)[:, positions].swapaxes(0, 1)
    expected = torch.tensor(logs).softmax(-1).topk(TOP, dim=-1)
    np.testing.assert_allclose(found.probability, expected.values, rtol=2e-3, atol=1e-6)
    chosen = np.take_along_axis(logs, found.tokens.numpy(), axis=-1)  # that they are these tokens' own
    np.testing.assert_allclose(np.exp(chosen), expected.values, rtol=2e-3, atol=1e-6)
    target = [*logs[:-1, -1].argmax(-1), 11]
    assert found.target.tolist() == target
    own = np.stack([logs[row, :, token] for row, token in enumerate(target)])
    np.testing.assert_allclose(found.target_probability, np.exp(own), rtol=2e-3, atol=1e-6)
    np.testing.assert_array_equal(found.rank, (logs > own[..., None]).sum(-1) + 1)


def test_pieces_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama", flipped=True)
    whole = read_lens_table(model, IDS, range(8))

    monkeypatch.setattr("layerscope.runs.lens_table._LOGITS_AT_ONCE", 5 * zoo.VOCABULARY)
    pieces = read_lens_table(model, IDS, range(8))

    assert torch.equal(whole.tokens, pieces.tokens)
    assert torch.equal(whole.rank, pieces.rank)
    torch.testing.assert_close(whole.probability, pieces.probability, rtol=1e-4, atol=1e-6)


def test_the_answer_is_followed_as_the_lens_follows_it() -> None:
    model = zoo.layered("gpt2", flipped=True)

    table = read_lens_table(model, IDS, [6, 7], answer=200)
    (lens,) = read_lens(model, [IDS], [7], answers=[200])

    np.testing.assert_allclose(table.target_probability[-1], lens.log_probability[0].exp(), rtol=1e-4)
    assert torch.equal(table.rank[-1], lens.rank[0])
    assert bool((table.rank[0, -1] == 1).all())  # where nothing is stated, what the model ends up preferring


def test_a_model_whose_end_is_not_the_lens_is_refused() -> None:
    refused, overlooked = zoo.layered("gpt2"), zoo.layered("gemma2", flipped=True)
    refused.refused["unembed"] = "blocks run one by one do not give the logits"
    overlooked.structure = replace(overlooked.structure, logit_map=())  # as if there were no soft cap

    with pytest.raises(LayerscopeError, match="unembed is not available"):
        read_lens_table(refused, IDS, [7])
    with pytest.raises(LayerscopeError, match="last lens"):
        read_lens_table(overlooked, IDS, [7])
