"""How long what a head writes is: against an output that only that head and key can have written."""

import pytest
import torch

import zoo
from layerscope.models.attention import Attended, watched
from layerscope.models.hooks import on_output
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
    from layerscope.models.load import load_model

    model = load_model(module, tokenizer=zoo.tokenizer())
    lengths = ValueLengths(model)
    v = torch.randn(1, 2, 5, 16)

    assert lengths.source(0) == VALUE
    torch.testing.assert_close(lengths.of(0, v, 4), v.norm(dim=-1).repeat_interleave(2, dim=1))
