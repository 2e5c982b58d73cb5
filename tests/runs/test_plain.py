"""The plain path against a loop that shares no code with it: one forward, one edit at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from layerscope.runs.noise import gaussian_noise
from layerscope.runs.plain import Restoration, restored_log_probabilities
from layerscope.runs.reading import read_states

IDS = [0, 17, 93, 140, 17, 255, 201]
NOISED = (2, 3)
ANSWER = 40
EVERY_SHAPE = [(family, flipped) for family in zoo.FAMILIES for flipped in (False, True)]


def loop(module: Any, blocks: list[Any], restoration: Restoration, noise: Tensor) -> float:
    """One run with noise and one restored state, written as plainly as can be."""
    clean: list[Tensor] = []
    handles = [b.register_forward_pre_hook(_taker(clean), with_kwargs=True) for b in blocks]
    handles.append(
        blocks[-1].register_forward_hook(
            lambda m, a, o: clean.append((o[0] if isinstance(o, tuple) else o).clone())
        )
    )
    module(torch.tensor([IDS]), use_cache=False)
    for handle in handles:
        handle.remove()

    def first(stream: Tensor) -> Tensor:
        stream = stream.clone()
        for place, position in enumerate(NOISED):
            stream[0, position] += noise[restoration.sample, place]
        return stream

    def put_back(stream: Tensor) -> Tensor:
        stream = stream.clone()
        for token in restoration.tokens:
            stream[0, token] = clean[restoration.depth][0, token]
        return stream

    handles = [blocks[0].register_forward_pre_hook(_editor(first), with_kwargs=True)]
    if restoration.depth < len(blocks):
        handles.append(
            blocks[restoration.depth].register_forward_pre_hook(_editor(put_back), with_kwargs=True)
        )
    elif restoration.depth == len(blocks):
        handles.append(
            blocks[-1].register_forward_hook(
                lambda m, a, o: (put_back(o[0]), *o[1:]) if isinstance(o, tuple) else put_back(o)
            )
        )
    logits = module(torch.tensor([IDS]), use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return float(logits.float().softmax(-1)[ANSWER])


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
def test_batched_runs_equal_the_loop_at_every_token_and_depth(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=2, width=model.facts.width, sd=1.5)
    together = [Restoration(0, NOISED, depth) for depth in range(model.n_layers)]
    wanted = [Restoration(1), *together] + [
        Restoration(sample, (token,), depth)
        for depth in range(model.n_layers + 1)
        for token in range(len(IDS))
        for sample in ((depth + token) % 2,)
    ]

    values = restored_log_probabilities(
        model,
        IDS,
        wanted,
        noise=noise,
        noised=NOISED,
        clean=read_states(model, IDS),
        answer=ANSWER,
        tokens_per_pass=100,
    ).exp()

    reference = torch.tensor([loop(model.module, list(model.blocks), run, noise) for run in wanted])
    torch.testing.assert_close(values, reference, rtol=1e-4, atol=1e-6)
    assert reference.max() > 1.2 * reference.min()  # the edits matter, or nothing was tested


def test_restoring_the_last_token_after_the_last_block_brings_the_clean_probability_back() -> None:
    model = zoo.layered("llama")
    noise = gaussian_noise(0, prompt="a", positions=NOISED, samples=1, width=model.facts.width, sd=2.0)
    clean = model.logits(torch.tensor([IDS]), last=True)[0, -1].log_softmax(-1)[ANSWER]

    values = restored_log_probabilities(
        model,
        IDS,
        [Restoration(0, (len(IDS) - 1,), model.n_layers), Restoration(0)],
        noise=noise,
        noised=NOISED,
        clean=read_states(model, IDS),
        answer=ANSWER,
        tokens_per_pass=512,
    )

    torch.testing.assert_close(values[0], clean, rtol=1e-5, atol=1e-5)
    assert (values[1] - clean).abs() > 0.01


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
