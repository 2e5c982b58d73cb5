"""Do the recovered matrices rebuild what the model itself computes, in every layout?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

import zoo
from layerscope import LayerscopeError
from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import Norm, as_norm
from layerscope.models.load import load_model
from layerscope.models.projections import HeadWeights, Projections, find_projections
from layerscope.models.sites import Site
from layerscope.runs.reading import read_sites

# Layouts that the zoo has not: fused queries, keys and values of other families, gates in one matrix, experts.
_SMALL = {"vocab_size": 320, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_SIZES = {"vocab_size": 320, "n_embd": 48, "n_layer": 2, "n_head": 4, **_ENDS}
_GROUPED = {**_SMALL, **_ENDS, "intermediate_size": 40, "num_key_value_heads": 2}
_NEO = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
_MPT = {"d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
_EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
_MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("phi3", {**_GROUPED, "max_position_embeddings": 64}),
    "falcon": ("falcon", {**_SMALL, **_ENDS, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_one_key": ("falcon", {**_SMALL, **_ENDS, "multi_query": True}),
    "gpt_bigcode": ("gpt_bigcode", _SIZES),
    "codegen": ("codegen", {**_SIZES, "rotary_dim": 4}),
    "gpt_neo": ("gpt_neo", {"vocab_size": 320, "hidden_size": 48, **_NEO, **_ENDS}),
    "mpt": ("mpt", {"vocab_size": 320, **_MPT, **_ENDS}),
    "olmo2": ("olmo2", _GROUPED),
    "mixtral": ("mixtral", {**_GROUPED, "num_local_experts": 3}),
    "qwen2_moe": ("qwen2_moe", {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 32}),
}


@cache
def made(family: str, flipped: bool = False) -> LayeredModel:
    if family in zoo.FAMILIES:
        return zoo.layered(family, flipped=flipped)
    from transformers import AutoModelForCausalLM
    from transformers.models.auto import CONFIG_MAPPING

    kind, shape = _MORE[family]
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**shape)).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(0, 0.15) if parameter.dim() >= 2 else parameter.add_(
            torch.randn_like(parameter) * 0.1
        )
    return load_model(module, tokenizer=zoo.tokenizer())


CASES = [(family, flipped) for family in zoo.FAMILIES for flipped in (False, True)]
CASES += [(family, False) for family in _MORE]
everywhere = pytest.mark.parametrize(("family", "flipped"), CASES, ids=[f"{f}-{x}" for f, x in CASES])
IDS = (5, 17, 250, 33, 90, 4)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def found(model: LayeredModel) -> list[Projections]:
    return [find_projections(model, layer) for layer in range(model.n_layers)]


def normed(states: Tensor, norm: Norm | None) -> Tensor:
    """A norm from its definition."""
    if norm is None:
        return states
    states = states - states.mean(-1, keepdim=True) if norm.centres else states
    return states / states.square().mean(-1, keepdim=True).add(1e-6).sqrt() * norm.gain + norm.shift


def attention_of_one_token(model: LayeredModel, heads: HeadWeights) -> tuple[Tensor, Tensor]:
    """What the output projection is given of the first token's own block input, and what it gives, watched by hand."""
    seen: list[Tensor] = []
    with (
        on_input(heads.output_map, lambda z: seen.append(z.clone())),
        on_output(heads.output_map, lambda y: seen.append(y.clone())),
    ):
        model.logits(torch.tensor([[IDS[0]]]))
    return seen[0].reshape(-1), seen[1].reshape(-1)


@everywhere
def test_values_and_outputs_of_heads_rebuild_the_attention_of_one_token(family: str, flipped: bool) -> None:
    model = made(family, flipped)
    rebuilt = 0
    for weights in found(model):
        heads = weights.heads
        if heads is None:
            assert "recurrent" in family
            continue
        states = read_sites(model, IDS[:1], [Site("resid_pre", weights.layer)])
        state = normed(states[Site("resid_pre", weights.layer)][0], heads.before)
        values = torch.einsum("d,kdw->kw", state, heads.value) + heads.value_bias
        given, out = attention_of_one_token(model, heads)
        if family != "gpt_oss":  # whose heads also look at a sink
            torch.testing.assert_close(values[list(heads.group)].flatten(), given, atol=2e-4, rtol=2e-3)
        added = (
            torch.einsum("hw,hwd->d", given.reshape(len(heads.group), -1), heads.output) + heads.output_bias
        )
        factor = model.additions[weights.layer].multiplier if model.additions[weights.layer] else 1.0
        torch.testing.assert_close(added, out * factor, atol=1e-5, rtol=1e-4)
        rebuilt += 1
    assert rebuilt


