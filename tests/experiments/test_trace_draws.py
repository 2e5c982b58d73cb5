"""How many draws a trace takes, how they are made, and how sure they leave its recoveries."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

import layerscope as ls
from layerscope import runs
from layerscope.experiments.causal_trace import items as _trace_items
from layerscope.experiments.causal_trace import measure as _trace_measures
from layerscope.experiments.causal_trace.items.noised import NoisedItem
from layerscope.experiments.causal_trace.measure.runs import PromptRuns
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.jobs.prepare import prepare
from layerscope.jobs.request import Request
from layerscope.maths.recovery import recovery_by_draw
from layerscope.maths.sample_size import mean_half_width, units_needed
from layerscope.results.combine import concatenate
from layerscope.runs.drawing import TOGETHER, Drawing

ASKED: dict[str, Any] = {"smallest_range": 1e-6, "noise": 1.0, "resamples": 20, "positions": "rows"}
AUTO: dict[str, Any] = ASKED | {"samples": "auto", "precision": 0.1, "most_samples": 64}
DRAWN: list[Drawing] = list(TOGETHER)


@pytest.fixture(scope="module")
def auto(tiny_model: Any, prompts_file: Path) -> xr.Dataset:
    return ls.run("causal_trace", tiny_model, str(prompts_file), progress=False, **AUTO)


def item_of(model: Any, prompts_file: Path, settings: dict[str, Any]) -> tuple[NoisedItem, Any, xr.Dataset]:
    """The first prompt as the pilot stage gets it, with the settings and the clean stage."""
    job = prepare(Request("causal_trace", model=model, prompts=str(prompts_file), settings=settings))
    items = _trace_items.clean_items(job.inputs, job.settings, {})  # type: ignore[arg-type]
    clean = concatenate([_trace_measures.clean(model, one, job.settings, {}) for one in items])  # type: ignore[arg-type]
    pilots = _trace_items.pilot_items(job.inputs, job.settings, {"clean": clean})  # type: ignore[arg-type]
    return next(iter(pilots)), job.settings, clean


def test_draws_are_those_of_a_given_number_and_others_are_empty(
    auto: xr.Dataset, tiny_model: Any, prompts_file: Path
) -> None:
    draws, most = auto.draws.values, auto.sizes["sample"]
    given = ls.run("causal_trace", tiny_model, str(prompts_file), progress=False, **ASKED, samples=int(most))

    assert most == draws.max() > draws.min() >= 2
    for prompt, n in zip(auto.prompt.values, draws, strict=True):
        noised = auto.noised_log_probability.sel(prompt=prompt)
        assert np.isfinite(noised.values[:n]).all()
        assert np.isnan(noised.values[n:]).all()
        rows = auto.token_prompt.values == prompt
        for name in ("noised_log_probability", "restored_log_probability"):
            cells = {"prompt": prompt} if "prompt" in auto[name].dims else {"token": rows}
            a, b = (
                result[name].sel(cells) if "prompt" in cells else result[name].isel(cells)
                for result in (auto, given)
            )
            np.testing.assert_allclose(
                a.isel(sample=slice(0, n)), b.isel(sample=slice(0, n)), rtol=1e-4, atol=1e-5
            )


def test_the_number_follows_from_pilot_draws_that_are_then_not_used(
    auto: xr.Dataset, tiny_model: Any, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, settings, clean = item_of(tiny_model, prompts_file, AUTO)
    seen = spied(monkeypatch)
    pilot = _trace_measures.pilot(tiny_model, item, settings, {"clean": clean})
    run = PromptRuns(tiny_model, item, settings)
    mine, trace = seen

    assert item.samples == _trace_items.PILOT_UNITS
    assert not set(mine[:, 0].ravel().tolist()) & set(trace[:, 0].ravel().tolist())
    spread = float(pilot.pilot_spread.max())
    expected = units_needed(spread, pilots=_trace_items.PILOT_UNITS, half_width=0.1, most=64)
    assert auto.draws.sel(prompt=pilot.prompt.values[0]) == expected
    assert run.samples == _trace_items.PILOT_UNITS


def spied(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Noise as it is drawn."""
    seen: list[np.ndarray] = []
    draw: Callable[..., Any] = runs.corrupting_noise

    def drawn(*words: Any, **named: Any) -> Any:
        noise = draw(*words, **named)
        seen.append(noise.numpy())
        return noise

    monkeypatch.setattr(runs, "corrupting_noise", drawn, raising=False)
    return seen


def test_the_precision_is_reached_or_the_caution_says_not(auto: xr.Dataset) -> None:
    widths = auto.draws_half_width.sel(row=["noised tokens", "last token"]).max("row").values
    (caution,) = [text for text in auto.attrs["cautions"].split('", "') if "most_samples" in text] or [""]

    bounded = (auto.draws.values == 64) & (auto.left_out_because.values == "")
    assert np.isfinite(widths).sum() >= 2
    assert (
        widths[np.isfinite(widths) & ~bounded] < 2 * 0.1
    ).all()  # by 10 pilots, of a spread that they only estimate
    assert bool(caution) == bool(bounded.any())


