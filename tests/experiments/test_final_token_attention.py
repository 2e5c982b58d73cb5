"""final_token_attention against whole patterns, on a planted head, and beside a causal trace."""

import pathlib

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.experiments.final_token_attention import Settings
from layerscope.experiments.final_token_attention.conclude import _heads_apart
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.planted.asks_subject import asks_subject, prompts
from layerscope.planted.mover import mover, prompts_about

PROMPTS = [
    {
        "id": "fox",
        "category": "red",
        "prompt": "the red fox met the old dog in",
        "subject": "fox",
        "answer": "",
    },
    {
        "id": "bird",
        "category": "old",
        "prompt": "a small bird sang and the dog",
        "subject": "bird",
        "answer": "",
    },
    {
        "id": "stone",
        "category": "old",
        "prompt": "the town of stone and the old",
        "subject": "stone",
        "answer": "",
    },
]


@pytest.mark.parametrize(
    "family",
    ["gpt2", *(pytest.param(other, marks=pytest.mark.slow) for other in ("llama", "gemma2", "gpt_oss"))],
)
def test_rows_are_those_of_the_whole_pattern(family: str) -> None:
    result = ls.run("final_token_attention", zoo.layered(family, flipped=True), PROMPTS, progress=False)
    model = zoo.make(family, flipped=True)
    model.set_attn_implementation("eager")

    for name in ("fox", "stone"):
        here = result.isel(token=np.flatnonzero(result.token_prompt.values == name))
        ids = [0, *zoo.tokenizer().encode(next(p["prompt"] for p in PROMPTS if p["id"] == name))]
        with torch.no_grad():
            patterns = model(torch.tensor([ids]), output_attentions=True).attentions
        last = torch.stack([p[0, :, -1, : len(ids)] for p in patterns]).numpy()  # layer head token
        np.testing.assert_allclose(
            here.attention.sel(weighting="attention").transpose("layer", "head", "token"),
            last,
            rtol=1e-3,
            atol=1e-6,
        )
        rows = result.prompt_attention.sel(prompt=name, weighting="attention")
        np.testing.assert_allclose(rows.sel(row="first token"), last[..., 0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(
            rows.sel(row="noised tokens"), last[..., here.noised.values].sum(-1), rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(rows.sum("row"), last.sum(-1), rtol=1e-4)


def test_the_planted_head_makes_the_spike_and_is_not_said_to_tell_categories_apart() -> None:
    result = ls.run("final_token_attention", asks_subject(layer=2), **prompts(), progress=False)

    assert (result.spike_layer == 2).all()
    np.testing.assert_allclose(
        result.head_attention.sel(weighting="attention", row="noised tokens", layer=2)[:, 1], 1, atol=1e-5
    )
    p = result.head_p_adjusted.sel(kept_row="noised tokens")
    assert float(p.isel(contrast=0).sel(layer=2)[1]) > 0.05  # all of it in both categories


def test_what_the_number_of_tokens_alone_explains_tells_no_categories_apart() -> None:
    """Uniform heads give a longer subject more, saturated ones give it all: neither knows the category."""
    rng = np.random.default_rng(0)
    tokens, noised = np.repeat([12, 30], 40), np.repeat([6, 3], 40)
    uniform = np.stack([1 / tokens, noised / tokens, 1 / tokens, 1 - (noised + 2) / tokens], axis=1)
    shares = np.repeat(uniform[:, :, None, None], 3, axis=-1)  # prompt row layer head
    shares = shares * np.exp(0.05 * rng.normal(size=shares.shape))
    shares[:, 1, :, 1] = 1 - 1e-3 * rng.random((80, 1))  # head 1 looks at the noised tokens only
    shares[40:, 1, :, 2] *= 0.2  # head 2 knows
    groups = {"short": np.flatnonzero(tokens == 12), "long": np.flatnonzero(tokens == 30)}

    found = _heads_apart(
        xr.DataArray(shares, dims=("prompt", "row", "layer", "head")),
        xr.DataArray(uniform, dims=("prompt", "row")),
        groups,
        Settings(permutations=499, resamples=100),
    )

    p = found.head_p_adjusted.sel(kept_row="noised tokens").isel(contrast=0, layer=0)
    assert (p[:2] > 0.05).all()
    assert p[2] < 0.05


def test_prompts_that_the_model_gets_wrong_are_left_out_and_listed() -> None:
    wrong = [{**PROMPTS[0], "answer": " stone"}, *PROMPTS[1:]]

    result = ls.run("final_token_attention", zoo.layered("gpt2"), wrong, progress=False)
    kept = ls.run("final_token_attention", zoo.layered("gpt2"), wrong, wrong=True, progress=False)

    reasons = dict(zip(result.prompt.values, result.left_out_because.values, strict=True))
    assert "the model says" in reasons["fox"]
    assert reasons["stone"] == ""
    assert int(result.overall_attention_n.max()) == 2
    assert int(kept.overall_attention_n.max()) == 3


@pytest.mark.slow
def test_the_spike_stands_beside_the_transition_of_a_saved_trace(tmp_path: pathlib.Path) -> None:
    model, texts = mover(layer=2, n_layers=4), prompts_about()
    traced = running.run(
        prepare(Request("causal_trace", model=model, prompts=texts, settings={"samples": 2})),
        tmp_path,
        Silent(),
    )

    result = ls.run("final_token_attention", model, texts, trace=str(traced.path), progress=False)

    np.testing.assert_allclose(result.transition_layer, 2.5, atol=0.05)
    assert (result.spike_layer == 2).all()
    assert float(result.transition_less_spike) == pytest.approx(0, abs=0.05)
    assert float(result.prompts_crossing_in_the_spike) == 1
    np.testing.assert_allclose(result.prompt_transition_less_spike, 0, atol=0.05)
    np.testing.assert_allclose(result.category_transition_less_spike, 0, atol=0.05)
    assert "Crossover beside the peak of attention" in ls.draw(result)
    assert int(result.transition_less_spike_n) == len(texts)


@pytest.mark.slow
def test_a_run_that_is_no_trace_of_this_model_is_refused(tmp_path: pathlib.Path) -> None:
    model = mover(layer=1, n_layers=3)
    traced = running.run(
        prepare(Request("causal_trace", model=model, prompts=prompts_about(), settings={"samples": 2})),
        tmp_path,
        Silent(),
    )

    with pytest.raises(LayerscopeError, match="not a trace to compare with"):
        ls.run("final_token_attention", zoo.layered("gpt2"), PROMPTS, trace=str(traced.path), progress=False)
    with pytest.raises(LayerscopeError, match="not a run folder"):
        ls.run("final_token_attention", model, prompts_about(), trace=str(tmp_path / "none"), progress=False)
