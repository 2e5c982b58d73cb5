"""Synthetic runs of the experiment in trial_experiments/, with hostile texts in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from layerscope.results.escaping import stored
from layerscope.results.record import Asked, Machine, RunRecord, StageRecord
from layerscope.results.schema import quantity, write_json
from layerscope.results.store import RunFolder

HOSTILE = "<script>alert(1)</script><b> &lt; <extra> %{y} \u202e \x07 \ud800"
TRIALS = Path(__file__).parent / "trial_experiments"


MakeRun = Callable[..., RunFolder]


def made_record(experiment: str, **asked: object) -> RunRecord:
    given = {
        "experiment": experiment,
        "settings": {"seed": 0, "noise": "3sd", "samples": 10, "window": [1]},
        "model": "models/english-12l",
        "loadable": True,
        "revision": None,
        "weights": "5f" * 32,
        "tokenizer": "a1" * 32,
        "bos": {"policy": "auto", "prepended": True},
        "chat": False,
        "texts": "0c" * 32,
        "device": "cpu",
        "dtype": "float32",
    }
    return RunRecord(
        state="complete",
        asked=Asked.model_validate(given | asked),
        machine=Machine(
            processor="two cores",
            device_name="cpu",
            threads=2,
            environment={"OMP_NUM_THREADS": "2"},
            versions={"torch": "2.13.0", "transformers": "5.23.0"},
            code="9b" * 32,
        ),
        facts={"name": "english-12l", "n_layers": 12, "n_parameters": 12345678},
        named={"prompts": "english"},
        chunk_plan={"branches": 64},
        checks=[
            {"name": "weights are finite", "holds": True, "detail": "12,345,678 parameters"},
            {"name": "additions", "holds": False, "detail": "post-norm residuals"},
        ],
        stages={"trace": StageRecord(items=9, size=9.0, seconds=75.0)},
        created="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:05:20+00:00",
        seconds=75.0,
        peak_bytes=3 * 2**29,
        notes=["resumed once"],
    )


def logistic(middle: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(middle - np.arange(13))))


def made_result() -> xr.Dataset:
    """The shape of a causal trace: 12 blocks, three categories, 30 prompts, two of them left out."""
    categories, middles = ["phrases", "facts", stored("<b>other</b> %{y}")], [5.2, 7.8, 3.9]
    draws = np.random.default_rng(0)
    value = np.stack([np.stack([1 - logistic(m - 0.5), logistic(m)]) for m in middles])
    prompts = [
        *(f"prompt {place}" for place in range(28)),
        stored(HOSTILE),
        "</script><script>alert(2)</script>",
    ]
    crossings = draws.normal(np.resize(middles, 30), 0.8)
    reasons = ["", "", "the answer is not top-1", *[""] * 26, stored(HOSTILE)]
    recovery = draws.random((60, 13)).round(4)
    result = xr.Dataset(
        {
            "value": quantity(value, "category row depth", "share of the effect recovered"),
            "low": quantity(value - 0.06, "category row depth", "lower end"),
            "high": quantity(value + 0.05, "category row depth", "upper end"),
            "null": quantity(np.full(13, 0.02), "depth", "share that noise would recover"),
            "mean_transition": quantity(np.array(middles), "category", "transition layer", "block"),
            "mean_transition_low": quantity(np.array(middles) - 0.7, "category", "lower end", "block"),
            "mean_transition_high": quantity(np.array(middles) + 0.6, "category", "upper end", "block"),
            "transition_layer": quantity(crossings, "prompt", "transition layer", "block"),
            "prompt_category": quantity(np.resize(categories, 30), "prompt", "category"),
            "left_out_because": quantity(reasons, "prompt", "why"),
            "difference": quantity([2.6, -1.3, -3.9], "contrast", "difference of transition layers", "block"),
            "difference_low": quantity([1.9, -3.0, -4.7], "contrast", "lower end", "block"),
            "difference_high": quantity([3.2, 0.2, -3.1], "contrast", "upper end", "block"),
            "p_adjusted": quantity([0.0004, 0.09, 0.0004], "contrast", "adjusted p"),
            "recovery": quantity(recovery, "token depth", "share of the effect recovered"),
        },
        coords={
            "category": categories,
            "row": ["noised token", "last token"],
            "depth": range(13),
            "prompt": prompts,
            "contrast": ["facts − phrases", "phrases − other", "other − facts"],
            "prompt_of_token": ("token", np.repeat(prompts, 2)),
            "token_text": ("token", [stored(HOSTILE), " <b>"] * 30),
            "noised": ("token", [True, False] * 30),
        },
        attrs={"experiment": "trial_trace", "hostile": "<img src=x onerror=alert(3)> & <b>bold</b>"},
    )  # fmt: skip
    return write_json(result, cautions=["samples were few: <i>ten</i>"])


def made_layers(outstanding: int = 3) -> xr.Dataset:
    """Twelve layers of which one does something, over twelve passages."""
    value = np.where(np.arange(12) == outstanding, 0.9, 0.01)
    draws = value + np.random.default_rng(1).normal(0, 0.004, (200, 12))
    share = "share of what is done"
    return xr.Dataset(
        {
            "share": quantity(value, "layer", share),
            "share_low": quantity(value - 0.008, "layer", share),
            "share_high": quantity(value + 0.008, "layer", share),
            "share_n": quantity(np.full(12, 12), "layer", "passages"),
            "share_draws": quantity(draws, "draw layer", share),
            "mean_share": quantity(value.mean(), "", "mean share of what is done"),
        },
        coords={"draw": xr.Variable("draw", range(200), {"long_name": "replicate"})},
        attrs={"experiment": "trial_layers"},
    )
