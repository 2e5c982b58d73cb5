"""How long what a head writes is: against an output that only that head and key can have written."""

import pytest
import torch

import zoo
from layerscope.models.attention import Attended, watched
from layerscope.models.head_outputs import head_outputs
from layerscope.models.hooks import on_output
from layerscope.models.load import load_model
from layerscope.models.projections import find_projections
from layerscope.runs.value_lengths import VALUE, WRITTEN, ValueLengths

IDS = torch.tensor([[0, 5, 9, 40, 77, 120, 31]])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_oss", "gpt_neox", "opt"])
def test_lengths_are_those_of_the_vector_that_the_projection_gives_for_one_key(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    lengths = ValueLengths(model)
    layer, head, key = 1, 2, 3
    module = model.attention_modules[layer]
    outer = next(
        m
        for n, m in module.named_modules()
        if n.rsplit(".", 1)[-1] in ("c_proj", "o_proj", "dense", "out_proj")
    )
    calls: list[Attended] = []
    written: list[torch.Tensor] = []

    def only(chosen: bool) -> None:
        def watch(call: Attended) -> torch.Tensor:
            calls.append(call)
            edited = torch.zeros_like(call.head_out)
            if chosen:
                group = head * call.v.shape[1] // call.q.shape[1]
                edited[:, head, -1] = call.v[:, group, key]
            return edited

        with (
            watched(model.module, {module: watch}),
            on_output(outer, lambda out: written.append(out.reshape(-1, out.shape[-1])[-1])),
        ):
            model.logits(IDS)

    only(True)
    only(False)
    found = lengths.of(layer, calls[0].v, calls[0].q.shape[1])

    assert lengths.source(layer) == WRITTEN
    assert float(found[0, head, key]) == pytest.approx(float((written[0] - written[1]).norm()), rel=1e-3)


def test_where_no_linear_map_follows_the_heads_the_length_of_the_value_is_used_and_said() -> None:
    module = zoo.make("llama")
    for block in module.model.layers:
        projection = block.self_attn.o_proj
        block.self_attn.o_proj = torch.nn.Sequential(torch.nn.Tanh(), projection)
    model = load_model(module, tokenizer=zoo.tokenizer())
    lengths = ValueLengths(model)
    v = torch.randn(1, 2, 5, 16)

    assert lengths.source(0) == VALUE
    torch.testing.assert_close(lengths.of(0, v, 4), v.norm(dim=-1).repeat_interleave(2, dim=1))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "opt"])
def test_the_projection_is_the_one_that_weight_directions_reads(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    outputs = head_outputs(model)

    for layer in range(model.n_layers):
        heads = find_projections(model, layer).heads
        assert heads is not None
        assert outputs[layer] is not None
        factor = model.additions[layer].multiplier if model.additions[layer] else 1.0
        torch.testing.assert_close(outputs[layer] * factor, heads.output.flatten(0, 1))


class _EightBits(torch.nn.Module):
    """A linear map that holds whole numbers and a scale, as quantised layers do."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__()
        self.scale = float(plain.weight.detach().abs().max()) / 127
        self.packed = torch.nn.Parameter(
            (plain.weight / self.scale).round().to(torch.int8), requires_grad=False
        )
        self.bias = plain.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(states, self.packed.float() * self.scale, self.bias)


def test_packed_projections_are_asked_for_their_matrix() -> None:
    module = zoo.make("llama")
    plain = [block.self_attn.o_proj.weight.detach().clone() for block in module.model.layers]
    for block in module.model.layers:
        block.self_attn.o_proj = _EightBits(block.self_attn.o_proj)

    outputs = head_outputs(load_model(module, tokenizer=zoo.tokenizer()))

    for layer, weight in enumerate(plain):
        torch.testing.assert_close(outputs[layer], weight.T, atol=float(weight.abs().max()) / 250, rtol=0)


def test_weights_that_were_changed_are_read_again() -> None:
    model = zoo.layered("gpt2")
    before = head_outputs(model)[0]
    assert before is not None
    before = before.clone()
    with torch.no_grad():
        model.blocks[0].attn.c_proj.weight.mul_(2)

    torch.testing.assert_close(head_outputs(model)[0], before * 2)
