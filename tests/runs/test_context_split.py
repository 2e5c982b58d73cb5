"""The four-way split sums to the whole, and each part is what a plain computation by hand gives."""

from typing import Any

import pytest
import torch

import zoo
from layerscope import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.runs.context_split import ContextSplit, split_context
from layerscope.runs.windows import full_run

TEXT = "the red fox met the old dog in the town of stone and a small bird sang to the young king"
TARGETS, CUTS, DISTANCES = [12, 9, 20], [3, 6], [1, 3, 6]


def ids_of(text: str) -> list[int]:
    return [0, *zoo.tokenizer().encode(text)][:24]


def split(model: LayeredModel) -> tuple[ContextSplit, torch.Tensor]:
    text = full_run(model, ids_of(TEXT))
    return split_context(model, text, TARGETS, distances=DISTANCES, cuts=CUTS), text.states


SEQUENTIAL = ["gpt2", "llama", "opt", "granite"]
PARALLEL = ["gpt_neox", "stablelm", "cohere"]
WINDOWED = ["mistral", "gemma2", "gpt_oss", "qwen3"]


@pytest.mark.parametrize("family", [*SEQUENTIAL, *PARALLEL, *WINDOWED])
def test_the_four_parts_sum_to_the_growth_of_the_difference(family: str) -> None:
    # GPT-NeoX is parallel in its default shape, StableLM in the flipped one; OPT's flipped one adds no such vectors.
    model = zoo.layered(family, flipped=family not in ("gpt_neox", "opt"))

    found, _ = split(model)

    whole = found.difference[:, 1:] - found.difference[:, :-1]
    scale = found.difference.norm(dim=-1).max()
    torch.testing.assert_close(found.parts.sum(1) / scale, whole / scale, rtol=0, atol=2e-5)
    assert (found.parts.norm(dim=-1).amax(dim=(0, 2, 3)) > 1e-3 * scale).all(), "a part that is never there"


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_reading_is_what_a_plain_attention_with_fewer_keys_gives(family: str) -> None:
    """By hand, in float64, from the model's own weights: block 0, where cut and full keys are the same."""
    model = zoo.layered(family)
    found, states = split(model)
    block = model.blocks[0]
    for place, target in enumerate(TARGETS):
        for number, kept in enumerate(DISTANCES):
            keys = [0, *range(target - kept + 1, target + 1)]
            by_hand = _attention_by_hand(family, block, states[0], target, keys)
            torch.testing.assert_close(found.from_within[number, 0, place], by_hand, rtol=1e-3, atol=1e-4)
        everything = _attention_by_hand(family, block, states[0], target, list(range(target + 1)))
        torch.testing.assert_close(found.attention[0, place], everything, rtol=1e-3, atol=1e-4)


def _attention_by_hand(
    family: str, block: torch.nn.Module, states: torch.Tensor, target: int, keys: list[int]
) -> torch.Tensor:
    heads = 4
    if family == "gpt2":
        normed = torch.nn.functional.layer_norm(
            states.double(),
            states.shape[-1:],
            block.ln_1.weight.double(),
            block.ln_1.bias.double(),
            block.ln_1.eps,
        )
        q, k, v = (normed @ block.attn.c_attn.weight.double() + block.attn.c_attn.bias.double()).chunk(
            3, dim=-1
        )
        q, k, v = (x.reshape(len(states), heads, -1) for x in (q, k, v))
        output, bias = block.attn.c_proj.weight.double(), block.attn.c_proj.bias.double()
    else:
        norm, attention = block.input_layernorm, block.attention
        normed = torch.nn.functional.layer_norm(
            states.double(), states.shape[-1:], norm.weight.double(), norm.bias.double(), norm.eps
        )
        qkv = normed @ attention.query_key_value.weight.double().T + attention.query_key_value.bias.double()
        q, k, v = qkv.reshape(len(states), heads, 3, -1).unbind(2)
        q, k = (_rotated(x, 4) for x in (q, k))
        output, bias = attention.dense.weight.double().T, attention.dense.bias.double()
    scores = torch.einsum("hd,khd->hk", q[target], k[keys]) / q.shape[-1] ** 0.5
    mixed = torch.einsum("hk,khd->hd", scores.softmax(-1), v[keys]).reshape(-1)
    return (mixed @ output + bias).float()


