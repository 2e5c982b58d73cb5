"""hidden_states against an independent computation, and on a stream that grows at a planted rate."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments.hidden_states.conclude import curve

TEXTS = [
    "the red fox met the old dog in the town, and the dog ran.",
    "a small bird sang and the dog ran to the red town of stone",
    "the old town, the red dog. a bird met the fox",
]
PROMPTS = [
    {
        "id": f"{kind}-{i}",
        "category": kind,
        "prompt": f"the {kind} fox {word} the dog in the",
        "subject": word,
        "answer": "",
    }
    for kind in ("red", "old")
    for i, word in enumerate(("met", "sang", "ran to"))
]


def run(model: Any, texts: Any = TEXTS, **more: Any) -> xr.Dataset:
    kinds = {} if "prompts" in more else {"passages": texts}
    return ls.run("hidden_states", model, **kinds, **more, progress=False)


def states_of(module: torch.nn.Module, ids: torch.Tensor) -> np.ndarray:
    """Every block's input, and the last block's output [depth token width]."""
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
    return torch.cat(seen).double().numpy()


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([[0, *zoo.tokenizer().encode(text)]])


def cos(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize(
    "family",
    [pytest.param("gpt2", marks=pytest.mark.quick), "llama", "gemma2", "gpt_oss", "recurrent_gemma"],
)
def test_numbers_equal_a_plain_computation(family: str) -> None:
    result = run(zoo.layered(family, flipped=True), centre_texts=3, massive=2)

    every = [states_of(zoo.make(family, flipped=True), ids_of(text)) for text in TEXTS]
    late = np.concatenate([states[:, 1:] for states in every], axis=1)
    centre, squares = late.mean(1), (late**2).mean(1)
    massive = np.argsort(-(squares / squares.sum(1, keepdims=True)).mean(0))[:2]
    states, steps = every[0], np.diff(every[0], axis=0)
    here = slice(0, states.shape[1])
    without = states.copy()
    without[..., massive] = 0
    largest = np.sort(states**2, axis=-1)[..., -2:].sum(-1) / (states**2).sum(-1)
    expected = {
        "norm": np.linalg.norm(states, axis=-1),
        "centred_norm": np.linalg.norm(states - centre[:, None], axis=-1),
        "norm_without": np.linalg.norm(without, axis=-1),
        "massive_share": largest,
        "step": np.linalg.norm(steps, axis=-1),
        "relative_step": np.linalg.norm(steps, axis=-1) / np.linalg.norm(states[:-1], axis=-1),
        "successive_cosine": cos(states[:-1], states[1:]),
        "centred_cosine": cos(states[:-1] - centre[:-1, None], states[1:] - centre[1:, None]),
        "cosine_without": cos(without[:-1], without[1:]),
        "step_direction": cos(steps, states[:-1]),
    }
    assert result.massive_dimension.values.tolist() == massive.tolist()
    for name, values in expected.items():
        np.testing.assert_allclose(result[name][here].T, values, rtol=2e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(result.turn[here, 1:].T, cos(steps[:-1], steps[1:]), rtol=1e-3, atol=1e-4)
    assert np.isnan(result.turn[:, 0]).all()
    sampled = result.sampled.values[result.sampled_passage.values == result.passage.values[0]]
    for row, position in enumerate(sampled):
        pairs = cos(states[:, None, position], states[None, :, position])
        np.testing.assert_allclose(result.pair_cosine[row], pairs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "mistral", "granite", "gpt_oss"])
def test_shares_of_attention_and_mlp_sum_to_the_step(family: str) -> None:
    result = run(zoo.layered(family, flipped=True))

    np.testing.assert_allclose(result.attention_share + result.mlp_share, 1, atol=1e-3)
    # The step's direction is that of its parts, each as long as it is.
    lengths = result.attention_length * result.attention_direction + result.mlp_length * result.mlp_direction
    np.testing.assert_allclose(lengths, result.relative_step * result.step_direction, atol=2e-3)


def test_parts_that_cannot_be_told_are_unknown_and_said_so() -> None:
    result = run(zoo.layered("opt", flipped=True))

    assert np.isnan(result.attention_share).all()
    assert "not separated" in result.attrs["cautions"]
    assert "Attention's and the MLP's share of each step" not in ls.draw(result)


def test_a_planted_growth_rate_is_found() -> None:
    model = zoo.make("gpt2")
    for block in model.transformer.h:
        block.forward = _growing(1.25)

    result = run(ls.load_model(model, tokenizer=zoo.tokenizer()))

    assert float(result.growth_rate) == pytest.approx(0.25, abs=1e-4)
    np.testing.assert_allclose(curve(result, "passages", "growth").value, 0.25, atol=1e-4)
    np.testing.assert_allclose(curve(result, "passages", "successive_cosine").value, 1, atol=1e-6)
    np.testing.assert_allclose(curve(result, "passages", "relative_step").value, 0.25, atol=1e-5)
    np.testing.assert_allclose(curve(result, "passages", "turn").value[1:], 1, atol=1e-5)
    np.testing.assert_allclose(result.alignment, 1, atol=1e-5)
    assert float(result.phase_better) == 0  # every block does the same
    said = [claim.text for claim in experiments.load("hidden_states").claims(result)]
    assert any(text.startswith("Too few passages to test the phases") for text in said)


def _growing(factor: float) -> object:
    def forward(hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return hidden_states * factor

    return forward


def test_planted_phases_are_found_with_their_intervals() -> None:
    config_layers = 12
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    module = GPT2LMHeadModel(
        GPT2Config(vocab_size=zoo.VOCABULARY, n_embd=48, n_layer=config_layers, n_head=4, n_positions=64)
    ).eval()
    for layer, block in enumerate(module.transformer.h):
        block.forward = _adding(0.5 if 4 <= layer < 9 else 0.05, layer)

    result = run(ls.load_model(module, tokenizer=zoo.tokenizer()))

    assert result.phase_begins.values.tolist() == [4, 9]
    assert float(result.phase_better) >= 0.95
    for place, begins in enumerate((4, 9)):
        assert result.phase_begins_low[place] <= begins <= result.phase_begins_high[place]


@pytest.mark.quick
def test_a_model_of_five_layers_has_no_four_phases() -> None:
    """Three steps of a staircase can be cut out of any five numbers: two layers to a phase, on average, at least."""
    from layerscope.experiments.hidden_states import Settings
    from layerscope.experiments.hidden_states.conclude.phases import phase_variables

    rng = np.random.default_rng(0)
    steps = np.array([0.0, 0, 5, 9, 20])
    units = {
        "norm": np.cumsum(np.r_[0, steps])[None] + rng.normal(0, 0.01, (12, 6)),
        **{name: steps[None] + rng.normal(0, 0.01, (12, 5)) for name in ("relative_step", "step_direction")},
        **{
            name: np.full((12, 5), np.nan)
            for name in ("attention_share", "attention_direction", "mlp_direction")
        },
    }

    for layers in (4, 5):
        cut = {name: values[:, : layers + (name == "norm")] for name, values in units.items()}
        found = phase_variables(cut, Settings(phase_resamples=20), {})
        assert found["phase_begins"].size == 1


def _adding(length: float, seed: int) -> object:
    """A block whose step is so long beside the state, at right angles to it, a little different for each token."""

    def forward(hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(hidden_states.shape[-1], generator=generator)
        wobble = 1 + 0.05 * hidden_states[..., :1].tanh()
        norm = hidden_states.norm(dim=-1, keepdim=True)
        along = (hidden_states * direction).sum(-1, keepdim=True) / norm**2 * hidden_states
        across = torch.nn.functional.normalize(direction - along, dim=-1)
        step = across * norm * length * wobble
        return hidden_states + step

    return forward


def test_the_first_token_is_kept_but_not_averaged() -> None:
    model = zoo.layered("gpt2")

    apart, together = run(model), run(model, first_position=0)

    xr.testing.assert_equal(apart.norm, together.norm)
    logs = np.log(apart.norm.values.astype(float))
    positions, passages = apart.position.values, apart.token_passage.values
    for result, first in ((apart, 1), (together, 0)):
        means = [logs[(passages == name) & (positions >= first)].mean(0) for name in result.passage.values]
        np.testing.assert_allclose(
            curve(result, "passages", "norm").value, np.exp(np.mean(means, 0)), rtol=1e-6
        )
    firsts = logs[positions == 0]
    np.testing.assert_allclose(curve(apart, "first tokens", "norm").value, np.exp(firsts.mean(0)), rtol=1e-6)


def test_categories_of_tokens_are_averaged_within_passages() -> None:
    result = run(zoo.layered("llama"))

    kinds = result.token_category.values
    assert {"BOS", "full stop", "comma", "common word"} <= set(kinds)
    stops = [
        result.turn.values[(kinds == "full stop") & (result.token_passage.values == name)]
        .astype(float)
        .mean(0)
        for name in result.passage.values
        if ((kinds == "full stop") & (result.token_passage.values == name)).any()
    ]
    found = curve(result, "token: full stop", "turn")
    np.testing.assert_allclose(found.value[1:], np.mean(stops, 0)[1:], rtol=1e-5)
    assert int(found.n[1]) == len(stops) == 2


def test_prompts_alone_are_read_at_their_last_token() -> None:
    result = run(zoo.layered("gpt2"), prompts=PROMPTS)

    assert "token" not in result.dims
    states = states_of(zoo.make("gpt2"), ids_of("the red fox met the dog in the"))
    row = result.prompt.values.tolist().index("red-0")
    np.testing.assert_allclose(result.prompt_norm[row], np.linalg.norm(states[:, -1], axis=-1), rtol=1e-4)
    assert result.contrast.size == 1
    assert ((result.contrast_p > 0) | np.isnan(result.contrast_p)).all()
    over = experiments.load("hidden_states").over_depth(result)["log_relative_step"]
    np.testing.assert_allclose(
        over.value, np.log10(result.prompt_relative_step.astype(float)).mean("prompt"), rtol=1e-4
    )
    assert ls.draw(result)


def test_wrong_prompts_are_left_out_and_listed_unless_kept() -> None:
    prompts = [
        *PROMPTS,
        {"id": "wrong", "category": "old", "prompt": "a bird sang", "subject": "bird", "answer": " the"},
    ]

    out = run(zoo.layered("gpt2"), prompts=prompts)
    kept = run(zoo.layered("gpt2"), prompts=prompts, wrong=True)

    reasons = dict(zip(out.prompt.values, out.prompt_left_out_because.values, strict=True))
    assert "rank" in reasons["wrong"]
    assert sum(bool(reason) for reason in reasons.values()) == 1
    assert int(curve(out, "prompts", "norm").n[0]) == 6
    assert int(curve(kept, "prompts", "norm").n[0]) == 7


def test_nothing_is_claimed_when_every_prompt_is_left_out() -> None:
    prompts = [
        {"id": "wrong", "category": "old", "prompt": "a bird sang", "subject": "bird", "answer": " the"}
    ]

    result = run(zoo.layered("gpt2"), prompts=prompts)

    assert (
        "No estimate of the growth of the residual stream"
        in experiments.load("hidden_states").claims(result)[0].text
    )


def test_passages_too_short_for_an_average_are_left_out_and_listed() -> None:
    result = run(zoo.layered("gpt2"), [*TEXTS, "a"], first_position=4)

    assert [bool(reason) for reason in result.left_out_because.values] == [False, False, False, True]
    with pytest.raises(LayerscopeError, match="no token is left"):
        run(zoo.layered("gpt2"), ["a"], first_position=4)
