"""first_token_attention against whole patterns, and on a head that rests on position 0 or on a word."""

import numpy as np
import pytest
import torch

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.planted.first_token import first_token

TEXTS = [
    "the red fox met the old dog in the town of the red fox and the old dog",
    "a small bird sang and the dog ran to the red town of stone and a small bird",
]


@pytest.mark.parametrize(
    "family",
    ["gpt2", *(pytest.param(other, marks=pytest.mark.slow) for other in ("llama", "mistral", "gpt_oss"))],
)
def test_shares_are_those_of_the_whole_pattern(family: str) -> None:
    result = ls.run("first_token_attention", zoo.layered(family, flipped=True), TEXTS, progress=False)
    model = zoo.make(family, flipped=True)
    model.set_attn_implementation("eager")
    body = zoo.tokenizer().encode(TEXTS[0])

    for reading, front in (("BOS first", [0]), ("nothing added", []), ("another token first", None)):
        first = front if front is not None else [int(result.first_token.sel(reading=reading)[0])]
        ids = [*first, *body]
        with torch.no_grad():
            patterns = model(torch.tensor([ids]), output_attentions=True).attentions
        expected = torch.stack([p[0, :, :, 0] for p in patterns]).numpy()
        found = result.attention_to_first.isel(passage=0).sel(reading=reading).values
        np.testing.assert_allclose(found[..., : len(ids)], expected, rtol=1e-3, atol=1e-6)
        assert np.isnan(found[..., len(ids) :]).all()


def test_a_head_that_rests_on_position_zero_does_so_whatever_stands_there() -> None:
    result = ls.run("first_token_attention", first_token(), progress=False)

    late = result.head_late_share[:, 1, 1]
    np.testing.assert_allclose(late, 1, atol=1e-5)
    others = result.head_late_excess[:, 0]
    assert float(np.abs(others).max()) < 0.01
    assert float(np.abs(result.change.sel(layer=1)).max()) < 1e-5


def test_means_and_uniform_shares_are_those_of_a_plain_average() -> None:
    result = ls.run("first_token_attention", zoo.layered("gpt2", flipped=True), TEXTS, progress=False)
    by_passage, half = [], result.sizes["position"] // 2
    for place, text in enumerate(TEXTS):
        words = len(
            zoo.tokenizer().encode(text)
        )  # positions below it are there with a token in front and without
        here = result.attention_to_first.sel(reading="BOS first").isel(passage=place).values.astype(float)
        by_passage.append(here[..., half:words].mean(axis=(1, 2)))
    np.testing.assert_allclose(
        result.late_share.sel(reading="BOS first"), np.mean(by_passage, axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        result.uniform_along.sel(reading="BOS first")[:3], [1 / 2, 1 / 3, np.mean([1 / 4])], rtol=1e-6
    )


def test_short_passages_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="long enough"):
        ls.run("first_token_attention", zoo.layered("gpt2"), ["the"], progress=False)
