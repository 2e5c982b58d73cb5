"""Where keys lie is found by trying; here it is compared with what each family's own code says."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from layerscope import LayerscopeError
from layerscope.models.dense_keys import MlpKeys
from layerscope.models.expert_keys import ExpertKeys, find_expert_keys
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.mlp_keys import mlp_keys
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


_SMALL = {
    "vocab_size": 320, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 60, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
_EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
# Neurons fewer than the stream is wide, and more: these need more than one call to be read whole.
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 3},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_EXPERTS, "norm_topk_prob": True},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 32},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 12},
}


@cache
def mixture(family: str, **changed: Any) -> LayeredModel:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto import CONFIG_MAPPING

    torch.manual_seed(0)
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    config = CONFIG_MAPPING[family](**(_SMALL | MIXTURES.get(family, {}) | lists))
    module = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(0, 0.15) if parameter.dim() >= 2 else parameter.add_(
            torch.randn_like(parameter) * 0.1
        )
    return load_model(module, tokenizer=zoo.tokenizer())


def _one_by_one(model: LayeredModel, family: str, share: bool) -> list[torch.Tensor]:
    """[token key] of every block: each token through its experts by hand, from what comes into the MLP."""
    entering: list[torch.Tensor] = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, args: entering.append(args[0][0].clone()))
        for block in model.blocks
    ]
    model.module(IDS)
    for handle in handles:
        handle.remove()
    found = []
    for block, states in zip(model.blocks, entering, strict=True):
        mlp: Any = block.mlp
        rows = []
        for x in states:
            n, units = len(mlp.experts.down_proj), _units(mlp, family)
            row = torch.zeros(n, units)
            for expert, weight in _choices(mlp, family, x):
                row[expert] = _inside(mlp, family, expert, x) * (weight if share else 1.0)
            rows.append(row.flatten())
            if family == "qwen2_moe":
                one = mlp.shared_expert
                beside = nn.functional.silu(one.gate_proj.weight @ x) * (one.up_proj.weight @ x)
                rows[-1] = torch.cat([rows[-1], beside])
        found.append(torch.stack(rows))
    return found


def _units(mlp: Any, family: str) -> int:
    return int(mlp.experts.down_proj.shape[1 if family == "gpt_oss" else 2])


def _choices(mlp: Any, family: str, x: torch.Tensor) -> list[tuple[int, float]]:
    router = mlp.router if family == "gpt_oss" else mlp.gate
    logits = router.weight @ x + (router.bias if family == "gpt_oss" else 0)
    best = logits.argsort(descending=True)[:2].tolist()
    shares = logits.softmax(0) if family in ("olmoe", "qwen2_moe") else logits[best].softmax(0)
    return [
        (one, float(shares[one if family in ("olmoe", "qwen2_moe") else i])) for i, one in enumerate(best)
    ]


def _inside(mlp: Any, family: str, expert: int, x: torch.Tensor) -> torch.Tensor:
    weights = mlp.experts.gate_up_proj[expert]
    if family != "gpt_oss":
        gate, up = (weights @ x).chunk(2)
        return nn.functional.silu(gate) * up
    both = x @ weights + mlp.experts.gate_up_proj_bias[expert]
    gate, up = both[::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate * torch.sigmoid(gate * 1.702)


@pytest.mark.parametrize("share", [True, False], ids=["with share", "alone"])
@pytest.mark.parametrize("family", list(MIXTURES))
def test_keys_of_experts_equal_a_loop_over_tokens_and_experts(family: str, share: bool) -> None:
    model = mixture(family)
    plain = _one_by_one(model, family, share)
    wanted = [3, 70, 71, plain[0].shape[1] - 1, 3]
    seen: dict[int, list[torch.Tensor]] = {}

    def keep(layer: int) -> Any:
        return lambda shown: seen.update(
            {layer: [torch.cat([some for _, some in shown.every()], dim=-1), shown.of(wanted)]}
        )

    show_key_activations(model, IDS, {layer: keep(layer) for layer in (0, 1)}, routing_share=share)

    for layer, expected in enumerate(plain):
        every, some = seen[layer]
        assert mlp_keys(model)[layer].n_keys == expected.shape[1]
        torch.testing.assert_close(every[0], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(some[0], expected[:, wanted], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", list(MIXTURES))
def test_what_experts_write_is_activations_times_values(family: str) -> None:
    model = mixture(family)
    rebuilt: dict[int, torch.Tensor] = {}
    given: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        keys = mlp_keys(model)[layer]

        def see(shown: Any) -> None:
            activations = torch.cat([some for _, some in shown.every()], dim=-1)
            rebuilt[layer] = activations @ keys.values(range(keys.n_keys))
            if family == "gpt_oss":
                shares = shown.call.shares.new_zeros(6, 4).scatter(1, shown.call.chosen, shown.call.shares)
                rebuilt[layer] += shares @ keys.module.down_proj_bias
            if family == "qwen2_moe":  # the shared expert's gate is no part of its keys' activations
                rebuilt[layer] = activations[..., : keys.n_routed] @ keys.values(range(keys.n_routed))
                mlp = model.blocks[layer].mlp
                beside = activations[..., keys.n_routed :] @ mlp.shared_expert.down_proj.weight.T
                rebuilt[layer] += beside * torch.sigmoid(mlp.shared_expert_gate(shown.call.states))

        return see

    outputs = {layer: (lambda x, layer=layer: given.update({layer: x.clone()})) for layer in (0, 1)}
    show_key_activations(model, IDS, {layer: keep(layer) for layer in (0, 1)}, outputs)

    for layer in (0, 1):
        torch.testing.assert_close(rebuilt[layer], given[layer], atol=1e-4, rtol=1e-3)


def test_dense_blocks_and_mixtures_may_lie_in_one_model() -> None:
    first, second = mlp_keys(mixture("qwen3_moe", mlp_only_layers=(0,)))

    assert (first.name, first.n_keys) == ("mlp.down_proj", 60)
    assert (second.name, second.n_keys) == ("mlp.experts", 72)


_LATENT = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
    "num_key_value_heads": 4, "q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 12, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_TWO_OF_FOUR = {"num_local_experts": 4, "num_experts_per_tok": 2}
# family: (shape, keys of experts in the last block, keys of the MLP beside them)
_MORE_MIXTURES: dict[str, tuple[dict[str, Any], int, int]] = {
    "flex_olmo": (_EXPERTS, 180, 0),
    "qwen3_next": ({**_EXPERTS, "head_dim": 12, "shared_expert_intermediate_size": 32}, 72, 32),
    "granitemoe": (_TWO_OF_FOUR, 240, 0),
    "granitemoeshared": ({**_TWO_OF_FOUR, "shared_intermediate_size": 20}, 240, 20),
    "phimoe": ({"num_local_experts": 4}, 240, 0),
    "deepseek_v2": (_LATENT, 96, 48),
    "deepseek_v3": (_LATENT, 96, 24),
    "ernie4_5_moe": (
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 1},
        96,
        24,
    ),
    "glm4_moe": ({k: v for k, v in _LATENT.items() if "lora" not in k and "_dim" not in k} | {"head_dim": 12}, 96, 24),
    "minimax": ({"num_local_experts": 3, "head_dim": 12}, 180, 0),
    "lfm2_moe": (
        {
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_dense_layers": 1,
            "layer_types": ("full_attention", "full_attention"),
        },
        96,
        0,
    ),
    "jamba": (
        {
            "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
            "expert_layer_period": 1, "expert_layer_offset": 0, "use_mamba_kernels": False,
        },
        240,
        0,
    ),
    "hunyuan_v1_moe": ({"num_experts": 4, "moe_topk": 2, "head_dim": 12}, 240, 60),
}  # fmt: skip


@pytest.mark.parametrize("family", list(_MORE_MIXTURES))
def test_experts_are_found_and_add_up_in_other_families(family: str) -> None:
    shape, routed, shared = _MORE_MIXTURES[family]
    made = mixture.__wrapped__(family, **shape)

    last = mlp_keys(made)[-1]

    assert isinstance(last, ExpertKeys)
    assert (last.n_routed, last.n_keys - last.n_routed) == (routed, shared)


def test_experts_that_are_not_told_who_chose_them_are_refused_by_name() -> None:
    shape = {
        "num_local_experts": 3,
        "head_dim": 12,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 40,
    }
    with pytest.raises(LayerscopeError, match=r"layer 0 of .*\n.*experts \(feed_forward.experts\)"):
        mlp_keys(mixture("llama4_text", **shape))


@pytest.mark.parametrize(
    ("norm", "power", "why"), [(True, 1, "could not be told"), (False, 2, "is not activations times")]
)
def test_experts_of_another_form_are_noticed(norm: bool, power: int, why: str) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(3, 8, 5))
            self.down = nn.Parameter(torch.randn(3, 5, 8))

        def forward(self, x: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            inside = torch.relu(torch.einsum("tw,tcwu->tcu", x, self.up[chosen]))
            written = torch.einsum("tcu,tcuw->tcw", inside, self.down[chosen])
            written = nn.functional.normalize(written, dim=-1) if norm else written
            return (written * shares[..., None] ** power).sum(1)

    torch.manual_seed(0)
    call = (torch.randn(4, 8), torch.tensor([[0, 1], [1, 2], [0, 2], [2, 1]]), torch.rand(4, 2))

    assert why in str(find_expert_keys("experts", Other(), (call, {})))


def test_an_mlp_as_wide_as_the_stream_is_told_from_queries() -> None:
    model = zoo.layered("llama")
    square = zoo.make("llama")
    assert model.facts.width == 64
    for block in square.model.layers:
        block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj = (
            nn.Linear(64, 64, bias=False) for _ in range(3)
        )

    keys = mlp_keys(load_model(square, tokenizer=zoo.tokenizer()))

    assert {(one.name, one.n_keys) for one in keys} == {("mlp.down_proj", 64)}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "opt", "bloom"])
def test_values_are_what_the_projections_of_weight_directions_write(family: str) -> None:
    model = zoo.layered(family, flipped=True)

    for layer, keys in enumerate(mlp_keys(model)):
        assert isinstance(keys, MlpKeys)
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
    keeper = {layer: (lambda a, layer=layer: seen.update({layer: next(a.every())[1]})) for layer in range(4)}

    show_key_activations(model, IDS, keeper)

    for layer, entering in enumerate(_inputs_of_mlps(model, family)):
        torch.testing.assert_close(seen[layer], _by_hand(model.blocks[layer], family, entering))


def test_activations_are_the_models_own_where_gelu_is_computed_in_one_step() -> None:
    model = zoo.layered("gpt2")
    own: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    handles = [
        block.mlp.c_proj.register_forward_pre_hook(lambda _, args: own.append(args[0].clone()))
        for block in model.blocks
    ]
    with torch.no_grad():
        model.module(IDS)
    for handle in handles:
        handle.remove()

    show_key_activations(model, IDS, {layer: lambda a: seen.append(next(a.every())[1]) for layer in range(4)})

    for one, other in zip(seen, own, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)
        assert (other < 0).any()  # a GELU, not a ReLU


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
