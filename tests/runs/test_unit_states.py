"""States and attention at chosen tokens, against transformers' own outputs and plain hooks."""

from typing import Any

import pytest
import torch

import zoo
from layerscope import LayerscopeError
from layerscope.runs.unit_states import equal_length_batches, mean_head_outputs, read_units

TEXTS = [(0, 5, 9, 200, 31), (0, 8, 8, 8, 3, 77, 150), (0, 6, 10, 201, 32), (0, 9, 7, 5, 4, 78, 151)]
PLACES = [(1, 4), (2, 5, 6), (2, 3), (1, 2, 6)]
FAMILIES = ["gpt2", "llama", "mistral", "gemma2", "qwen3"]


def own(family: str) -> Any:
    module = zoo.make(family, flipped=True)
    module.set_attn_implementation("eager")
    return module


def blocks_of(module: Any) -> Any:
    return next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList))


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_shares_are_the_model_s_own(family: str) -> None:
    groups = [torch.eye(len(text))[:, [0, 2]] for text in TEXTS]
    groups = [torch.cat([g, torch.ones(len(g), 1)], dim=1) for g in groups]

    found = read_units(
        zoo.layered(family, flipped=True), TEXTS, PLACES, tokens_per_pass=10, groups=groups, logits=True
    )

    module, at = own(family), 0
    for number, (text, places) in enumerate(zip(TEXTS, PLACES, strict=True)):
        seen: list[torch.Tensor] = []
        hooks = [
            block.register_forward_pre_hook(
                lambda m, args, kwargs, seen=seen: seen.append(args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            )
            for block in blocks_of(module)
        ]
        with torch.no_grad():
            out = module(torch.tensor([text]), output_attentions=True, use_cache=False)
        for hook in hooks:
            hook.remove()
        for place in places:
            for depth, state in enumerate(seen):
                torch.testing.assert_close(found.states[at, depth], state[0, place], rtol=1e-4, atol=1e-5)
            for layer, pattern in enumerate(out.attentions):
                row = pattern[0, :, place]
                expected = torch.stack([row[:, 0], row[:, 2], row.sum(-1)], dim=-1)
                torch.testing.assert_close(found.shares[at, layer], expected, rtol=1e-4, atol=1e-6)
            at += 1
        torch.testing.assert_close(found.logits[number], out.logits[0, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "gptj", "recurrent_gemma"])
def test_a_moved_state_changes_the_run_as_a_plain_hook_does(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    vectors = torch.randn(len(TEXTS), model.facts.width, generator=torch.Generator().manual_seed(0))

    found = read_units(model, TEXTS, PLACES, tokens_per_pass=2048, moved=(2, vectors), logits=True)

    module = zoo.make(family, flipped=True)
    for number, (text, places) in enumerate(zip(TEXTS, PLACES, strict=True)):

        def move(m: Any, args: Any, kwargs: Any, number: int = number, place: int = places[-1]) -> Any:
            stream = (args[0] if args else kwargs["hidden_states"]).clone()
            stream[0, place] += vectors[number]
            return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

        hook = blocks_of(module)[2].register_forward_pre_hook(move, with_kwargs=True)
        with torch.no_grad():
            expected = module(torch.tensor([text]), use_cache=False).logits[0, -1]
            hook.remove()
            clean = module(torch.tensor([text]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(found.logits[number], expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(expected, clean, atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gemma2"])
def test_heads_are_replaced_by_their_mean_as_at_the_output_projection(family: str) -> None:
    projection = "attn.c_proj" if family == "gpt2" else "self_attn.o_proj"
    model, heads = zoo.layered(family, flipped=True), [(1, 0), (1, 3), (2, 1)]
    means = mean_head_outputs(model, TEXTS, heads, tokens_per_pass=2048)

    found = read_units(model, TEXTS, PLACES, tokens_per_pass=2048, means=means, logits=True)

    module = own(family)
    size = model.facts.width // 4 if family == "gpt2" else 16
    totals = {head: torch.zeros(size) for head in heads}

    def add(layer: int) -> Any:
        def hook(m: Any, args: Any) -> None:
            for block, head in heads:
                if block == layer:
                    totals[block, head] += args[0][0, :, head * size : (head + 1) * size].sum(0)

        return hook

    def put(layer: int) -> Any:
        def hook(m: Any, args: Any) -> Any:
            stream = args[0].clone()
            for block, head in heads:
                if block == layer:
                    stream[0, :, head * size : (head + 1) * size] = totals[block, head] / sum(map(len, TEXTS))
            return (stream,)

        return hook

    with torch.no_grad():
        for make in (add, put):
            places = [blocks_of(module)[layer].get_submodule(projection) for layer in (1, 2)]
            hooks = [
                place.register_forward_pre_hook(make(layer))
                for layer, place in zip((1, 2), places, strict=True)
            ]
            out = [module(torch.tensor([text]), use_cache=False).logits[0, -1] for text in TEXTS]
            for hook in hooks:
                hook.remove()
    torch.testing.assert_close(found.logits, torch.stack(out), rtol=1e-3, atol=1e-3)


def test_attention_that_cannot_be_watched_is_refused_by_name() -> None:
    with pytest.raises(LayerscopeError, match="pattern is not available"):
        read_units(
            zoo.layered("gptj"),
            TEXTS,
            PLACES,
            tokens_per_pass=9,
            groups=[torch.ones(len(t), 1) for t in TEXTS],
        )


def test_batches_are_of_one_length_and_bounded() -> None:
    assert list(equal_length_batches([3, 5, 3, 3, 5], 6)) == [[0, 2], [3], [1], [4]]