@everywhere
def test_attn_out_is_rebuilt_from_head_outputs_over_a_text(family: str, flipped: bool) -> None:
    model = made(family, flipped)
    if "head_out" in model.refused or "attn_out" in model.refused:
        pytest.skip("this family lets no heads be watched, or adds no such vector")
    for weights in found(model):
        if (heads := weights.heads) is None:
            continue
        sites = [Site(kind, weights.layer) for kind in ("head_out", "attn_out", "v", "resid_pre")]
        head_out, attn_out, v, stream = read_sites(model, IDS, sites).values()
        values = (
            torch.einsum("td,kdw->ktw", normed(stream, heads.before), heads.value) + heads.value_bias[:, None]
        )
        torch.testing.assert_close(values, v, atol=2e-4, rtol=2e-3)
        added = torch.einsum("htw,hwd->td", head_out, heads.output) + heads.output_bias
        torch.testing.assert_close(normed(added, heads.after), attn_out, atol=1e-4, rtol=1e-3)


@everywhere
def test_queries_and_keys_rebuild_those_of_the_first_position(family: str, flipped: bool) -> None:
    model = made(family, flipped)
    for weights in found(model):
        if weights.heads is None or weights.heads.query is None:
            assert weights.missing["queries and keys"]
            continue
        heads = weights.heads
        q, k, stream = read_sites(
            model, IDS, [Site(kind, weights.layer) for kind in ("q", "k", "resid_pre")]
        ).values()
        state = normed(stream[0], heads.before)
        torch.testing.assert_close(
            torch.einsum("d,hdw->hw", state, heads.query) + heads.query_bias, q[:, 0], atol=5e-4, rtol=2e-3
        )
        torch.testing.assert_close(
            torch.einsum("d,hdw->hw", state, heads.key) + heads.key_bias, k[:, 0], atol=5e-4, rtol=2e-3
        )


def own_mlp(family: str, model: LayeredModel, layer: int) -> Callable[[Tensor], Tensor]:
    """The family's MLP by its name in transformers: tests may know names, the code may not."""
    block: Any = model.blocks[layer]
    if family == "opt":
        return lambda z: block.fc2(block.activation_fn(block.fc1(z)))
    if family in ("bloom", "mpt"):
        inner = block.mlp if family == "bloom" else block.ffn
        return lambda z: inner(z[None], torch.zeros_like(z)[None])[0]
    inner = {"recurrent_gemma": "mlp_block"}.get(family, "mlp")
    return lambda z: getattr(block, inner)(z[None])[0]


def activation(model: LayeredModel) -> Callable[[Tensor], Tensor]:
    config = model.module.config
    names = ("hidden_activation", "activation_function", "hidden_act", "activation")
    name = next((getattr(config, n) for n in names if isinstance(getattr(config, n, None), str)), None)
    return ACT2FN[name] if name else {"bloom": ACT2FN["gelu_pytorch_tanh"]}.get(config.model_type, nn.GELU())


MOE = ("gpt_oss", "mixtral", "qwen2_moe")


