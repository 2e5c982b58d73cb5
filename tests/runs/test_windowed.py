"""Truncated contexts of models with windows against the model's own pass over each context alone."""

import pytest
import torch

import zoo
from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import read_states
from layerscope.runs.windows import FullRun, full_run, read_truncated

WINDOW = 4
IDS = [0, *((7919 * step + 101) % (zoo.VOCABULARY - 2) + 2 for step in range(17))]
LAST = len(IDS) - 1


def truncated(model: LayeredModel, text: FullRun, wanted: list[tuple[int, int]]) -> torch.Tensor:
    """States of all cells in one call, so that rows of several lengths stand in one batch [depth cell width]."""
    found: dict[tuple[int, int], torch.Tensor] = {}

    def see(depth: int, cells: object, states: torch.Tensor) -> None:
        found.update(
            {(depth, cell): state.clone() for cell, state in zip(cells.tolist(), states, strict=True)}
        )

    read_truncated(model, text, wanted, see, tokens_per_pass=4096)
    depths = range(model.n_layers + 1)
    return torch.stack([torch.stack([found[depth, cell] for cell in range(len(wanted))]) for depth in depths])


def alone(family: str, target: int, kept: int) -> torch.Tensor:
    """The target's states in a run of its own under masks written by hand: keys at most a window back in the text."""
    places = torch.tensor([0, *range(target - kept + 1, target + 1)])
    back = places[:, None] - places[None, :]
    causal = torch.where(back >= 0, 0.0, torch.finfo(torch.float32).min)[None, None]
    near = torch.where((back >= 0) & (back < WINDOW), 0.0, torch.finfo(torch.float32).min)[None, None]
    model = zoo.layered(family, flipped=True)
    config = model.module.config
    types = getattr(config, "layer_types", None)
    masks = {"full_attention": causal, "sliding_attention": near} if types else near
    module, found = model.module, []
    module.set_attn_implementation("eager")
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda _, args, kwargs: found.append((args[0] if args else kwargs["hidden_states"])[0, -1]),
            with_kwargs=True,
        )
    model.blocks[-1].register_forward_hook(lambda _, __, out: found.append(out[0, -1]))
    with torch.no_grad():
        ids = torch.tensor([[IDS[place] for place in places]])
        module(ids, attention_mask=masks, position_ids=places[None], use_cache=False)
    return torch.stack(found)


@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_the_last_tokens_are_read_as_in_a_run_of_their_own(family: str) -> None:
    """Windows that end with the text stand beside longer ones: their rows run on, and nothing may look ahead."""
    model = zoo.layered(family, flipped=True)
    wanted = [(LAST, 3), (LAST, 12), (LAST - 1, 12), (9, 12 - 3), (LAST, LAST)]

    found = truncated(model, full_run(model, IDS), wanted)

    for cell, (target, kept) in enumerate(wanted):
        torch.testing.assert_close(found[:, cell], alone(family, target, kept), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_nothing_cut_is_the_full_run_at_every_target_of_a_batch(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    text = full_run(model, IDS)
    wanted = [(target, target) for target in range(1, len(IDS))]

    found = truncated(model, text, wanted)

    torch.testing.assert_close(found, text.states[:, 1:], rtol=2e-4, atol=2e-4)
    assert len(text.masks) in (model.n_layers // 2, model.n_layers)
    torch.testing.assert_close(read_states(model, IDS), text.states, rtol=2e-4, atol=2e-4)
