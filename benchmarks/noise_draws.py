"""How many draws of noise does an interval need, by how they are drawn, and what do control variates save?

    python benchmarks/noise_draws.py [--model M] [--prompts P] [--limit N] [--draws N] [--depths N]

For every prompt of a causal trace (by default the bundled model and its prompts), the recovery of the noised
tokens and of the last token is averaged over depths, and its variance over draws is measured for each way of
drawing. Draws that depend on one another count as one unit: variance per draw is the variance between means of
units, times the draws of a unit. Everything is laid against plain draws, so that 0.5 means half the draws for
the same interval, and 2 means twice as many.

Control variates are laid over the plain draws: what is left of their variance when a number whose mean is
known, or cheap, is regressed out. Three are tried:

- linear: the noise times the mean gradient of the metric at corrupted runs of other draws; its mean is 0;
- attribution: the estimate of the same recovery by one gradient for each draw (`attribute`); its mean takes
  many backward passes, whose price is left out here;
- corrupted: the metric of the corrupted run itself; its mean takes many forward passes, likewise.

Lines that begin with "ratio" are the answers: of each prompt the variances of both rows are added, so that the row
which varies more, and so decides how many draws the prompt needs, weighs more; over prompts the geometric mean, with
a 95 % interval from resampling prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from layerscope import runs
from layerscope.experiments.causal_trace import items as _trace_items
from layerscope.experiments.causal_trace import measure as _trace_measures
from layerscope.experiments.causal_trace.items.noised import NoisedItem
from layerscope.experiments.causal_trace.measure.runs import PromptRuns
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.request import Request
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.recovery import recovery_by_draw
from layerscope.models.hooks import at_depth
from layerscope.results.combine import concatenate
from layerscope.runs.drawing import TOGETHER, Drawing

_GRADIENTS = 32
"""Draws whose gradients are averaged; none of them is among the draws that are measured."""


def items_of(job: Job) -> Iterator[NoisedItem]:
    """The prompts that the model gets right."""
    cleans = [
        _trace_measures.clean(job.model, item, job.settings, {})
        for item in _trace_items.clean_items(job.inputs, job.settings, {})
    ]
    yield from _trace_items.noised_items(job.inputs, job.settings, {"clean": concatenate(cleans)})


def depths_of(n_layers: int, wanted: int) -> list[int]:
    """Depths spread evenly from the embeddings to the last block's input."""
    return sorted({round(depth) for depth in np.linspace(0, n_layers - 1, wanted)})


def run_of(job: Job, item: NoisedItem, drawn: Drawing, draws: int, seed: int = 0) -> PromptRuns:
    """The runs of one prompt under some draws."""
    settings = job.settings.model_copy(update={"noise_draws": drawn, "seed": seed})
    return PromptRuns(job.model, item.model_copy(update={"samples": draws, "slots": draws}), settings)


