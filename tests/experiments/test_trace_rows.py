"""Two rows of a causal trace: the same numbers as the whole trace, for a third of the work or less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import GPT2Config, GPT2LMHeadModel

import layerscope as ls
import zoo

ONE = "the red *fox* met the old dog in the town"
TWO = "the red *fox met* the old dog in the town"


@pytest.fixture(scope="module")
def deep() -> object:
    """As many layers as a real model has; the recorded runs are then a small part of the work, as they are there."""
    torch.manual_seed(0)
    tokenizer = zoo.tokenizer()
    config = GPT2Config(
        n_layer=24, n_embd=16, n_head=2, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0
    )
    return ls.load_model(GPT2LMHeadModel(config).eval(), tokenizer=tokenizer)


def traced(model: object, prompt: str, **settings: object) -> xr.Dataset:
    return ls.trace(model, prompt, noise="9sd", smallest_range=1e-9, resamples=50, **settings)


def tokens_of(model: object, prompt: str, **settings: object) -> int:
    """Tokens that pass through the MLP of some block."""
    passed: list[int] = []
    hooks = [
        block.mlp.register_forward_pre_hook(lambda _, args: passed.append(args[0].shape[:-1].numel()))
        for block in model.blocks  # type: ignore[attr-defined]
    ]
    traced(model, prompt, **settings)
    for hook in hooks:
        hook.remove()
    return sum(passed)


@pytest.mark.parametrize("prompt", [ONE, TWO])
def test_rows_take_a_third_of_the_whole_trace_at_most(deep: object, prompt: str) -> None:
    traced(deep, prompt, positions="rows")  # the load check of branches is done

    assert tokens_of(deep, prompt) >= 3 * tokens_of(deep, prompt, positions="rows")


@pytest.mark.parametrize("prompt", [ONE, TWO])
def test_rows_are_those_of_the_whole_trace(deep: object, prompt: str) -> None:
    whole, rows = traced(deep, prompt), traced(deep, prompt, positions="rows")

    assert whole.sizes["token"] == 11
    wanted = ["noised tokens", "last token"]
    np.testing.assert_allclose(
        rows.prompt_recovery.sel(row=wanted), whole.prompt_recovery.sel(row=wanted), atol=1e-3
    )
    np.testing.assert_allclose(rows.transition_layer, whole.transition_layer, atol=1e-3)
    assert np.isnan(rows.prompt_recovery.sel(row="other tokens")).all()


def test_of_several_noised_tokens_none_is_restored_alone_but_for_a_screen(deep: object) -> None:
    assert traced(deep, TWO, positions="rows").noised.values.tolist() == [False]
    assert traced(deep, ONE, positions="rows").noised.values.tolist() == [True, False]
    assert traced(deep, TWO, positions="rows", screen=True, confirm=1).noised.values.tolist() == [
        True,
        True,
        False,
    ]
