"""What a run costs by a configuration alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerscope import LayerscopeError
from layerscope.jobs.config_plan import SECONDS_A_LAYER, Means, cost_of
from layerscope.jobs.listing import lines_of_cost, lines_of_costs
from layerscope.jobs.prepare import prepare
from layerscope.jobs.request import Request
from layerscope.runs.memory_limits import Limit
from quick import Command

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
"""As published with Llama 3 8B."""

_LAYER = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    (tmp_path / "llama-3-8b").mkdir()
    (tmp_path / "llama-3-8b" / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return tmp_path / "llama-3-8b"


def test_a_configuration_tells_operations_and_bytes_without_weights(llama: Path) -> None:
    cost = cost_of(Request("hidden_states", model=str(llama), limit=3))

    assert cost.facts.n_parameters == 8_030_261_248  # as published
    assert cost.facts.layer_parameters == _LAYER
    assert cost.weight_bytes == 4 * 8_030_261_248
    tokens = cost.operations / (2 * 32 * _LAYER)
    assert tokens == pytest.approx(round(tokens))  # nothing but whole passes
    assert not cost.own_tokens
    assert cost_of(Request("hidden_states", model=str(llama / "config.json"), limit=3, dtype="bfloat16")) == (
        type(cost)(**{**vars(cost), "weight_bytes": cost.weight_bytes // 2})
    )


def test_seconds_are_operations_at_the_stated_speed_shared_by_devices(llama: Path) -> None:
    cost = cost_of(Request("causal_trace", model=str(llama), limit=3, dtype="bfloat16"))
    fast = Means.of(cost, 0, None, speed=990e12, devices=8)
    slow = Means.of(cost, 0, None, speed=990e9, devices=8)
    fixed = sum(stage.items * 32 * SECONDS_A_LAYER / min(8, stage.items) for stage in cost.stages)

    assert fast.limit is None  # of another machine, nothing is known
    assert cost.seconds(slow) - fixed == pytest.approx(1000 * (cost.seconds(fast) - fixed))
    assert "about" in next(lines_of_cost(cost, fast))


def test_whether_this_machine_holds_the_model_is_answered(llama: Path) -> None:
    cost = cost_of(Request("hidden_states", model=str(llama), limit=3))

    def says(gigabytes: float) -> list[str]:
        return list(
            lines_of_costs([cost], Means(5e10, 1, Limit(int(gigabytes * 1e9), "this machine"), held=1))
        )

    assert "this machine gives 25.0 GB: it does not fit" in says(25)
    assert "this machine gives 64.0 GB: it fits" in says(64)


def test_the_bundled_model_costs_the_same_by_its_configuration_as_by_its_weights() -> None:
    asked = Request("hidden_states", model="bundled", limit=2, bos="always")  # "auto" asks the weights
    job = prepare(asked)
    by_weights = [
        sum(item.size for item in stage.items(job.inputs, job.settings, {}))
        for stage in job.experiment.stages
    ]

    assert [stage.operations for stage in cost_of(asked).stages] == pytest.approx(by_weights)
    assert cost_of(asked).own_tokens


def test_the_command_answers_and_says_what_is_refused(llama: Path, command: Command) -> None:
    out = command(
        "plan", "hidden_states", "--model", str(llama), "--config-only", "--speed", "990e12", "--devices", "8"
    )

    assert out.code == 0
    assert "operations" in out.out
    assert "64" not in out.err
    assert not list(llama.parent.glob("runs*"))

    missing = command("plan", "hidden_states", "--model", str(llama.parent), "--config-only")
    assert missing.code == 2
    assert "there is no configuration to plan from" in missing.err

    without = command("plan", "hidden_states", "--speed", "1e12")
    assert without.code == 2
    assert "--config-only" in without.err


def test_what_is_no_configuration_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing of that name"}')

    with pytest.raises(LayerscopeError, match="no model can be built from this configuration"):
        cost_of(Request("hidden_states", model=str(tmp_path)))
