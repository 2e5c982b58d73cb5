"""What differs only beyond the few tokens of the load check is found at the length of the texts."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.attention import AttentionCall
from layerscope.models.lengths import check_length, prefixes_hold_to
from layerscope.models.load import load_model
from layerscope.models.sites import THROUGH_ATTENTION
from layerscope.runs import branch_check
from layerscope.runs.branch_check import EDGE, NAME, check_branches
from layerscope.runs.windows import full_run

FEW = 16


def test_attention_that_goes_wrong_beyond_a_length_is_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = AttentionCall.shares
    monkeypatch.setattr(
        AttentionCall,
        "shares",
        lambda call, scores: shares(call, scores * (1.1 if scores.shape[-1] > FEW else 1)),
    )
    model = zoo.layered("llama")

    check_length(model, FEW)
    assert model.refused == {}
    check_length(model, 40)
    assert set(model.refused) == set(THROUGH_ATTENTION)
    assert "40 tokens" in model.refused["pattern"]


def test_branches_that_go_wrong_beyond_a_length_are_refused_there() -> None:
    model = zoo.layered("llama")

    def mix(module: object, args: object, output: Tensor) -> Tensor:
        before = torch.nn.functional.pad(output, (0, 0, 1, 0))[:, :-1]
        return output + before if output.shape[1] > FEW else output

    model.blocks[1].mlp.register_forward_hook(mix)

    check_branches(model)
    assert "branches" not in model.refused
    check_branches(model, 40)
    assert "logits differ" in model.refused["branches"]
    assert [check["name"] for check in model.checks if not check["holds"]] == [f"{NAME} at 40 tokens"]


def test_a_cut_that_cuts_nothing_refuses_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    attend_from = branch_check.attend_from
    monkeypatch.setattr(branch_check, "attend_from", lambda *given, edits, **how: attend_from(*given, **how))
    model = zoo.layered("gpt_oss", flipped=True)

    check_branches(model)

    assert "without one edge differ" in model.refused["pattern"]
    assert next(check["holds"] for check in model.checks if check["name"] == EDGE) is False


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "mistral", "mixtral", "doge"])
def test_families_that_are_right_at_every_length_are_refused_nothing_more(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    check_branches(model)
    before = dict(model.refused)

    check_length(model, 60)
    check_branches(model, 60)

    assert model.refused == before
    assert model.prefixes_to is None


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (lambda output: output + output.mean(1, keepdim=True), "looks ahead at 40 tokens"),
        (lambda output: output * len(output), "gives other states in a batch at 40 tokens"),
    ],
)
def test_a_model_that_goes_wrong_beyond_a_length_is_refused_there(
    fault: Callable[[Tensor], Tensor], problem: str
) -> None:
    model = zoo.layered("llama")
    model.blocks[1].mlp.register_forward_hook(
        lambda module, args, output: fault(output) if output.shape[1] > FEW else output
    )

    check_length(model, FEW)
    assert model.refused == {}
    with pytest.raises(LayerscopeError, match=problem):
        check_length(model, 40)


def at_the_end(fault: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A fault of the last token alone."""
    return lambda output: torch.cat([output[:, :-1], fault(output)[:, -1:]], dim=1)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_that_a_batch_changes_at_the_last_token_alone_are_refused(
    family: str, dtype: torch.dtype
) -> None:
    model = load_model(zoo.make(family).to(dtype), tokenizer=zoo.tokenizer())
    batch_matters = at_the_end(lambda output: output * 9 ** (len(output) - 1))
    model.blocks[1].mlp.register_forward_hook(
        lambda module, args, output: batch_matters(output) if output.shape[1] > FEW else output
    )

    with pytest.raises(LayerscopeError, match="gives other states in a batch at 40 tokens"):
        check_length(model, 40)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_last_token_that_is_read_in_another_way_limits_what_prefixes_hold(family: str) -> None:
    model = zoo.layered(family)
    wrong = at_the_end(lambda output: output * 2)
    model.blocks[1].mlp.register_forward_hook(
        lambda module, args, output: wrong(output) if output.shape[1] > FEW else output
    )

    check_length(model, 40)

    assert model.prefixes_to == FEW + 1


def test_only_a_model_without_experts_must_agree_at_every_token_before_the_last() -> None:
    for family, refused in (("llama", True), ("mixtral", False)):
        model = zoo.layered(family)

        def at_one(module: object, args: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, 30:31] *= len(output) if output.shape[1] == 60 else 1
            return output

        model.blocks[-1].mlp.register_forward_hook(at_one)
        with pytest.raises(LayerscopeError, match="in a batch") if refused else nullcontext():
            check_length(model, 60)


def test_what_a_model_raises_at_a_length_becomes_a_refusal() -> None:
    model = zoo.layered("llama")

    def fail(module: object, args: object, output: Tensor) -> None:
        if output.shape[1] > FEW:
            raise ZeroDivisionError("only here")

    model.blocks[2].register_forward_hook(fail)

    with pytest.raises(LayerscopeError, match="ZeroDivisionError: only here"):
        check_length(model, 40)


def test_a_check_that_raises_refuses_only_the_sites_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.models import check_blocks

    def fail(*_: object) -> None:
        raise KeyError("nobody expected this")

    monkeypatch.setattr(check_blocks, "find_addition", fail)
    model = zoo.layered("llama")

    assert set(model.refused) == {"attn_out", "mlp_out"}
    assert "nobody expected this" in model.refused["mlp_out"]


def test_states_of_a_text_beyond_the_context_are_not_taken_for_those_of_its_beginning() -> None:
    """Where positions go on beyond the context they may be others (dynamic NTK), and nothing has tried them."""
    model = zoo.layered("llama")

    assert prefixes_hold_to(model, 80) == 64
    with pytest.raises(LayerscopeError, match="longer than the context"):
        full_run(model, [0, *range(2, 70)])
