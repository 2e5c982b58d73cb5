"""How many tokens go through a block at once."""

import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

import zoo
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.runs import budget, memory_limits


def test_the_bound_is_a_power_of_two_that_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama")
    one = budget.bytes_per_token(model)
    assert budget.tokens_per_pass(model) == 2048

    monkeypatch.setattr(budget, "memory_bytes", lambda device: 4 * 300 * one)

    assert budget.tokens_per_pass(model) == 256  # the largest power of two below 300


def test_little_memory_still_leaves_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "memory_bytes", lambda device: 1)

    assert budget.tokens_per_pass(zoo.layered("llama")) == 64


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/made/run\n", "made/run/memory.max"),
        ("0::/made/run\n", "made/memory.max"),  # of a group above
        ("0::/\n", "memory.max"),
        ("4:cpu,memory:/made\n0::/\n", "memory/made/memory.limit_in_bytes"),  # version 1
    ],
)
def test_the_control_groups_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, membership: str, file: str
) -> None:
    limit, own = tmp_path / "groups" / file, tmp_path / "cgroup"
    monkeypatch.setattr(memory_limits, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory_limits, "_MEMBERSHIP", own)
    own.write_text(membership)
    limit.parent.mkdir(parents=True)
    limit.write_text("max\n")
    free = budget.memory_bytes(torch.device("cpu"))
    limit.write_text("1000000\n")

    assert free > 1_000_000
    assert budget.memory_bytes(torch.device("cpu")) == 1_000_000
    assert memory_limits.memory_limit() == memory_limits.Limit(1_000_000, "this process's control group")


def test_a_limit_on_address_space_is_told_but_does_not_cut_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1_000_000, 2_000_000))

    assert memory_limits.memory_limit().whose == "this process's limit on address space (ulimit -v)"
    assert budget.memory_bytes(torch.device("cpu")) > 1_000_000


def test_a_run_that_runs_out_of_memory_goes_on_and_keeps_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = zoo.layered("llama")
    prompts = [{"prompt": "the red *fox* met the old dog in the town of", "answer": ""}]
    settings = {"samples": 4, "noise": "9sd", "smallest_range": 1e-9}
    whole = running.run(
        prepare(Request("causal_trace", model=model, prompts=prompts, settings=settings)),
        tmp_path / "a",
        Silent(),
    )
    block = type(model.blocks[1])
    forward = block.forward

    def limited(self: object, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        if hidden_states.shape[0] * hidden_states.shape[1] > 300:
            raise torch.OutOfMemoryError("injected")
        out: Tensor = forward(self, hidden_states, *args, **kwargs)
        return out

    monkeypatch.setattr(block, "forward", limited)
    halved = running.run(
        prepare(Request("causal_trace", model=model, prompts=prompts, settings=settings)),
        tmp_path / "b",
        Silent(),
    )

    assert any("memory ran out in stage trace" in note for note in halved.record.notes)
    torch.testing.assert_close(
        torch.tensor(halved.result().restored_probability.values),
        torch.tensor(whole.result().restored_probability.values),
        rtol=0,
        atol=1e-6,
    )
