"""Truncated contexts against one plain forward pass for each target and each length."""

from typing import Any

import numpy as np
import pytest
import torch

import zoo
from layerscope import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.runs.swapped import read_swapped
from layerscope.runs.window_passes import Positions, every_length, passes, windows_for
from layerscope.runs.windows import (
    FullRun,
    full_run,
    read_moved,
    read_truncated,
    takes_positions,
)

TEXT = "the red fox met the old dog in the town of stone and a small bird sang to the young king"
OTHER = "a small bird sang and the dog ran to the red town of stone, the old fox was there too"
FAMILIES = ["gpt2", "llama", "gpt_neox", "opt", "gptj", "stablelm", "cohere", "granite"]
WINDOWED = ["mistral", "gemma2", "gpt_oss", "qwen3"]


def ids_of(text: str) -> list[int]:
    return [0, *zoo.tokenizer().encode(text)][:24]


def plain_states(
    family: str, ids: list[int], positions: list[int] | None = None, mask: Any = None
) -> torch.Tensor:
    """The residual stream [depth token width] by transformers' own output, in its own eager attention."""
    module = zoo.make(family, flipped=True)
    module.set_attn_implementation("eager")
    found: list[torch.Tensor] = []
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    hooks = [
        b.register_forward_pre_hook(
            lambda _, a, k: found.append((a[0] if a else k["hidden_states"])[0].clone()), with_kwargs=True
        )
        for b in blocks
    ]
    hooks.append(
        blocks[-1].register_forward_hook(
            lambda _, __, out: found.append((out if isinstance(out, torch.Tensor) else out[0])[0].clone())
        )
    )
    tokens = torch.tensor([ids])
    given = {} if positions is None else {"position_ids": torch.tensor([positions])}
    with torch.no_grad():
        module(
            tokens, attention_mask=torch.ones_like(tokens) if mask is None else mask, use_cache=False, **given
        )
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def collect(n_cells: int, depths: int) -> tuple[dict[tuple[int, int], torch.Tensor], Any]:
    found: dict[tuple[int, int], torch.Tensor] = {}

    def see(depth: int, cells: np.ndarray, states: torch.Tensor) -> None:
        for cell, state in zip(cells.tolist(), states, strict=True):
            assert (depth, cell) not in found, "a cell was shown twice"
            found[depth, cell] = state.clone()

    return found, see


def truncated(model: LayeredModel, text: FullRun, wanted: list[tuple[int, int]], **how: Any) -> torch.Tensor:
    found, see = collect(len(wanted), model.n_layers + 1)
    read_truncated(model, text, wanted, see, **how)
    return torch.stack(
        [torch.stack([found[d, c] for c in range(len(wanted))]) for d in range(model.n_layers + 1)]
    )


