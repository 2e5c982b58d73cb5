"""Where keys lie is found by trying; here it is compared with what each family's own code says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import zoo
from layerscope import LayerscopeError
from layerscope.models.mlp_keys import MlpKeys, mlp_keys
from layerscope.models.projections import find_projections
from layerscope.planted.bigram_key import bigram_key
from layerscope.runs import show_key_activations

NAMES = {
    "gpt2": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "llama": "mlp.down_proj",
    "mistral": "mlp.down_proj",
    "gemma2": "mlp.down_proj",
    "opt": "fc2",
    "gptj": "mlp.fc_out",
    "bloom": "mlp.dense_4h_to_h",
    "recurrent_gemma": "mlp_block.down_proj",
    "qwen3": "mlp.down_proj",
    "granite": "mlp.down_proj",
    "stablelm": "mlp.down_proj",
    "cohere": "mlp.down_proj",
}
IDS = torch.tensor([[5, 9, 40, 77, 120, 9]])


@pytest.mark.parametrize("flipped", [False, True], ids=["default", "flipped"])
@pytest.mark.parametrize("family", [name for name in zoo.FAMILIES if name != "gpt_oss"])
def test_the_projection_is_found_in_every_family(family: str, flipped: bool) -> None:
    keys = mlp_keys(zoo.layered(family, flipped=flipped))

    assert [one.name for one in keys] == [NAMES[family]] * 4


def test_a_silent_block_is_no_obstacle() -> None:
    assert {one.name for one in mlp_keys(bigram_key())} == {"mlp.c_proj"}


def test_experts_are_refused_by_name() -> None:
    with pytest.raises(LayerscopeError, match=r"block 0 of .*\n.*experts \(mlp.experts\)"):
        mlp_keys(zoo.layered("gpt_oss"))


def test_an_mlp_as_wide_as_the_stream_is_told_from_queries() -> None:
    model = zoo.layered("llama")
    square = zoo.make("llama")
    assert model.facts.width == 64
    for block in square.model.layers:
        block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj = (
            nn.Linear(64, 64, bias=False) for _ in range(3)
        )

    from layerscope.models.load import load_model

    keys = mlp_keys(load_model(square, tokenizer=zoo.tokenizer()))

    assert {(one.name, one.n_keys) for one in keys} == {("mlp.down_proj", 64)}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "opt", "bloom"])
def test_values_are_what_the_projections_of_weight_directions_write(family: str) -> None:
    model = zoo.layered(family, flipped=True)

    for layer, keys in enumerate(mlp_keys(model)):
        (weights,) = find_projections(model, layer).mlps
        torch.testing.assert_close(keys.values(range(keys.n_keys)), weights.writes, rtol=1e-5, atol=1e-6)


def test_packed_weights_are_asked_for_their_values() -> None:
    class Packed(nn.Module):  # knows no matrix, only how to multiply
        def __init__(self) -> None:
            super().__init__()
            self.packed = nn.Parameter(torch.arange(6.0))

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states @ self.packed.reshape(3, 2) + 7.0

    values = MlpKeys("x", Packed(), 3).values([2, 0])

    torch.testing.assert_close(values, torch.tensor([[4.0, 5.0], [0.0, 1.0]]))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "opt"])
def test_activations_are_those_of_the_familys_own_formula(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    seen: dict[int, torch.Tensor] = {}
    keeper = {layer: (lambda a, layer=layer: seen.update({layer: a})) for layer in range(4)}

    show_key_activations(model, IDS, keeper)

    for layer, entering in enumerate(_inputs_of_mlps(model, family)):
        torch.testing.assert_close(seen[layer], _by_hand(model.blocks[layer], family, entering))


def _inputs_of_mlps(model: Any, family: str) -> list[torch.Tensor]:
    """What comes into each block's first MLP matrix, by torch's own hooks."""
    first = {"gpt2": "mlp.c_fc", "opt": "fc1"}.get(family, "mlp.up_proj")
    kept: list[torch.Tensor] = []
    handles = [
        block.get_submodule(first).register_forward_pre_hook(lambda _, args: kept.append(args[0].clone()))
        for block in model.blocks
    ]
    with torch.no_grad():
        model.module(IDS)
    for handle in handles:
        handle.remove()
    return [states.reshape(1, IDS.shape[1], -1) for states in kept]


def _by_hand(block: Any, family: str, x: torch.Tensor) -> torch.Tensor:
    relu, gelu, silu = torch.relu, nn.functional.gelu, nn.functional.silu
    if family == "gpt2":
        return relu(x @ block.mlp.c_fc.weight + block.mlp.c_fc.bias).detach()
    if family == "opt":
        return relu(block.fc1(x)).detach()
    gate, up = x @ block.mlp.gate_proj.weight.T, x @ block.mlp.up_proj.weight.T
    if family == "llama":
        gate, up = gate + block.mlp.gate_proj.bias, up + block.mlp.up_proj.bias
        return (silu(gate) * up).detach()
    return (gelu(gate, approximate="tanh") * up).detach()
