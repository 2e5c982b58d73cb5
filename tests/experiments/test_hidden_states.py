"""hidden_states against an independent computation, and on a stream that grows at a planted rate."""

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError

TEXTS = [
    "the red fox met the old dog in the town",
    "a small bird sang and the dog ran to the red town of stone",
]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "recurrent_gemma"])
def test_numbers_equal_a_plain_computation(family: str) -> None:
    result = ls.run("hidden_states", zoo.layered(family, flipped=True), TEXTS, progress=False)

    ids = torch.tensor([[0, *zoo.tokenizer().encode(TEXTS[0])]])
    states = _states(zoo.make(family, flipped=True), ids).numpy()
    steps = np.diff(states, axis=0)
    here = slice(0, ids.shape[1])
    np.testing.assert_allclose(result.norm[here].T, np.linalg.norm(states, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(
        result.relative_step[here].T,
        np.linalg.norm(steps, axis=-1) / np.linalg.norm(states[:-1], axis=-1),
        rtol=1e-3,
    )
    expected = np.sum(steps[:-1] * steps[1:], -1) / np.prod(
        [np.linalg.norm(s, axis=-1) for s in (steps[:-1], steps[1:])], 0
    )
    np.testing.assert_allclose(result.turn[here, 1:].T, expected, rtol=1e-3, atol=1e-4)
    assert np.isnan(result.turn[:, 0]).all()


def _states(module: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Every block's input, and the last block's output."""
    seen: list[torch.Tensor] = []
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList))
    for block in blocks:
        block.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    blocks[-1].register_forward_hook(
        lambda m, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        module(ids, use_cache=False)
    return torch.cat(seen)


def test_a_planted_growth_rate_is_found() -> None:
    model = zoo.make("gpt2")
    for block in model.transformer.h:
        block.forward = _growing(1.25)

    result = ls.run("hidden_states", ls.load_model(model, tokenizer=zoo.tokenizer()), TEXTS, progress=False)

    assert float(result.growth_rate) == pytest.approx(0.25, abs=1e-4)
    np.testing.assert_allclose(result.mean_successive_cosine, 1, atol=1e-6)
    np.testing.assert_allclose(result.mean_relative_step, 0.25, atol=1e-5)
    np.testing.assert_allclose(result.mean_turn[1:], 1, atol=1e-5)


def _growing(factor: float) -> object:
    def forward(hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return hidden_states * factor

    return forward


def test_the_first_token_is_kept_but_not_averaged() -> None:
    model = zoo.layered("gpt2")

    apart = ls.run("hidden_states", model, TEXTS, progress=False)
    together = ls.run("hidden_states", model, TEXTS, first_position=0, progress=False)

    xr.testing.assert_equal(apart.norm, together.norm)
    logs = np.log(apart.norm.values)
    positions, passages = apart.position.values, apart.token_passage.values
    for result, first in ((apart, 1), (together, 0)):
        means = [logs[(passages == name) & (positions >= first)].mean(0) for name in result.passage.values]
        np.testing.assert_allclose(result.mean_log_norm, np.mean(means, 0), rtol=1e-6)


def test_passages_too_short_for_an_average_are_left_out_and_listed() -> None:
    result = ls.run("hidden_states", zoo.layered("gpt2"), [*TEXTS, "a"], first_position=4, progress=False)

    assert [bool(reason) for reason in result.left_out_because.values] == [False, False, True]
    with pytest.raises(LayerscopeError, match="no token is left"):
        ls.run("hidden_states", zoo.layered("gpt2"), ["a"], first_position=4, progress=False)
