"""From guesses to scores: the conclusion of word_position_probe, without the model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import text_coordinate
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._word_design import FEWEST_WORDS
from layerscope.experiments._word_tasks import TASKS, gathered
from layerscope.maths.bootstrap import Interval, bootstrap_mean, interval_of_draws
from layerscope.maths.cells import WithinCells, right_within_cells, score_within_cells
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import holm
from layerscope.maths.simultaneous import largest_t_p
from layerscope.results.schema import quantity, read_json, write_json

_WORDS = ("anchored", "unanchored")
_SCORE = "right guesses within cells of equal position, above chance"
FEWEST_CASES = 20
"""Test cases in cells that count below which a score has no interval and no p: with nine, all right, resamples
have no spread, and nothing could be more certain."""
CONTROLS = ("untrained", "types", "shuffled")
"""Tasks that the main one is held against."""


def conclude(stages: Earlier, settings: Any, *, depth: int) -> xr.Dataset:
    """Everything that the result holds."""
    cases = gathered(stages["scores"], stages["design"], stages["probe"].sizes["depth"])
    tasks = [task for task in TASKS if (cases.case_task.values == task).any()]
    scored = {task: _scored(_cases_of(cases, "case_task", task), settings) for task in tasks}
    variables = _accuracies(cases, tasks, settings) | _scores(scored, tasks, settings)
    variables |= _matched(cases, [task for task in tasks if TASKS[task].test in _WORDS], settings)
    variables |= _ceilings(stages["design"], tasks) | _gains(scored, settings)
    coordinates = {
        "task": text_coordinate(tasks, "task", "task"),
    }
    kept = stages["design"][["prompt_text", "held_out"]].reset_coords(drop=True)
    result = cases.assign(variables).assign_coords(coordinates).merge(kept, join="exact", compat="equals")
    for part in (_moves(stages["moves"], settings), _ablations(stages, cases, settings)):
        result = result.merge(part, join="exact", compat="equals")
    result["converged"] = quantity(
        stages["probe"].converged.values, "depth", "whether the main probe converged"
    )
    left_out = read_json(stages["design"], "left_out", {})
    result = result.assign_attrs(causal_depth=depth, moved_word=settings.moved_word)
    return write_json(
        result,
        cautions=_cautions(stages, left_out),
        ceiling_with_length=read_json(stages["design"], "ceiling_with_length"),
        words_used=read_json(stages["design"], "words_used", {}),
        says={task: TASKS[task].says for task in tasks},
    )


def _cautions(stages: Earlier, left_out: dict[str, str]) -> list[str]:
    said = [f"{arm} were left out: {why}" for arm, why in left_out.items()]
    used = read_json(stages["design"], "words_used", {})
    said += [
        f"only {tested} of the words of {length} token{'s' * (length != '1')} {'is' if tested == 1 else 'are'} "
        "tested on: what holds for others cannot be told from so few"
        for length, (_, tested) in used.items()
        if tested < FEWEST_WORDS
    ]
    if not stages["looks"].sizes:
        said.append("attention cannot be watched on this model: no heads are taken out, no attention is read")
    elif "mean_output" not in stages["looks"]:
        said.append("outputs of heads cannot be replaced on this model: no heads are taken out")
    if not stages["moves"].sizes:
        said.append("no state was moved: no position is shared by words of neighbouring index")
    if not stages["probe"].converged.values.all():
        said.append("some probes stopped before they converged; their scores may be a little low")
    return said


def _cases_of(cases: xr.Dataset, coordinate: str, name: str) -> xr.Dataset:
    return cases.isel(token=cases[coordinate].values == name)


def _scored(cases: xr.Dataset, settings: Any, *, matched: bool = False) -> WithinCells:
    cells = cases.case_position.values
    if matched:
        cells = np.unique(cells * 1000 + cases.case_size.values, return_inverse=True)[1]
    kept = {"labels": cases.case_index.values, "cells": cells, "fewest": settings.fewest}
    found = score_within_cells(
        right_within_cells(cases.probability.values, **kept),
        **kept,
        units=np.unique(cases.case_prompt.values, return_inverse=True)[1],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return found if found.counted >= FEWEST_CASES else _untold(found)


def _untold(found: WithinCells) -> WithinCells:
    """A score of too few cases: without interval, and without draws for any p."""
    return replace(found, interval=found.interval.without_ends(), draws=np.full_like(found.draws, np.nan))


def _accuracies(cases: xr.Dataset, tasks: list[str], settings: Any) -> dict[str, xr.Variable]:
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    found = []
    for task in tasks:
        here = _cases_of(cases, "case_task", task)
        right = here.probability.values.argmax(axis=2) == here.case_index.values[:, None]
        prompts = np.unique(here.case_prompt.values, return_inverse=True)[1]
        found.append(
            mean(np.stack([right[prompts == prompt].mean(axis=0) for prompt in range(prompts.max() + 1)]))
        )
    return interval_variables("accuracy", stacked(found), "task depth", "share of right guesses")


def _scores(scored: dict[str, WithinCells], tasks: list[str], settings: Any) -> dict[str, xr.Variable]:
    p = np.stack([_adjusted(scored[task].interval, scored[task].draws) for task in tasks])
    counted = np.array([scored[task].counted for task in tasks])
    main = p[tasks.index("last")]
    clear = np.flatnonzero(main < 1 - settings.level)
    best = scored["last"].interval.value
    return interval_variables(
        "score", stacked([scored[task].interval for task in tasks]), "task depth", _SCORE
    ) | {
        "p_adjusted": quantity(p, "task depth", "one-sided p of the score, adjusted for all depths"),
        "score_cases": quantity(counted, "task", "test cases in cells that count"),
        "first_depth": quantity(
            float(clear[0]) if clear.size else np.nan,
            "",
            "shallowest depth at which words are told apart",
            "block",
        ),
        "best_depth": quantity(
            float(np.nanargmax(best)) if np.isfinite(best).any() else np.nan,
            "",
            "depth of the highest score",
            "block",
        ),
    }


def _adjusted(interval: Interval, draws: np.ndarray) -> np.ndarray:
    """p of scores above chance, adjusted for all depths."""
    return largest_t_p(interval.value, draws, units=interval.n)


def _matched(cases: xr.Dataset, tasks: list[str], settings: Any) -> dict[str, xr.Variable]:
    """The same within cells of equal position and equal length of the word itself."""
    scored = [_scored(_cases_of(cases, "case_task", task), settings, matched=True) for task in tasks]
    p = np.stack([_adjusted(each.interval, each.draws) for each in scored])
    return (
        interval_variables(
            "matched_score",
            stacked([each.interval for each in scored]),
            "word_task depth",
            f"{_SCORE}, among words of equal length",
        )
        | {"matched_p_adjusted": quantity(p, "word_task depth", "one-sided p, adjusted for all depths")}
        | {"word_task": text_coordinate(tasks, "word_task", "task about words")}
    )


def _ceilings(design: xr.Dataset, tasks: list[str]) -> dict[str, xr.Variable]:
    ceilings = read_json(design, "ceilings")
    units = design.sizes["unit"]

    def of(task: str) -> dict[str, Any]:
        place = TASKS[task].place
        found: dict[str, Any] = (
            ceilings.get(TASKS[task].test) or ceilings["first" if place == "first" else "last"]
        )
        return found

    recalls = [[*of(task)["recall"], *[np.nan] * (units - len(of(task)["recall"]))] for task in tasks]
    return {
        "ceiling": quantity(
            np.array([of(task)["accuracy"] for task in tasks]),
            "task",
            "share of right guesses that the position alone allows, exactly",
        ),
        "ceiling_recall": quantity(
            np.array(recalls), "task unit", "share of right guesses among each index that the position allows"
        ),
    }


def _gains(scored: dict[str, WithinCells], settings: Any) -> dict[str, xr.Variable]:
    """The main score less each control's, resampled on the same prompts; p is Holm's over the controls."""
    controls = [task for task in CONTROLS if task in scored]
    main = scored["last"]
    intervals, p = [], []
    for task in controls:
        value = main.interval.value - scored[task].interval.value
        draws = main.draws - scored[task].draws
        units = int(main.interval.n.flat[0])
        intervals.append(interval_of_draws(value, draws, units=units, level=settings.level))
        p.append(largest_t_p(value, draws, units=units))
    adjusted = np.stack([holm(column) for column in np.stack(p).T], axis=1)
    label = text_coordinate(controls, "control", "control that the score is held against")
    return (
        interval_variables("gain", stacked(intervals), "control depth", f"{_SCORE}, less the control's")
        | {"gain_p_adjusted": quantity(adjusted, "control depth", "one-sided p, for all depths and controls")}
        | {"control": label}
    )


# -- causes -----------------------------------------------------------------------------------------------


def _moves(moves: xr.Dataset, settings: Any) -> xr.Dataset:
    if not moves.sizes:
        return xr.Dataset()
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)

    def apart(variable: str, forth: str, back: str) -> np.ndarray:
        values = moves[variable].astype(np.float64)
        return np.asarray(values.sel(move=forth).values - values.sel(move=back).values)

    pairs = {"along the index": ("later", "earlier"), "control": ("control forth", "control back")}
    decoded = [mean(apart("decoded_word", *pair)) for pair in pairs.values()]
    attended = [apart("attended_word", *pair) for pair in pairs.values()]
    heads = mean(attended[0] - attended[1])
    kl = [moves.kl_from_unmoved.sel(move=list(pair)).mean("move").values for pair in pairs.values()]
    changed = [
        moves.prediction_changed.sel(move=list(pair)).astype(float).mean("move").values
        for pair in pairs.values()
    ]
    by_layer = [mean(_mean_over_heads(values)) for values in attended]
    variables = (
        interval_variables(
            "decoded_shift",
            stacked(decoded),
            "push depth",
            "index that the probe gives, moved on less moved back",
            "word",
        )
        | interval_variables(
            "attended_shift",
            stacked(by_layer),
            "push layer",
            "index of the earlier words attended to, moved on less moved back, mean over heads",
            "word",
        )
        | interval_variables(
            "head_shift", heads, "layer head", "the same for each head, less the control's", "word"
        )
        | interval_variables(
            "moved_kl", stacked([mean(each) for each in kl]), "push", "divergence of the prediction", "nat"
        )
        | interval_variables("moved_kl_gain", mean(kl[0] - kl[1]), "", "divergence less the control's", "nat")
        | interval_variables(
            "moved_changed",
            stacked([mean(each) for each in changed]),
            "push",
            "share of prompts whose most probable next token changed",
        )
    )
    variables["head_shift_p"] = quantity(
        compare_pairs(attended[0] - attended[1], seed=settings.seed),
        "layer head",
        "two-sided p, for all heads",
    )
    labels = text_coordinate(list(pairs), "push", "how the state was moved")
    kept = moves.rename(prompt="moved_prompt").assign_coords(
        moved_prompt=xr.Variable(
            ("moved_prompt",), moves.prompt.values, {"long_name": "prompt of a moved state"}
        )
    )
    return kept.assign(variables).assign_coords(push=labels)


def _mean_over_heads(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    totals = np.where(known, values, 0.0).sum(axis=-1)
    counts = known.sum(axis=-1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _ablations(stages: Earlier, everything: xr.Dataset, settings: Any) -> xr.Dataset:
    """Scores of the same prompts with all heads and without some, and the difference."""
    cases = stages["without heads"]
    if not cases.sizes:
        return xr.Dataset()
    names = list(dict.fromkeys(cases.case_task.values.tolist()))
    everyone = _cases_of(everything, "case_task", "last")
    kept = np.isin(everyone.case_prompt.values, cases.case_prompt.values)
    whole = _scored(everyone.isel(token=kept), settings)
    without = {name: _scored(_cases_of(cases, "case_task", name), settings) for name in names}
    lost: dict[str, Interval] = {}
    p = []
    for name, scored in without.items():
        value, draws = whole.interval.value - scored.interval.value, whole.draws - scored.draws
        units = int(whole.interval.n.flat[0])
        lost[name] = interval_of_draws(value, draws, units=units, level=settings.level)
        p.append(largest_t_p(value, draws, units=units))
    variables = interval_variables(
        "score_without",
        stacked([s.interval for s in without.values()]),
        "heads_out depth",
        f"{_SCORE}, without heads",
    ) | interval_variables(
        "score_lost",
        stacked(list(lost.values())),
        "heads_out depth",
        "score that is lost without these heads",
    )
    variables |= interval_variables("score_whole", whole.interval, "depth", f"{_SCORE}, the same prompts")
    variables["lost_p_adjusted"] = quantity(np.stack(p), "heads_out depth", "one-sided p, for all depths")
    variables["start_preference"] = stages["looks"].start_preference.mean("prompt", keep_attrs=True).variable
    variables["start_preference"].attrs["units"] = "1"
    variables["anchor_share"] = stages["looks"].anchor_share.mean("prompt", keep_attrs=True).variable
    return xr.Dataset(
        variables,
        coords={
            "heads_out": text_coordinate(names, "heads_out", "heads taken out"),
            "layer": stages["looks"].layer.variable,
            "head": stages["looks"]["head"].variable,
        },
    )