@everywhere
def test_mlp_matrices_rebuild_the_mlp(family: str, flipped: bool) -> None:
    if family in MOE:
        pytest.skip("experts have their own test")
    model = made(family, flipped)
    states = torch.randn(5, model.facts.width, generator=torch.Generator().manual_seed(1))
    for weights in found(model):
        (mlp,) = weights.mlps
        reads = {kind: states @ matrix + mlp.read_biases[kind] for kind, matrix in mlp.reads.items()}
        act = activation(model)
        units = act(reads["gate"]) * reads["in"] if "gate" in reads else act(reads["in"])
        factor = model.additions[weights.layer].multiplier if model.additions[weights.layer] else 1.0
        own = own_mlp(family, model, weights.layer)(states) * factor
        torch.testing.assert_close(units @ mlp.writes + mlp.write_bias, own, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("family", MOE)
def test_experts_matrices_rebuild_each_expert(family: str) -> None:
    model = made(family)
    states = torch.randn(4, model.facts.width, generator=torch.Generator().manual_seed(1))
    for weights in found(model):
        module: Any = model.blocks[weights.layer].mlp.experts
        experts = [one for one in weights.mlps if one.name.startswith("expert")]
        assert len(experts) == len(module.down_proj)
        for number, one in enumerate(experts):
            chosen, share = torch.full((4, 1), number), torch.ones(4, 1)
            own = module(states, chosen, share)
            gate, up = states @ one.reads["gate"], states @ one.reads["in"]
            if family == "gpt_oss":
                bias = module.gate_up_proj_bias[number]
                gate = (gate + bias[::2]).clamp(max=module.limit)
                up = (up + bias[1::2]).clamp(-module.limit, module.limit)
                rebuilt = (
                    (up + 1) * gate * torch.sigmoid(gate * module.alpha)
                ) @ one.writes + module.down_proj_bias[number]
            else:
                rebuilt = (nn.functional.silu(gate) * up) @ one.writes
            torch.testing.assert_close(rebuilt, own, atol=1e-4, rtol=1e-3)


def test_the_shared_expert_is_found_beside_the_others() -> None:
    model = made("qwen2_moe")

    names = [one.name for one in found(model)[0].mlps]

    assert names == ["expert 0", "expert 1", "expert 2", "shared"]
    states = torch.randn(3, model.facts.width)
    shared: Any = model.blocks[0].mlp.shared_expert
    one = found(model)[0].mlps[-1]
    rebuilt = (nn.functional.silu(states @ one.reads["gate"]) * (states @ one.reads["in"])) @ one.writes
    torch.testing.assert_close(rebuilt, shared(states), atol=1e-4, rtol=1e-3)


def test_values_equal_those_of_unit_vectors_fed_to_the_attention_module() -> None:
    """An independent way: what the attention module makes of each unit vector, one token at a time."""
    model = made("gpt_neox")
    heads = found(model)[0].heads
    assert heads is not None
    attention: Any = model.blocks[0].attention
    width = model.facts.width
    units = torch.cat([torch.zeros(1, 1, width), torch.eye(width)[:, None]])
    fused = attention.query_key_value(units).view(width + 1, 1, 4, 3, 16)
    values = fused[:, 0, :, 2]

    torch.testing.assert_close((values[1:] - values[:1]).transpose(0, 1), heads.value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("norm", "centres"), [(nn.LayerNorm(6), True), (nn.LayerNorm(7), True), (nn.RMSNorm(7), False)]
)
def test_a_norm_is_read_by_feeding_it_signs(norm: nn.Module, centres: bool) -> None:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.arange(len(parameter)) * 0.3 - 0.5)
    read = as_norm(norm, len(norm.weight))

    assert read is not None
    assert read.centres == centres
    torch.testing.assert_close(read.gain, norm.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        read.shift, getattr(norm, "bias", None) if centres else torch.zeros(7), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("module", [nn.Linear(6, 6), nn.Identity(), nn.GELU(), nn.Dropout(0.5).eval()])
def test_what_is_no_norm_is_not_taken_for_one(module: nn.Module) -> None:
    assert as_norm(module, 6) is None


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_weights_themselves(family: str, dtype: torch.dtype) -> None:
    model = load_model(zoo.make(family).to(dtype), tokenizer=zoo.tokenizer())

    heads = find_projections(model, 0).heads

    assert heads is not None
    assert heads.value.dtype == torch.float32
    block: Any = model.blocks[0]
    own = block.self_attn.v_proj.weight.T if family == "llama" else block.attn.c_attn.weight[:, 96:]
    assert torch.equal(torch.cat(list(heads.value), dim=1), own.float())


def test_packed_weights_are_declined_by_name() -> None:
    module = zoo.make("llama")
    packed = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    model = made("llama")
    packed_model = LayeredModel(packed, model.tokenizer, model.facts, model.structure)
    packed_model.structure = type(model.structure)("model.layers", tuple(packed.model.layers), (), ())

    with pytest.raises(LayerscopeError, match="packed") as refusal:
        find_projections(packed_model, 1)

    assert "self_attn" in str(refusal.value)


def test_nothing_of_the_model_is_changed() -> None:
    model = made("gpt_oss")
    before, attention = model.weights_digest(), model.module.config._attn_implementation

    found(model)

    assert model.weights_digest() == before
    assert model.module.config._attn_implementation == attention
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