def _rotated(x: torch.Tensor, size: int) -> torch.Tensor:
    """Rotary positions on the first `size` entries (a quarter of 16), theta 10000."""
    places = torch.arange(len(x), dtype=torch.float64)[:, None]
    angles = places * 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    cos, sin = (f(angles).repeat(1, 2)[:, None] for f in (torch.cos, torch.sin))
    turned = torch.cat([-x[..., size // 2 : size], x[..., : size // 2]], dim=-1)
    return torch.cat([x[..., :size] * cos + turned * sin, x[..., size:]], dim=-1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "stablelm", "mistral"])
def test_every_part_is_what_the_family_s_own_attention_gives(family: str) -> None:
    """Learned positions, rotary ones, two parallel blocks, a window: each block's own module is called again.

    Its inputs are those of plain runs of the whole and of the cut text, laid together token by token.
    """
    flipped = family != "gpt_neox"
    found, _ = split(zoo.layered(family, flipped=flipped))
    ids = ids_of(TEXT)
    whole = _attention_inputs(family, flipped, ids, list(range(len(ids))), None)
    for place, target in enumerate(TARGETS):
        for number, kept in enumerate(CUTS):
            near = [0, *range(target - kept + 1, target + 1)]
            cut = _attention_inputs(family, flipped, [ids[p] for p in near], near, whole[0])
            for layer, (module, full, given) in enumerate(whole[1]):
                alone = cut[1][layer][1]
                mixed = torch.cat([alone[:-1], full[target:][:1]])
                ask = lambda states, places, m=module, g=given: _asked(m, g, states, places)  # noqa: E731
                everything = _asked(module, given, full, list(range(len(ids))))[target]
                steps = [everything, *(ask(states, near)[-1] for states in (full[near], mixed, alone))]
                for part in range(3):  # fresh, relayed, own
                    torch.testing.assert_close(
                        found.parts[number, part, layer, place],
                        steps[part] - steps[part + 1],
                        rtol=1e-3,
                        atol=2e-4,
                    )


def _attention_inputs(
    family: str, flipped: bool, ids: list[int], positions: list[int], mask: torch.Tensor | None
) -> tuple[torch.Tensor, list[tuple[torch.nn.Module, torch.Tensor, dict[str, Any]]]]:
    """What each block's attention module is given by transformers' own eager forward pass, and the mask of it."""
    module = zoo.make(family, flipped=flipped)
    module.set_attn_implementation("eager")
    found: list[tuple[torch.nn.Module, torch.Tensor, dict[str, Any]]] = []

    def keep(attention: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        states = args[0] if args else given["hidden_states"]
        found.append((attention, states[0].clone(), {n: x for n, x in given.items() if n != "hidden_states"}))

    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    hooks = []
    for block in blocks:
        name = next(name for name in ("attn", "self_attn", "attention") if hasattr(block, name))
        hooks.append(getattr(block, name).register_forward_pre_hook(keep, with_kwargs=True))
    tokens = torch.tensor([ids])
    seen = torch.ones_like(tokens) if mask is None else mask[:, :, positions][..., positions]
    with torch.no_grad():
        module(tokens, attention_mask=seen, position_ids=torch.tensor([positions]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return found[0][2]["attention_mask"], found


def _asked(
    module: torch.nn.Module, given: dict[str, Any], states: torch.Tensor, places: list[int]
) -> torch.Tensor:
    """A block's own attention over other states, at these places of the whole text [place width]."""
    given = given | {"attention_mask": given["attention_mask"][:, :, places][..., places]}
    if given.get("position_embeddings") is not None:
        given["position_embeddings"] = tuple(part[:, places] for part in given["position_embeddings"])
    if given.get("position_ids") is not None:
        given["position_ids"] = given["position_ids"][:, places]
    with torch.no_grad():
        return module(states[None], **given)[0][0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss"])
def test_in_the_first_block_nothing_is_relayed_or_own(family: str) -> None:
    """At the embeddings cut and full states are the same, so far context can only come in fresh."""
    found, _ = split(zoo.layered(family, flipped=True))

    first = found.parts[:, :, 0].norm(dim=-1)
    assert (first[:, 1:3] < 1e-4).all()
    if family != "gpt_oss":  # whose first block reads four tokens back only
        assert (first[:, 0] > 1e-2).all()


def test_beyond_a_window_nothing_is_read() -> None:
    found, _ = split(zoo.layered("mistral", flipped=True))  # four tokens back in every block

    fresh = found.parts[1, 0].norm(dim=-1)  # the last six kept
    assert (fresh < 1e-5).all()
    assert (found.parts[0, 0].norm(dim=-1) > 1e-2).any()  # of the last three, the fourth is read fresh


def test_what_is_read_with_all_tokens_near_is_the_whole_attention() -> None:
    model = zoo.layered("llama", flipped=True)
    text = full_run(model, ids_of(TEXT))

    found = split_context(model, text, [5, 12], distances=[3, 12], cuts=[3])

    torch.testing.assert_close(found.from_within[1], found.attention, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gptj", "bloom", "recurrent_gemma"])
def test_families_whose_attention_is_out_of_reach_are_refused_by_name(family: str) -> None:
    model = zoo.layered(family)
    text = full_run(model, ids_of(TEXT))

    with pytest.raises(LayerscopeError, match=r"not available on|cannot be separated"):
        split_context(model, text, TARGETS, distances=DISTANCES, cuts=CUTS)
