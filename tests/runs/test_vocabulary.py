"""Streaming over the vocabulary against a plain product, and removals against edited weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from layerscope import LayerscopeError, runs
from layerscope.models.load import load_model
from layerscope.models.projections import find_projections

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "bloom", "granite", "opt"]


def small(
    rows: int = 203, width: int = 12, directions: int = 9
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    allowed = torch.rand(rows, generator=generator) > 0.2
    return (
        torch.randn(directions, width, generator=generator),
        torch.randn(rows, width, generator=generator),
        allowed,
    )


@pytest.mark.parametrize("megabytes", [0.005, 0.02, 256])
def test_pieces_of_the_vocabulary_give_what_the_whole_product_gives(megabytes: float) -> None:
    directions, rows, allowed = small()

    found = runs.strongest_tokens(directions, rows, allowed=allowed, top=6, megabytes=megabytes)

    scores = (directions @ rows.T).numpy().astype(np.float64)
    scores[:, ~allowed.numpy()] = np.nan
    for row, one in enumerate(scores):
        order = np.argsort(one)[: int(allowed.sum())]
        assert found.tokens[row, 0].tolist() == order[::-1][:6].tolist()
        assert found.tokens[row, 1].tolist() == order[:6].tolist()
        standard = (one - np.nanmean(one)) / np.nanstd(one)
        np.testing.assert_allclose(found.scores[row, 0], standard[found.tokens[row, 0]], rtol=1e-4)
        np.testing.assert_allclose(found.scores[row, 1], standard[found.tokens[row, 1]], rtol=1e-4)
        assert float(found.largest[row]) == pytest.approx(np.nanmax(one), rel=1e-5)
        assert float(found.smallest[row]) == pytest.approx(np.nanmin(one), rel=1e-5)


def test_memory_that_holds_nothing_is_refused_with_what_is_needed() -> None:
    directions, rows, allowed = small(rows=500)

    with pytest.raises(LayerscopeError, match="so little memory") as refusal:
        runs.strongest_tokens(directions, rows, allowed=allowed, top=6, megabytes=0.001)

    assert "MB" in str(refusal.value)


@pytest.mark.parametrize("megabytes", [0.005, 256])
def test_tokens_near_a_subspace_do_not_depend_on_its_basis(megabytes: float) -> None:
    directions, rows, allowed = small()
    basis = torch.linalg.qr(directions[:4].T)[0].T
    mixed = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(4)))[0] @ basis[1:3]
    groups = torch.tensor([0, 1, 1, -1])

    first, second = (
        runs.strongest_tokens(given, rows, allowed=allowed, top=5, megabytes=megabytes, groups=groups)
        for given in (basis, torch.stack([basis[0], *mixed, basis[3]]))
    )
    found, lengths, again = first.together, first.lengths, second.together

    assert found.shape == (2, 5)
    assert torch.equal(found, again)
    projected = (rows @ basis[1:3].T).norm(dim=1).masked_fill(~allowed, -1)
    assert found[1].tolist() == projected.topk(5).indices.tolist()
    torch.testing.assert_close(lengths[1], projected.topk(5).values)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2"])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_written_direction_meets_tokens_as_the_unembedding_has_it(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    rows = runs.token_rows(model, "unembedding")
    directions = torch.randn(3, model.facts.width, generator=torch.Generator().manual_seed(0))

    scores = runs.towards_tokens(directions, rows, fold=False) @ rows.rows.T

    states: Any = directions
    for module in model.structure.after:
        if getattr(module, "weight", torch.empty(0)).dim() == 2:
            states = module(states) - module(torch.zeros_like(states))
    torch.testing.assert_close(scores, states, atol=1e-4, rtol=1e-4)


def test_folding_the_final_norm_gives_the_logits_of_a_long_step_along_the_direction() -> None:
    model = zoo.layered("gpt2")
    rows = runs.token_rows(model, "unembedding")
    direction = torch.randn(1, model.facts.width, generator=torch.Generator().manual_seed(2))

    scores = runs.towards_tokens(direction, rows, fold=True) @ rows.rows.T

    step = model.unembed(1e4 * direction) - model.unembed(-1e4 * direction)
    assert float(torch.corrcoef(torch.cat([scores, step]))[0, 1]) > 1 - 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_removing_a_direction_equals_editing_the_weights(family: str) -> None:
    model = zoo.layered(family)
    layer, head = 1, 2
    ids = torch.tensor([[5, 17, 250, 33, 90]])
    projections = find_projections(model, layer)
    heads, (mlp,) = projections.heads, projections.mlps
    assert heads is not None
    direction = torch.randn(model.facts.width, generator=torch.Generator().manual_seed(0))
    direction /= direction.norm()
    with runs.without_head_direction(model, layer, heads, head, direction):
        less_head = model.logits(ids)
    with runs.without_mlp_direction(model, layer, mlp, direction):
        less_mlp = model.logits(ids)
    plain = model.logits(ids)

    out = torch.eye(len(direction)) - torch.outer(direction, direction)
    for names, edited, rows in (
        ("head", less_head, slice(head * heads.output.shape[1], (head + 1) * heads.output.shape[1])),
        ("mlp", less_mlp, slice(None)),
    ):
        again = load_model(copy.deepcopy(model.module), tokenizer=zoo.tokenizer())
        found = find_projections(again, layer)
        module: Any = found.heads.output_map if names == "head" and found.heads else found.mlps[0].output_map
        with torch.no_grad():
            sideways = family == "gpt2"  # Conv1D keeps its weights as they multiply
            weight = module.weight if sideways else module.weight.T
            weight[rows] = weight[rows] @ out
        torch.testing.assert_close(edited, again.logits(ids), atol=2e-4, rtol=1e-3)
        assert float((edited - plain).abs().max()) > 1e-3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