def by_draw(run: PromptRuns, depths: list[int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Each draw's part in the mean recovery of both rows [draw row], its corrupted metric, and the clean one."""
    places = (run.noised, (run.item.prompt.last,))
    edits = [(runs.Put("state", (depth,), place),) for place in places for depth in depths]
    values = run.metric_of(run.values([(), *edits])).astype(np.float64)
    base, clean = values[0], float(run.metric_of(run.clean_values()))
    patched = values[1:].reshape(len(places), len(depths), -1)
    parts = recovery_by_draw(
        patched.transpose(2, 0, 1), noised=base[:, None, None], clean=np.full((len(base), 1, 1), clean)
    )
    return np.asarray(parts.mean(axis=2)), base, clean


def variance_per_draw(parts: np.ndarray, together: int) -> np.ndarray:
    """Variance between means of units, times the draws of a unit [row]."""
    units = parts.reshape(-1, together, parts.shape[1]).mean(axis=1)
    return np.asarray(units.var(axis=0, ddof=1) * together)


def left_by(control: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Variance that a regression on control variates [draw variate] leaves [row]."""
    columns = np.column_stack([np.ones(len(parts)), control])
    fitted = columns @ np.linalg.lstsq(columns, parts, rcond=None)[0]
    return np.asarray(((parts - fitted) ** 2).sum(axis=0) / (len(parts) - columns.shape[1]))


def linear(run: PromptRuns, other: PromptRuns) -> np.ndarray:
    """Noise of one run times the mean gradient at another's corrupted runs [draw 1]."""
    kept: list[torch.Tensor] = []

    def start(stream: torch.Tensor) -> torch.Tensor:
        kept.append(other.corrupted.start(stream).detach().requires_grad_())
        return kept[0].clone()

    ids = other.corrupted.batch().expand(other.samples, -1).to(run.model.device)
    with torch.enable_grad(), at_depth(run.model, {0: start}):
        logits = run.model.module(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        value = other.metric_of(other._read(logits[:, -len(other.item.answer) :])).sum()
        (gradient,) = torch.autograd.grad(value, kept)
    direction = gradient[:, list(run.noised)].mean(0).float().cpu()
    return np.asarray((run.corrupted.noise * direction).sum((1, 2)).numpy())[:, None]


def attribution(run: PromptRuns, depths: list[int]) -> np.ndarray:
    """Estimated effects, averaged over depths, of both rows [draw 2]."""
    states = run.estimates(("state",), drop=False).plain["state"][:, depths].double().numpy().mean(axis=1)
    return np.stack([states[:, list(run.noised)].sum(1), states[:, run.item.prompt.last]], axis=1)


def variances_of(job: Job, item: NoisedItem, depths: list[int], draws: int) -> dict[str, np.ndarray] | None:
    """Variance per draw by way of drawing, and what control variates leave [row]; None where noise changes little."""
    plain = run_of(job, item, "plain", draws)
    parts, base, clean = by_draw(plain, depths)
    if clean - base.mean() < job.settings.smallest:
        return None
    found = {"plain": variance_per_draw(parts, 1)}
    for drawn, together in TOGETHER.items():
        if drawn != "plain":
            other = by_draw(run_of(job, item, drawn, draws), depths)[0]
            found[drawn] = variance_per_draw(other, together)
    elsewhere = run_of(job, item, "plain", _GRADIENTS, seed=1)
    controls = {
        "control: linear": linear(plain, elsewhere),
        "control: attribution": attribution(plain, depths),
        "control: corrupted": base[:, None],
    }
    found |= {name: left_by(control, parts) for name, control in controls.items()}
    found["control: all"] = left_by(np.concatenate(list(controls.values()), axis=1), parts)
    return found


def printed(found: list[dict[str, np.ndarray]], of: str) -> None:
    """SD of a plain draw, and every way's variance over it."""
    plain = np.array([variances["plain"].sum() for variances in found])
    deciding = np.sqrt([variances["plain"].max() for variances in found])
    low, median, high = np.quantile(deciding, [0.25, 0.5, 0.75])
    print(
        f"figure {of}, SD of a plain draw, the row that varies more: {median:.2f} (quartiles {low:.2f} {high:.2f})"
    )
    for name in found[0]:
        logs = np.log(np.array([variances[name].sum() for variances in found]) / plain)
        interval = bootstrap_mean(logs, seed=0)
        value, low, high = (float(np.exp(end)) for end in (interval.value, interval.low, interval.high))
        print(f"ratio {of}, {name}: {value:.2f} ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--prompts")
    parser.add_argument("--limit", type=int, default=4, help="prompts of each category")
    parser.add_argument("--draws", type=int, default=128)
    parser.add_argument("--depths", type=int, default=8)
    parser.add_argument("--bos", default="auto")
    given = parser.parse_args()
    settings: dict[str, Any] = {"unfit": "leave out"}
    job = prepare(
        Request(
            "causal_trace",
            model=given.model,
            prompts=given.prompts,
            limit=given.limit,
            settings=settings,
            bos=given.bos,
        )
    )
    depths = depths_of(job.model.n_layers, given.depths)
    found = []
    for item in items_of(job):
        variances = variances_of(job, item, depths, given.draws)
        if variances is not None:
            found.append(variances)
            print(
                f"{item.name}: { ({name: v.round(6).tolist() for name, v in variances.items()}) }", flush=True
            )
    of = f"{job.model.facts.name}, {len(found)} prompts, {given.draws} draws, {len(depths)} depths"
    printed(found, of)


if __name__ == "__main__":
    main()
