"""Predictions in blocks of the vocabulary against whole logits in float64, on families that map their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

import zoo
from layerscope.models.layered import LayeredModel
from layerscope.runs import Predictions, Reference, predictions

# Soft caps, scales, biases (GPT-J, Phi), and plain ones, with and without tied weights.
FAMILIES = ["gpt2", "llama", "gemma2", "granite", "cohere", "gptj", "phi"]
RUNS, READS = 4, 3


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that cut both rows and vocabulary, the last of each being shorter."""
    monkeypatch.setattr(predictions, "_ROWS", 5)
    monkeypatch.setattr(predictions, "_COLUMNS", 48)


def states_of(model: LayeredModel, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(RUNS, READS, model.facts.width, generator=generator)


def by_hand(model: LayeredModel, states: Tensor) -> np.ndarray:
    """ln p of every token [row vocabulary]."""
    return np.asarray(log_softmax(model.unembed(states).flatten(0, 1).double().numpy(), axis=-1))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("whole", [False, True], ids=["states", "logits"])
def test_what_is_read_in_blocks_is_what_whole_logits_say(family: str, whole: bool) -> None:
    model = zoo.layered(family, flipped=True)
    states, others = states_of(model, 1), states_of(model, 2)[0]
    logs, p = by_hand(model, states), by_hand(model, others[None])
    tokens = torch.tensor([[row * 7 % zoo.VOCABULARY, -1, 319] for row in range(RUNS * READS)])
    rows_of = torch.arange(RUNS * READS) % READS
    given: dict[str, Any] = {"logits": model.unembed(states)} if whole else {"states": states}

    found = Predictions(model, **given).read(
        tokens=tokens, top=True, rank=True, against=Reference(model, model.unembed(others)), rows_of=rows_of
    )

    expected = np.take_along_axis(logs, tokens.clamp_min(0).numpy(), axis=1)
    np.testing.assert_allclose(found.log_probability[:, [0, 2]], expected[:, [0, 2]], atol=2e-5)
    assert found.log_probability[:, 1].isnan().all()
    np.testing.assert_array_equal(found.top, logs.argmax(-1))
    np.testing.assert_array_equal(found.rank, 1 + (logs > expected[:, :1]).sum(-1))
    assert len(set(found.rank.tolist())) > 3
    kl = (np.exp(p[rows_of]) * (p[rows_of] - logs)).sum(-1)
    assert kl.min() > 1e-3
    np.testing.assert_allclose(found.divergence, kl, rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("small_blocks")
def test_no_more_than_a_block_of_logits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama")
    sizes: list[int] = []
    made = torch.nn.functional.linear

    def linear(*arguments: Any) -> Tensor:
        out = made(*arguments)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    reference = Reference(model, model.unembed(states_of(model, 2)[0]))
    sizes.clear()
    said = Predictions(model, states=states_of(model, 1))
    said.read(
        tokens=torch.zeros(RUNS * READS, 1, dtype=torch.long),
        against=reference,
        rows_of=torch.zeros(12).long(),
    )

    assert max(sizes) == 5 * 48
    assert sum(sizes) == RUNS * READS * zoo.VOCABULARY


@pytest.mark.usefixtures("small_blocks")
def test_a_hook_on_the_unembedding_is_obeyed() -> None:
    model = zoo.layered("llama")
    states, token = states_of(model, 1), torch.full((RUNS * READS, 1), 7)
    before = Predictions(model, states=states).read(tokens=token)

    def add(module: Any, args: Any, output: Tensor) -> Tensor:
        return output + 5 * (torch.arange(output.shape[-1]) == 7)

    handle = model.structure.after[-1].register_forward_hook(add)
    try:
        after = Predictions(model, states=states).read(tokens=token)
    finally:
        handle.remove()

    np.testing.assert_allclose(after.logits, before.logits + 5, atol=1e-4)
    assert bool((after.log_probability > before.log_probability + 0.1).all())


def test_of_equally_probable_tokens_the_first_is_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_COLUMNS", 48)
    model = zoo.layered("llama")

    tokens = torch.tensor([[0], [300], [7]])  # of as probable ones, one beyond the first block
    said = Predictions(model, states=torch.zeros(1, 3, model.facts.width))
    found = said.read(tokens=tokens, top=True, rank=True)

    assert found.top.tolist() == [0, 0, 0]
    assert found.rank.tolist() == [1, 2, 2]


def test_some_rows_alone_say_the_same() -> None:
    model = zoo.layered("gpt2")
    states, tokens = states_of(model, 1), torch.arange(RUNS * READS)[:, None]
    rows = torch.tensor([7, 0, 11])
    for given in ({"states": states}, {"logits": model.unembed(states)}):
        said = Predictions(model, **given)
        whole, some = said.read(tokens=tokens), said.only(rows).read(tokens=tokens[rows])
        np.testing.assert_allclose(some.log_probability, whole.log_probability[rows], atol=1e-5)


def test_numbers_of_whole_logits_are_taken_some_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("gemma2", flipped=True)
    states = states_of(model, 1)
    monkeypatch.setattr(predictions, "_LOGITS_AT_ONCE", 2 * READS * zoo.VOCABULARY)
    held: list[int] = []

    def number(logits: Tensor) -> Tensor:
        held.append(len(logits))
        return logits[:, -1, 3]

    found = Predictions(model, states=states).of_logits(number)

    assert held == [2, 2]
    np.testing.assert_allclose(found, model.unembed(states)[:, -1, 3], atol=1e-6)
