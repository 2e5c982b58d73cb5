"""The plain path against loops that share no code with it: one forward, one edit at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from layerscope.runs.edits import Branch, Cut, Edit, Put
from layerscope.runs.noise import gaussian_noise
from layerscope.runs.patching import run_patched
from layerscope.runs.recordings import BaseRun

IDS = [0, 17, 93, 140, 17, 255, 201]
NOISED = (2, 3)
EVERY_SHAPE = [(family, flipped) for family in zoo.FAMILIES for flipped in (False, True)]

Hooks = list[tuple[Any, Callable[..., Any], bool]]
"""Modules, and what to hang on them; True for before their call."""


def patched(model: Any, noise: Tensor, branches: list[Branch]) -> Tensor:
    """Probabilities of all tokens after every branch, by the plain path."""
    return run_patched(
        model,
        branches,
        base=BaseRun.of(IDS, noise, NOISED),
        other=BaseRun.of(IDS),
        read=lambda said, _: said.logits()[:, -1].float().softmax(-1),
        tokens_per_pass=100,
        plain=True,
    )


def loop(module: Any, hooks: Hooks) -> Tensor:
    """One run with some hooks: probabilities after the last token."""
    handles = [
        place.register_forward_pre_hook(hook, with_kwargs=True)
        if before
        else place.register_forward_hook(hook)
        for place, hook, before in hooks
    ]
    logits = module(torch.tensor([IDS]), use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits.float().softmax(-1)


def noising(blocks: list[Any], noise: Tensor, sample: int) -> Hooks:
    """Noise on the residual stream before the first block."""

    def first(stream: Tensor) -> Tensor:
        stream = stream.clone()
        for place, position in enumerate(NOISED):
            stream[0, position] += noise[sample, place]
        return stream

    return [(blocks[0], _editor(first), True)]


def clean_states(module: Any, blocks: list[Any]) -> list[Tensor]:
    """The residual stream at every depth."""
    clean: list[Tensor] = []
    hooks: Hooks = [(block, _taker(clean), True) for block in blocks]
    hooks.append(
        (blocks[-1], lambda m, a, o: clean.append((o[0] if isinstance(o, tuple) else o).clone()), False)
    )
    loop(module, hooks)
    return clean


def restoring(blocks: list[Any], clean: list[Tensor], tokens: tuple[int, ...], depth: int) -> Hooks:
    """Some states of one depth put back."""

    def put_back(stream: Tensor) -> Tensor:
        stream = stream.clone()
        for token in tokens:
            stream[0, token] = clean[depth][0, token]
        return stream

    if depth < len(blocks):
        return [(blocks[depth], _editor(put_back), True)]
    return [
        (blocks[-1], lambda m, a, o: (put_back(o[0]), *o[1:]) if isinstance(o, tuple) else put_back(o), False)
    ]


def _taker(into: list[Tensor]) -> Callable[..., None]:
    def take(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        into.append((args[0] if args else kwargs["hidden_states"]).clone())

    return take


def _editor(edit: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    return hook


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
@torch.no_grad()
def test_restored_states_equal_the_loop_at_every_token_and_depth(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=2, width=model.facts.width, sd=1.5)
    wanted: list[tuple[int, tuple[int, ...], int]] = [(0, NOISED, depth) for depth in range(model.n_layers)]
    wanted += [
        ((depth + token) % 2, (token,), depth)
        for depth in range(model.n_layers + 1)
        for token in range(len(IDS))
    ]
    branches = [Branch((Put("state", (depth,), tokens),), sample) for sample, tokens, depth in wanted]

    values = patched(model, noise, [Branch((), 1), *branches])

    blocks = list(model.blocks)
    clean = clean_states(model.module, blocks)
    reference = [loop(model.module, noising(blocks, noise, 1))]
    reference += [
        loop(model.module, noising(blocks, noise, sample) + restoring(blocks, clean, tokens, depth))
        for sample, tokens, depth in wanted
    ]
    torch.testing.assert_close(values, torch.stack(reference), rtol=1e-4, atol=1e-6)
    spread = values.max(0).values / values.min(0).values
    assert spread.max() > 1.2  # the edits matter, or nothing was tested


# family: (attention, MLP as added; attention itself; its output projection), inside a block
PLACES = {
    "gpt2": ("attn", "mlp", "attn", "attn.c_proj"),
    "gpt_neox": ("attention", "mlp", "attention", "attention.dense"),
    "llama": ("self_attn", "mlp", "self_attn", "self_attn.o_proj"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm", "self_attn", "self_attn.o_proj"),
}


def frozen_outputs(place: Any, module: Any, hooks: Hooks, token: int) -> Callable[..., Any]:
    """A hook that gives a module the output, at one token, that it has in another run."""
    seen: list[Tensor] = []
    loop(
        module,
        [*hooks, (place, lambda m, a, o: seen.append((o[0] if isinstance(o, tuple) else o).clone()), False)],
    )

    def put(m: Any, args: Any, output: Any) -> Any:
        first = (output[0] if isinstance(output, tuple) else output).clone()
        first[0, token] = seen[0][0, token]
        return (first, *output[1:]) if isinstance(output, tuple) else first

    return put


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("flipped", [False, True])
@torch.no_grad()
def test_restored_and_severed_outputs_equal_the_loop(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    blocks = list(model.blocks)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=2, width=model.facts.width, sd=1.5)
    clean = clean_states(model.module, blocks)
    branches, reference = [], []
    for site, name in zip(("attn_out", "mlp_out"), PLACES[family][:2], strict=True):
        for token, layers in ((3, (0, 1)), (5, (1, 2, 3)), (6, (2, 3))):
            noised = noising(blocks, noise, 1)
            places = {layer: blocks[layer].get_submodule(name) for layer in range(len(blocks))}
            window = [(places[i], frozen_outputs(places[i], model.module, [], token), False) for i in layers]
            branches.append(Branch((Put(site, layers, (token,)),), 1))
            reference.append(loop(model.module, noised + window))
            every = tuple(range(len(blocks)))
            frozen = [
                (places[i], frozen_outputs(places[i], model.module, noised, token), False) for i in every
            ]
            branches.append(Branch((Put("state", (1,), (token,)), Put(site, every, (token,), "base")), 1))
            reference.append(loop(model.module, noised + restoring(blocks, clean, (token,), 1) + frozen))

    torch.testing.assert_close(patched(model, noise, branches), torch.stack(reference), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", PLACES)
@torch.no_grad()
def test_restored_heads_equal_the_loop(family: str) -> None:
    model = zoo.layered(family)
    blocks = list(model.blocks)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=1, width=model.facts.width, sd=1.5)
    branches, reference = [], []
    for layer, head, token in ((0, 1, 3), (2, 3, 6), (1, 0, 4)):
        projection = blocks[layer].get_submodule(PLACES[family][3])
        clean: list[Tensor] = []
        loop(model.module, [(projection, _taker(clean), True)])
        width = clean[0].shape[-1] // 4

        def put(
            heads: Tensor,
            here: Tensor = clean[0],
            token: int = token,
            part: slice = slice(head * width, head * width + width),
        ) -> Tensor:
            heads = heads.clone()
            heads[0, token, part] = here[0, token, part]
            return heads

        branches.append(Branch((Put("head_out", (layer,), (token,), heads=(head,)),)))
        reference.append(loop(model.module, [*noising(blocks, noise, 0), (projection, _editor(put), True)]))

    torch.testing.assert_close(patched(model, noise, branches), torch.stack(reference), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_restored_queries_keys_and_values_equal_the_loop() -> None:
    model = zoo.layered("gpt2")
    blocks, width = list(model.blocks), model.facts.width
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=1, width=width, sd=1.5)
    branches: list[Branch] = []
    reference = []
    for number, site in enumerate(("q", "k", "v")):
        for layer, token in ((0, 3), (1, 2), (3, 6)):
            projection = blocks[layer].attn.c_attn
            clean: list[Tensor] = []
            loop(model.module, [(projection, lambda m, a, o, clean=clean: clean.append(o.clone()), False)])

            def put(
                m: Any, a: Any, o: Tensor, here: Tensor = clean[0], token: int = token, n: int = number
            ) -> Tensor:
                o = o.clone()
                o[0, token, n * width : (n + 1) * width] = here[0, token, n * width : (n + 1) * width]
                return o

            edit: Edit = Put(site, (layer,), (token,))  # type: ignore[arg-type]
            branches.append(Branch((edit,)))
            reference.append(loop(model.module, [*noising(blocks, noise, 0), (projection, put, False)]))

    torch.testing.assert_close(patched(model, noise, branches), torch.stack(reference), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", PLACES)
@torch.no_grad()
def test_cut_edges_equal_a_mask_that_forbids_them(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=1, width=model.facts.width, sd=1.5)
    blocks = list(model.blocks)
    cuts = [Cut((0, 1), (5, 6), (1, 3)), Cut((2,), (4,), (3,)), Cut((1, 2, 3), (6,), (2, 5))]

    values = patched(model, noise, [Branch((cut,)) for cut in cuts])

    before = model.module.config._attn_implementation
    model.module.set_attn_implementation("eager")
    reference = []
    for cut in cuts:

        def forbid(m: Any, args: Any, kwargs: dict[str, Any], cut: Cut = cut) -> Any:
            mask = kwargs["attention_mask"].clone()
            for query in cut.queries:
                mask[:, :, query, list(cut.keys)] = torch.finfo(mask.dtype).min
            return args, kwargs | {"attention_mask": mask}

        places = [blocks[layer].get_submodule(PLACES[family][2]) for layer in cut.layers]
        hooks: Hooks = [*noising(blocks, noise, 0), *((place, forbid, True) for place in places)]
        reference.append(loop(model.module, hooks))
    model.module.set_attn_implementation(before)
    torch.testing.assert_close(values, torch.stack(reference), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_lost_attention_goes_to_the_first_token_or_to_the_mean_value() -> None:
    """By hand: one block, uniform attention, values that name their token."""
    from layerscope.models.attention import AttentionCall
    from layerscope.runs._edited_attention import HeadEdits, attend_from

    q = k = torch.zeros(1, 1, 4, 2)
    v = torch.tensor([[[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]]])
    call = AttentionCall(q, k, v, None, 1.0, None, None)
    cut = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    cut[0, 0, 3, 1:3] = True
    mean = torch.tensor([[10.0, 1.0]])

    def last(kind: str) -> list[float]:
        edits = HeadEdits(cuts={kind: cut}, mean_values=mean)
        out: list[float] = attend_from(call, q, k, v, prefix=None, mask=None, edits=edits)[0, 0, 3].tolist()
        return out

    assert last("renormalise") == [2.5, 0.0]  # (1 + 4) / 2
    assert last("first") == [1.75, 0.0]  # 3/4 of 1 and 1/4 of 4
    assert last("mean") == [6.25, 0.5]  # (1 + 4) / 4 and half of the mean value


def test_restoring_the_last_token_after_the_last_block_brings_the_clean_probability_back() -> None:
    model = zoo.layered("llama")
    noise = gaussian_noise(0, prompt="a", positions=NOISED, samples=1, width=model.facts.width, sd=2.0)
    clean = model.logits(torch.tensor([IDS]), last=True)[0, -1].softmax(-1)

    values = patched(model, noise, [Branch((Put("state", (model.n_layers,), (len(IDS) - 1,)),)), Branch(())])

    torch.testing.assert_close(values[0], clean, rtol=1e-5, atol=1e-5)
    assert (values[1] - clean).abs().max() > 0.01


def test_noise_depends_on_prompt_sample_token_and_seed_and_on_nothing_else() -> None:
    def draw(
        seed: int = 0, prompt: str = "a", positions: tuple[int, ...] = (2, 3), samples: int = 3
    ) -> Tensor:
        return gaussian_noise(seed, prompt=prompt, positions=positions, samples=samples, width=64, sd=1.0)

    base = draw()

    torch.manual_seed(5)
    assert torch.equal(draw(), base)
    assert torch.equal(draw(samples=5)[:3], base)
    assert torch.equal(draw(positions=(3,))[:, 0], base[:, 1])
    for other in (draw(seed=1), draw(prompt="b"), draw(positions=(4, 5))):
        assert not torch.equal(other, base)
    flat = draw(samples=200).flatten()
    assert abs(flat.mean()) < 0.03
    assert abs(flat.std() - 1) < 0.03
