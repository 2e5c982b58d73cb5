"""Branches against the plain path: every family, every kind of edit, every position."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.runs import patching
from layerscope.runs._packing import chunks
from layerscope.runs.branch_check import NAME, check_branches
from layerscope.runs.edits import Branch, Cut, Put
from layerscope.runs.noise import gaussian_noise
from layerscope.runs.patching import run_patched
from layerscope.runs.recordings import BaseRun

IDS = [0, 17, 93, 140, 17, 255, 201, 33]
NOISED = (2, 3)
LAST = len(IDS) - 1
FAMILIES = (
    *("gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("phi", "phi3", "opt", "olmo", "olmo2", "starcoder2", "stablelm", "granite", "smollm3", "cohere"),
    "gpt_oss",
)


def edits_of_every_kind(model: LayeredModel) -> Iterator[Branch]:
    """States, windows of outputs, severed variants, heads, q, k, v and edges, at all positions."""
    layers = model.n_layers
    every = tuple(range(layers))
    for token in range(NOISED[0], len(IDS)):
        for row in (0, 1):
            for depth in range(layers + 1):
                yield Branch((Put("state", (depth,), (token,)),), row)
            for layer in range(layers):
                pick = (token + layer) % 3
                yield Branch((Put(("q", "k", "v")[pick], (layer,), (token,)),), row)
                yield Branch((Put("head_out", (layer,), (token,), heads=(pick,)),), row)
                lost = ("renormalise", "first", "mean")[pick]
                keys = (0, 1) if lost == "mean" else (1, min(token, 2))
                yield Branch((Cut((layer,), (token,), keys, heads=None if pick else (1, 2), lost=lost),), row)
                if "attn_out" in model.refused:
                    continue
                window = tuple(range(layer, min(layer + 2, layers)))
                for site in ("attn_out", "mlp_out"):
                    yield Branch((Put(site, window, (token,)),), row)
                    yield Branch((Put("state", (layer,), (token,)), Put(site, every, (token,), "base")), row)
    yield Branch((), 1)
    yield Branch(
        (
            Put("state", (1,), (2, 5)),
            Put("mlp_out", (2,), (4,)) if "mlp_out" not in model.refused else Cut((2,), (4,), (1,)),
        )
    )


def both_paths(model: LayeredModel, branches: list[Branch], **choices: int) -> tuple[Tensor, Tensor]:
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=2, width=model.facts.width, sd=1.5)
    generator = torch.Generator().manual_seed(0)
    heads, width = _head_shape(model)
    fast, whole = (
        run_patched(
            model,
            branches,
            base=BaseRun.of(IDS, noise, NOISED),
            other=BaseRun.of(IDS),
            read=lambda said, _: said.logits().float().softmax(-1),
            mean_values=[
                torch.randn(heads, width, generator=generator.manual_seed(layer))
                for layer in range(model.n_layers)
            ],
            plain=plain,
            **choices,
        )
        for plain in (False, True)
    )
    return fast, whole


def _head_shape(model: LayeredModel) -> tuple[int, int]:
    from layerscope.models.sites import Site
    from layerscope.runs.reading import read_sites

    site = Site("head_out", model.n_layers - 1)
    shape = read_sites(model, IDS, [site])[site].shape
    return shape[0], shape[2]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flipped", [False, True], ids=["default", "flipped"])
def test_branches_equal_whole_forward_passes(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)

    fast, whole = both_paths(model, list(edits_of_every_kind(model)), tokens_per_pass=300)

    assert "branches" not in model.refused
    assert float((fast - whole).abs().max()) < 1e-5
    assert float((whole.max(0).values / whole.min(0).values).max()) > 1.2  # the edits matter


def test_several_read_positions_and_rows_of_the_other_run() -> None:
    model = zoo.layered("gemma2", flipped=True)
    noise = gaussian_noise(3, prompt="a", positions=NOISED, samples=3, width=model.facts.width, sd=1.5)
    branches = [
        Branch((Put("state", (depth,), (token,)),), 0, other_row)
        for token in (2, 5, LAST - 1, LAST)
        for depth in range(model.n_layers + 1)
        for other_row in range(3)
    ]

    fast, whole = (
        run_patched(
            model,
            branches,
            base=BaseRun.of(IDS),
            other=BaseRun.of(IDS, noise, NOISED),
            read=lambda said, _: said.logits().float().softmax(-1),
            read_last=3,
            plain=plain,
        )
        for plain in (False, True)
    )

    assert fast.shape[:2] == (len(branches), 3)
    assert float((fast - whole).abs().max()) < 1e-5


def test_recordings_are_made_in_turns_where_many_rows_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama")
    branches = [Branch((Put("state", (1,), (token,)),), row) for token in (2, 4) for row in (1, 0)]
    at_once, _ = both_paths(model, branches)

    monkeypatch.setattr(patching, "RECORDING_BYTES", 1)
    in_turns, whole = both_paths(model, branches)

    torch.testing.assert_close(in_turns, at_once, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, at_once, rtol=0, atol=1e-6)


def test_too_little_memory_halves_the_pass_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama")
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth in range(4) for token in range(2, 8)]
    reference, _ = both_paths(model, branches, tokens_per_pass=64)
    check_branches(model)
    block = model.blocks[1]
    forward = type(block).forward

    def limited(self: object, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        if hidden_states.shape[0] * hidden_states.shape[1] > 20:
            raise torch.OutOfMemoryError("injected")
        out: Tensor = forward(self, hidden_states, *args, **kwargs)
        return out

    monkeypatch.setattr(type(block), "forward", limited)
    halved, _ = both_paths(model, branches, tokens_per_pass=64)

    assert model.halvings[:2] == [32, 16]
    torch.testing.assert_close(halved, reference, rtol=0, atol=1e-6)


def test_the_chunk_plan_is_a_function_of_branches_and_budget_and_covers_everything_once() -> None:
    branches = [
        Branch((Put("state", (depth,), (token,)),), row)
        for token in range(2, 8)
        for depth in range(5)
        for row in range(3)
    ]
    starts = [branch.starts(8) for branch in branches]

    plan = list(chunks(branches, 4, starts, 8, 40))

    assert plan == list(chunks(branches, 4, starts, 8, 40))
    assert sorted(index for chunk in plan for index in chunk) == list(range(len(branches)))
    assert all(sum(8 - starts[index] for index in chunk) <= 40 for chunk in plan)
    joins = [branches[index].joins(4) for chunk in plan for index in chunk]
    assert joins == sorted(joins)


@pytest.mark.parametrize(
    ("family", "because"),
    [("gptj", "attention"), ("bloom", "attention"), ("recurrent_gemma", "without attention")],
)
def test_what_branches_cannot_serve_takes_the_plain_path_by_the_check(family: str, because: str) -> None:
    model = zoo.layered(family)
    branches = [Branch((Put("state", (depth,), (3,)),)) for depth in range(model.n_layers)]

    fast, whole = (
        run_patched(
            model,
            branches,
            base=BaseRun.of(IDS),
            other=BaseRun.of([*IDS[:3], 77, *IDS[4:]]),
            read=lambda said, _: said.logits().float().softmax(-1),
            plain=plain,
        )
        for plain in (False, True)
    )

    assert because in model.refused["branches"]
    assert torch.equal(fast, whole)


def test_tokens_mixed_outside_of_attention_are_noticed() -> None:
    """A block that also adds the state of the token before: branches carry too little to know it."""
    model = zoo.layered("llama")

    def mix(module: object, args: object, output: Tensor) -> Tensor:
        return output + torch.nn.functional.pad(output, (0, 0, 1, 0))[:, :-1]

    model.blocks[1].mlp.register_forward_hook(mix)
    check_branches(model)

    assert "logits differ" in model.refused["branches"]
    assert next(check for check in model.checks if check["name"] == NAME)["holds"] is False


def test_flipped_experts_are_counted() -> None:
    model = zoo.layered("mixtral")
    check_branches(model)

    detail = next(check["detail"] for check in model.checks if check["name"] == NAME)
    assert "0 of 7 expert choices flipped" in detail  # branches at depths 0, 2 and 3 of 4 blocks


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Put("state", (5,), (2,)), "no such depth"),
        (Put("mlp_out", (4,), (2,)), "no such layer"),
        (Put("state", (1,), (8,)), "no such token"),
        (Put("state", (), (2,)), "changes nothing"),
        (Put("attn_out", (1,), (2,), heads=(0,)), "has no heads"),
        (Cut((1,), (2,), (0, 1, 2)), "nothing to read"),
        (Cut((1,), (5,), (0,), lost="first"), "first token cannot take"),
    ],
)
def test_edits_outside_of_the_model_are_refused(edit: Put | Cut, message: str) -> None:
    with pytest.raises(LayerscopeError, match=message):
        both_paths(zoo.layered("llama"), [Branch((edit,))])


def test_a_model_without_added_vectors_refuses_windows_by_name() -> None:
    model = zoo.layered("opt", flipped=True)  # norms behind the sum

    with pytest.raises(LayerscopeError, match="attn_out is not available"):
        both_paths(model, [Branch((Put("attn_out", (1,), (2,)),))])