@pytest.mark.parametrize("positions", ["original", "shifted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_sweep_gives_every_length_as_one_run_for_each_would(family: str, positions: Positions) -> None:
    model = zoo.layered(family, flipped=True)
    ids = ids_of(TEXT)
    wanted = [*every_length([9, 10, 11, 12], 6), (20, 15), (20, 2)]

    found = truncated(model, full_run(model, ids), wanted, positions=positions, tokens_per_pass=40)

    for cell, (target, kept) in enumerate(wanted):
        start = target - kept + 1
        places = [0, *range(start, target + 1)] if positions == "original" else list(range(kept + 1))
        alone = plain_states(family, [0, *ids[start : target + 1]], places)[:, -1]
        torch.testing.assert_close(found[:, cell], alone, rtol=2e-4, atol=2e-4)


def test_a_family_without_position_ids_is_read_at_shifted_ones_only() -> None:
    model = zoo.layered("bloom", flipped=True)
    ids = ids_of(TEXT)
    text = full_run(model, ids)

    assert not takes_positions(model)
    with pytest.raises(LayerscopeError, match="takes no position ids"):
        truncated(model, text, [(9, 3)])
    found = truncated(model, text, [(9, 3)], positions="shifted")
    torch.testing.assert_close(
        found[:, 0], plain_states("bloom", [0, *ids[7:10]])[:, -1], rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize("family", [*FAMILIES, *WINDOWED, "recurrent_gemma"])
def test_changing_bos_changes_a_truncated_state(family: str) -> None:
    """The trap: without an explicit mask, transformers cuts BOS off at the jump of positions."""
    model = zoo.layered(family, flipped=True)
    ids = ids_of(TEXT)
    changed = [5, *ids[1:]]
    wanted = [(3, 2)]  # so early that windows of four still see BOS

    as_it_is, other = (truncated(model, full_run(model, text), wanted) for text in (ids, changed))

    assert (as_it_is[-1] - other[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", WINDOWED)
def test_windowed_layers_see_bos_only_where_the_full_run_does(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    ids = ids_of(TEXT)
    text = full_run(model, ids)
    window = 4

    found = truncated(model, text, [(12, 2), (2, 2)])

    assert text.masks
    windowed = sorted(text.masks)
    if len(windowed) == model.n_layers:  # Mistral: BOS must be out of sight everywhere
        changed = full_run(model, [5, *ids[1:]])
        other = truncated(model, changed, [(12, 2), (2, 2)])
        torch.testing.assert_close(found[:, 0], other[:, 0])
        assert (found[-1, 1] - other[-1, 1]).abs().max() > 1e-3
    # By hand, in a single windowed layer: what the state of target 12 becomes when BOS is not a key.
    layer = windowed[0]
    if layer == 0:
        masks = _hand_masks(ids, [0, 11, 12], window)
        alone = plain_states(family, [0, 11 * 0 + ids[11], ids[12]], [0, 11, 12], masks)
        torch.testing.assert_close(found[1, 0], alone[1, -1], rtol=2e-4, atol=2e-4)


def _hand_masks(ids: list[int], places: list[int], window: int) -> torch.Tensor:
    mask = torch.full((1, 1, len(places), len(places)), torch.finfo(torch.float32).min)
    for q, at in enumerate(places):
        for k, key in enumerate(places):
            if key <= at and key > at - window:
                mask[0, 0, q, k] = 0.0
    return mask


@pytest.mark.parametrize("family", [*WINDOWED, "recurrent_gemma"])
def test_keeping_all_tokens_gives_the_full_run(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    text = full_run(model, ids_of(TEXT))

    found = truncated(model, text, [(17, 17), (6, 6)])

    torch.testing.assert_close(found[:, 0], text.states[:, 17], rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(found[:, 1], text.states[:, 6], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "gemma2", "gpt_oss", "mistral", "gptj", "recurrent_gemma"]
)
def test_a_swapped_context_gives_the_states_of_the_spliced_text(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    ids, donor_ids = ids_of(TEXT), ids_of(OTHER)
    text, donor = (
        full_run(model, ids),
        full_run(model, donor_ids, keep=("k", "v") if family != "gptj" else ()),
    )
    wanted = [*every_length([9, 10], 4), (20, 1), (1, 1)]
    found, see = collect(len(wanted), 5)

    read_swapped(model, text, donor, wanted, see, tokens_per_pass=12)

    for cell, (target, kept) in enumerate(wanted):
        spliced = [*donor_ids[: target - kept + 1], *ids[target - kept + 1 : target + 1]]
        alone = plain_states(family, spliced)[:, -1]
        for depth in range(5):
            torch.testing.assert_close(found[depth, cell], alone[depth], rtol=3e-4, atol=3e-4)


def test_a_donor_that_is_too_short_is_refused() -> None:
    model = zoo.layered("gpt2")
    text, donor = full_run(model, ids_of(TEXT)), full_run(model, ids_of(OTHER)[:5], keep=("k", "v"))

    with pytest.raises(LayerscopeError, match="donor is too short"):
        read_swapped(model, text, donor, [(20, 1)], lambda *_: None)


@pytest.mark.parametrize("cell", [(0, 1), (30, 2), (5, 6), (5, 0)])
def test_cells_outside_of_the_text_are_refused(cell: tuple[int, int]) -> None:
    model = zoo.layered("gpt2")

    with pytest.raises(LayerscopeError, match="no such truncated context"):
        truncated(model, full_run(model, ids_of(TEXT)), [cell])


def test_moved_positions_are_those_that_were_asked_for() -> None:
    model = zoo.layered("gpt2", flipped=True)
    ids = ids_of(TEXT)

    moved = read_moved(model, ids, 7)

    alone = plain_states("gpt2", ids, [0, *range(8, len(ids) + 7)])
    torch.testing.assert_close(moved, alone, rtol=2e-4, atol=2e-4)


def test_the_sweep_runs_few_tokens_more_than_the_longest_length_alone() -> None:
    ids = list(range(700))
    targets = range(200, 600)

    def tokens(wanted: list[tuple[int, int]]) -> int:
        batches = passes(ids, wanted, positions="original", tokens_per_pass=2048)
        return sum(batch.ids.numel() for batch in batches)

    every, alone = tokens(every_length(targets, 100)), tokens([(target, 100) for target in targets])

    assert len(windows_for(every_length(targets, 100))) == 499
    assert every < 1.2 * alone


def test_no_pass_is_larger_than_it_may_be_and_every_cell_comes_once() -> None:
    wanted = [*every_length(range(50, 90), 30), *((target, 49) for target in range(60, 90, 7))]

    batches = list(passes(list(range(100)), wanted, positions="original", tokens_per_pass=128))

    assert all(batch.ids.numel() <= 128 for batch in batches)
    assert sorted(np.concatenate([batch.cells for batch in batches])) == list(range(len(wanted)))
    for batch in batches:
        for cell, row, column in zip(batch.cells, batch.rows, batch.columns, strict=True):
            target, kept = wanted[cell]
            assert batch.index[row, column] == target
            assert column == kept
