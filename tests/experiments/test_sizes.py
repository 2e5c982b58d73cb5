"""Sizes of work items are operations: those that torch counts while the items are measured."""

from __future__ import annotations

from functools import cache, reduce
from typing import Any

import pytest
import torch
import xarray as xr
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from layerscope import experiments
from layerscope.jobs.forecast import expected_sizes
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.request import Request
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.results.combine import concatenate

_WITHIN = (0.7, 1.35)
_FEW = {
    "attention_knockout": {"cut_passages": 2, "cut_prompts": 8},
    "causal_trace": {"samples": 3, "smallest_range": 1e-9},
    "context_reading": {"cut_passages": 2},
    "first_token_attention": {"texts": 2},
    "future_use": {"corrupted_passages": 2},
    "layer_ablation": {"ablated_passages": 2, "mean_passages": 2},
    "trigger_examples": {"keys_per_layer": 4},
    "truncated_context": {"cut_passages": 2},
    "weight_directions": {"directions": 50, "random_directions": 200, "rotations": 8},
    "word_position_probe": {"train_prompts": 40, "test_prompts": 20},
}
_TIMED = {
    "logit_lens": {"passages", "prompts", "shown"},
    "syntax_probe": {"words", "fits", "passages", "labels"},
    "trigger_examples": {"census", "contexts", "topics"},
    "weight_directions": {"vocabulary", "power", "directions", "untrained", "edits"},
    "word_formation": {"design", "erasure"},
    "word_position_probe": {"design", "probe", "scores", "looks", "directions", "moves"},
}
"""Stages whose work is not matrix products alone: their sizes are of the time that it takes, seen by trying."""

_PROMPTS = [
    {"prompt": "Anna and the red fox went to the old town by the river", "subject": "red fox", "answer": ""},
    {"prompt": "the small bird sang to the old dog in the town", "subject": "bird", "answer": ""},
]


@cache
def _model(name: str) -> LayeredModel:
    bundled = load_model("bundled")
    if name == "bundled":
        return bundled
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 5}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=4096, max_position_embeddings=512, **shape, **heads)
    return load_model(LlamaForCausalLM(config), tokenizer=bundled.tokenizer)


def _job(experiment: str, model: str) -> Job:
    takes = experiments.load(experiment).takes
    texts: dict[str, Any] = {"passages": "world"} if "passages" in takes else {}
    texts |= {"prompts": _PROMPTS} if "prompts" in takes else {}
    few = Request(
        experiment, model=_model(model), limit=2, longest=96, settings=_FEW.get(experiment, {}), **texts
    )
    return prepare(few)


def _counted(job: Job) -> dict[str, tuple[float, float]]:
    """Operations that torch counts, and the sizes of the items, by stage."""
    earlier: dict[str, xr.Dataset] = {}
    found = {}
    for stage in job.experiment.stages:
        items = list(stage.items(job.inputs, job.settings, earlier))
        for item in items[:1]:  # whose lengths are tried, once in a process
            stage.measure(job.model, item, job.settings, earlier)
        with FlopCounterMode(display=False) as counter:
            parts = [stage.measure(job.model, item, job.settings, earlier) for item in items]
        if items:
            found[stage.name] = counter.get_total_flops(), sum(item.size for item in items)
        folded = reduce(stage.combine, parts) if stage.combine and parts else None
        earlier[stage.name] = folded if folded is not None else _laid(parts, stage.along)
    return found


def _laid(parts: list[xr.Dataset], along: tuple[str, ...]) -> xr.Dataset:
    return concatenate(parts, along=along) if parts else xr.Dataset()


def _check(experiment: str, model: str) -> None:
    job = _job(experiment, model)
    counted = _counted(job)
    assert counted
    for stage, (operations, size) in counted.items():
        if stage not in _TIMED.get(experiment, set()):
            assert _WITHIN[0] < operations / size < _WITHIN[1], (
                f"{stage}: {operations:.3g} counted, {size:.3g} said"
            )


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSCOPE_STATE_CACHE", "off")  # what it holds is not computed


@pytest.mark.parametrize("model", [pytest.param("bundled", marks=pytest.mark.slow), "llama"])
@pytest.mark.parametrize("experiment", ["causal_trace", "attention_knockout", "layer_ablation"])
def test_sizes_are_the_operations_that_torch_counts(experiment: str, model: str) -> None:
    _check(experiment, model)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bundled", "llama"])
@pytest.mark.parametrize(
    "experiment", sorted(set(experiments.names()) - {"causal_trace", "attention_knockout", "layer_ablation"})
)
def test_sizes_of_every_other_experiment_are_too(experiment: str, model: str) -> None:
    _check(experiment, model)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", experiments.names())
def test_every_stage_can_be_told_before_anything_is_measured(experiment: str) -> None:
    """All but what rests on other programs and folders; a forecast of the whole run needs it."""
    job = _job(experiment, "bundled")

    unknown = [
        name
        for name, sizes in expected_sizes(job.experiment, job.inputs, job.settings).items()
        if sizes is None
    ]

    assert unknown in ([], ["answers"])
