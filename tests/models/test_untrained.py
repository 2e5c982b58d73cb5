"""The untrained twin: same shape, other weights, and nothing of the trained model changed."""

import pytest
import torch

import zoo
from layerscope.models.load import load_model
from layerscope.models.untrained import untrained_twin

FAMILIES = [*zoo.REQUIRED, "gpt_oss", "qwen3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_twin_has_the_shape_of_the_model_and_passes_the_load_check(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    before = model.weights_digest()

    twin = untrained_twin(model, seed=1)

    assert [p.shape for p in twin.module.parameters()] == [p.shape for p in model.module.parameters()]
    assert twin.facts.n_layers == model.facts.n_layers
    assert twin.config_digest() == model.config_digest()
    assert twin.tokenizer is model.tokenizer
    assert twin.checks
    assert (twin.facts.source, twin.facts.loadable) == (model.facts.source, model.facts.loadable)
    assert (twin.facts.untrained, model.facts.untrained) == (1, None)
    assert set(model.refused) <= set(twin.refused)
    assert model.weights_digest() == before


def test_the_seed_decides_the_weights_and_global_randomness_is_left_alone() -> None:
    model = zoo.layered("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    twins = [untrained_twin(model, seed=seed) for seed in (1, 1, 2)]

    assert torch.equal(torch.rand(3), expected)
    digests = [twin.weights_digest() for twin in twins]
    assert digests[0] == digests[1]
    assert len({*digests, model.weights_digest()}) == 3


def test_weights_are_those_of_the_family_s_own_initialisation() -> None:
    model = zoo.layered("gpt2")

    twin = untrained_twin(model, seed=0)

    # GPT-2 draws matrices with SD initializer_range = 0.02, and those into the stream with 0.02 / sqrt(2 layers).
    assert float(twin.module.transformer.wte.weight.std()) == pytest.approx(0.02, rel=0.05)
    into_stream = torch.stack([block.mlp.c_proj.weight for block in twin.module.transformer.h])
    assert float(into_stream.std()) == pytest.approx(0.02 / (2 * 4) ** 0.5, rel=0.05)
    assert float(model.module.transformer.wte.weight.detach().std()) == pytest.approx(0.15, rel=0.05)


def test_a_refusal_of_the_model_is_carried_to_its_twin() -> None:
    model = zoo.layered("llama")
    model.refused["mlp_out"] = "found wanting"

    twin = untrained_twin(model)

    assert "found wanting" in twin.refused["mlp_out"]
    assert "mlp_out" in model.refused


def test_a_model_in_half_precision_has_a_twin_in_half_precision() -> None:
    model = load_model(zoo.make("llama").to(torch.bfloat16), tokenizer=zoo.tokenizer())

    twin = untrained_twin(model)

    assert twin.facts.dtype == "bfloat16"
    assert {p.dtype for p in twin.module.parameters()} == {torch.bfloat16}