def test_half_widths_by_hand(tiny_model: Any, prompts_file: Path) -> None:
    result = ls.run(
        "causal_trace",
        tiny_model,
        str(prompts_file),
        progress=False,
        **ASKED,
        samples=6,
        noise_draws="antithetic",
    )

    here = result.isel(prompt=int(np.flatnonzero(result.left_out_because.values == "")[0]))
    own = (result.token_prompt == here.prompt) & result.final
    patched = np.exp(result.restored_log_probability.values[own.values][0].astype(float))  # [depth sample]
    noised = np.exp(here.noised_log_probability.values.astype(float))
    low = patched.mean(1) - noised.mean()
    high = float(np.exp(here.clean_answer_log_probability)) - noised.mean()
    ratio, moved = low / high, []
    for pair in (slice(0, 2), slice(2, 4), slice(4, 6)):
        of_patched = patched[:, pair].mean(1) - patched.mean(1)
        of_noised = noised[pair].mean() - noised.mean()
        moved.append((ratio + (of_patched - (1 - ratio) * of_noised) / high).mean())
    expected = 4.3027 * np.std(moved, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(here.draws_half_width.sel(row="last token"), expected, rtol=1e-3)


def recovered(
    model: Any, item: NoisedItem, settings: Settings, *, drawn: Drawing, draws: int, seed: int
) -> np.ndarray:
    """Each draw's part in the recovery of both rows, at one depth in the middle [draw row]."""
    chosen = settings.model_copy(update={"noise_draws": drawn, "seed": seed})
    run = PromptRuns(model, item.model_copy(update={"samples": draws, "slots": draws}), chosen)
    places = (run.noised, (item.prompt.last,))
    base, *rows = run.metric_of(run.values([(), *((runs.Put("state", (2,), place),) for place in places)]))
    clean = np.full((draws, 1), run.metric_of(run.clean_values()))
    return recovery_by_draw(np.stack(rows, axis=1), noised=base[:, None], clean=clean)


@pytest.mark.parametrize("drawn", DRAWN[1:])
def test_means_agree_however_draws_are_made(tiny_model: Any, prompts_file: Path, drawn: Drawing) -> None:
    item, settings, _ = item_of(tiny_model, prompts_file, AUTO)
    plain, other = (
        recovered(tiny_model, item, settings, drawn=way, draws=240, seed=seed)
        for way, seed in (("plain", 1), (drawn, 2))
    )

    widths = mean_half_width(plain), mean_half_width(other, together=TOGETHER[drawn])
    assert (np.abs(plain.mean(0) - other.mean(0)) < 1.5 * np.hypot(*widths)).all()
    assert max(width.max() for width in widths) < 0.15


LAST, NOISED = 1, 0
HELD = {"world-001": LAST, "world-002": NOISED}
"""Bundled prompts, and a row whose recovery is not decided by rare draws (skewness over draws below 1). Where it is
2, as in world-005, only 80 to 84 % of the intervals over eight plain draws hold the truth."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[tuple[NoisedItem, int, float]]]:
    """The bundled model, settings, and for each such prompt its item, its row, and what 6000 other draws find there."""
    file = tmp_path_factory.mktemp("texts") / "prompts.jsonl"
    lines = (files("layerscope.bundled") / "prompts" / "world.jsonl").read_text(encoding="utf-8").splitlines()
    file.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["id"] in HELD))
    job = prepare(Request("causal_trace", model=ls.load_model(), prompts=str(file), settings=AUTO))
    model, settings = job.model, job.settings
    items = _trace_items.clean_items(job.inputs, settings, {})  # type: ignore[arg-type]
    clean = concatenate([_trace_measures.clean(model, one, settings, {}) for one in items])  # type: ignore[arg-type]
    found = []
    for item in _trace_items.pilot_items(job.inputs, settings, {"clean": clean}):  # type: ignore[arg-type]
        parts = recovered(model, item, settings, drawn="plain", draws=6000, seed=10**6)  # type: ignore[arg-type]
        row = HELD[item.prompt.name]
        found.append((item, row, float(parts.mean(0)[row])))
    assert len(found) == len(HELD)
    return model, settings, found


@pytest.mark.slow
@pytest.mark.parametrize("drawn", DRAWN)
def test_intervals_over_draws_hold_the_truth(
    known: tuple[Any, Any, list[tuple[NoisedItem, int, float]]], drawn: Drawing
) -> None:
    model, settings, cells = known
    draws, together = 8 * TOGETHER[drawn], TOGETHER[drawn]

    for item, row, truth in cells:
        held = []
        for seed in range(200):
            parts = recovered(model, item, settings, drawn=drawn, draws=draws, seed=seed)[:, row]
            held.append(abs(parts.mean() - truth) < mean_half_width(parts, together=together))
        assert np.mean(held) > 0.89, (item.prompt.name, np.mean(held))  # standard error 0.015


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "above 0, or auto"),
        ({"samples": "many"}, "auto"),
        ({"samples": 9, "noise_draws": "antithetic"}, "samples=10, not 9"),
        ({"samples": 10, "noise_draws": "sobol"}, "samples=16, not 10"),
        ({"samples": "auto", "corruption": "replace"}, "not drawn"),
        ({"noise_draws": "antithetic", "corruption": "replace"}, "not drawn"),
        ({"samples": "auto", "precision": 0}, "greater than 0"),
        ({"samples": "auto", "most_samples": 8, "noise_draws": "sobol"}, "most_samples"),
        ({"samples": 8, "noise_draws": "balanced", "corruption": "uniform"}, "not uniform"),
    ],
)
def test_choices_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**settings)
