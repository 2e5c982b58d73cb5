"""From guesses to scores: the conclusion of word_position_probe, without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, Resampled, holm_over, labelled, measure, named, side_by_side
from layerscope.experiments.word_position_probe.items.tasks import TASKS, gathered
from layerscope.experiments.word_position_probe.measure.writing import FEWEST_WORDS
from layerscope.experiments.word_position_probe.settings import Settings
from layerscope.maths.cells import WithinCells, right_within_cells, score_within_cells
from layerscope.results.schema import read_json, write_json

_WORDS = ("anchored", "unanchored")
_SCORE = "right guesses within cells of equal position, above chance"
FEWEST_CASES = 20
"""Test cases in cells that count below which a score has no interval and no p: with nine, all right, resamples
have no spread, and nothing could be more certain."""
CONTROLS = ("untrained", "types", "shuffled")
"""Tasks that the main one is held against."""


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Scores within cells of equal position for every task and depth, ceilings, and what the causal steps change."""
    cases = gathered(stages["scores"], stages["design"], stages["probe"].sizes["depth"])
    by_task = {task: _cases_of(cases, task) for task in TASKS if (cases.case_task == task).any()}
    scored = {task: _scored(here, settings) for task, here in by_task.items()}
    words = {task: here for task, here in by_task.items() if TASKS[task].test in _WORDS}
    kept = stages["design"][["prompt_text", "held_out"]].reset_coords(drop=True)
    parts = [
        _accuracies(by_task, settings),
        _scores(by_task, scored, settings),
        _matched(words, settings),
        _ceilings(stages["design"], list(by_task)),
        _gains(by_task["last"], scored, settings),
        _moves(stages["moves"], settings),
        _ablations(stages, by_task["last"], settings),
        stages["probe"]
        .converged.drop_attrs()
        .pipe(named, "converged", "whether the main probe converged")
        .to_dataset(),
        kept,
    ]
    result = cases.merge(xr.merge(parts, join="exact", compat="equals"), join="exact", compat="equals")
    depth = settings.depth_of(stages["probe"].sizes["depth"] - 1)
    return write_json(
        result.assign_attrs(causal_depth=depth, moved_word=settings.moved_word),
        cautions=_cautions(stages),
        ceiling_with_length=read_json(stages["design"], "ceiling_with_length"),
        words_used=read_json(stages["design"], "words_used", {}),
        says={task: TASKS[task].says for task in by_task},
    )


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Score within cells of equal position at words' last pieces, beside the untrained twin's."""
    twin = result.score.sel(task="untrained", drop=True) if "untrained" in result.task.values else 0.0
    return {
        "word_index": measure(
            result,
            "score",
            label="word index beyond position",
            sense="a linear probe decodes which word of the prompt a token ends",
            questions="what is decodable",
            null=twin,
            task="last",
        )
    }


def _cautions(stages: Earlier) -> list[str]:
    said = [f"{arm} were left out: {why}" for arm, why in read_json(stages["design"], "left_out", {}).items()]
    said += [
        f"only {tested} of the words of {length} token{'s' * (length != '1')} {'is' if tested == 1 else 'are'} "
        "tested on: too few to speak for others"
        for length, (_, tested) in read_json(stages["design"], "words_used", {}).items()
        if tested < FEWEST_WORDS
    ]
    if not stages["looks"].sizes:
        said.append("attention cannot be watched on this model: no heads are ablated, no attention is read")
    elif "mean_output" not in stages["looks"]:
        said.append("outputs of heads cannot be replaced on this model: no heads are ablated")
    if not stages["moves"].sizes:
        said.append("no state was steered: no position is shared by words of neighbouring index")
    if not stages["probe"].converged.values.all():
        said.append("some probes stopped before they converged; their scores may be a little low")
    return said


# -- scores ---------------------------------------------------------------------------------------------


def _cases_of(cases: xr.Dataset, task: str) -> xr.Dataset:
    return cases.isel(token=np.flatnonzero(cases.case_task == task))


def _scored(cases: xr.Dataset, settings: Settings, *, matched: bool = False) -> WithinCells:
    """The score of some cases; one of too few has neither an interval nor draws for any p."""
    cells = cases.case_position.to_numpy()
    if matched:
        cells = np.unique(cells * 1000 + cases.case_size.to_numpy(), return_inverse=True)[1]
    kept: dict[str, Any] = {"labels": cases.case_index.to_numpy(), "cells": cells, "fewest": settings.fewest}
    found = score_within_cells(
        right_within_cells(cases.probability.to_numpy(), **kept),
        **kept,
        units=np.unique(cases.case_prompt, return_inverse=True)[1],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    if found.counted >= FEWEST_CASES:
        return found
    return replace(found, draws=np.full_like(found.draws, np.nan))


def _resampled(found: WithinCells, cases: xr.Dataset, name: str, long_name: str) -> Resampled:
    """A score over depth, with its resamples of whole prompts."""

    def over_depth(values: np.ndarray, *first: str) -> xr.DataArray:
        return xr.DataArray(values, dims=(*first, "depth"), coords={"depth": cases.depth})

    n = found.interval.n
    value = named(over_depth(found.interval.value), name, long_name)
    return Resampled(value, over_depth(found.draws, "draw"), over_depth(n), units=int(n.flat[0]))


def _prompts(cases: xr.Dataset, settings: Settings) -> Over:
    return Over(cases, settings, rows="case_prompt")


def _accuracies(by_task: Mapping[str, xr.Dataset], settings: Settings) -> xr.Dataset:
    found = {
        task: _prompts(here, settings).mean(
            named(here.probability.argmax("unit") == here.case_index, "accuracy", "share of right guesses")
        )
        for task, here in by_task.items()
    }
    return side_by_side(found, "task", "task")


def _scores(
    by_task: Mapping[str, xr.Dataset], scored: Mapping[str, WithinCells], settings: Settings
) -> xr.Dataset:
    found = {
        task: _prompts(here, settings).quantity(
            _resampled(scored[task], here, "score", _SCORE),
            together="depth",
            above=0.0,
            p="p_adjusted",
            draws=True,
        )
        for task, here in by_task.items()
    }
    main = found["last"]
    clear = main.depth.where(main.p_adjusted < 1 - settings.level)
    counted = xr.DataArray([scored[task].counted for task in by_task], dims="task")
    best = main.score.fillna(-np.inf).argmax("depth").where(main.score.notnull().any())
    return side_by_side(found, "task", "task").merge(
        {
            one.name: one
            for one in (
                named(counted, "score_cases", "test cases in cells that count"),
                named(
                    clear.min(),
                    "first_depth",
                    "earliest depth at which words are significantly apart",
                    "layer",
                ),
                named(best.astype(float), "best_depth", "depth of the highest score", "layer"),
            )
        }
    )


def _matched(words: Mapping[str, xr.Dataset], settings: Settings) -> xr.Dataset:
    """The same within cells of equal position and equal length of the word itself."""
    found = {
        task: _prompts(here, settings).quantity(
            _resampled(
                _scored(here, settings, matched=True),
                here,
                "matched_score",
                f"{_SCORE}, among words of equal length",
            ),
            together="depth",
            above=0.0,
        )
        for task, here in words.items()
    }
    laid = side_by_side(found, "word_task", "task about words")
    return laid.rename(matched_score_p_adjusted="matched_p_adjusted")


def _ceilings(design: xr.Dataset, tasks: list[str]) -> xr.Dataset:
    """What a guesser who knows the position alone gets right, of all cases and of each index."""
    ceilings = read_json(design, "ceilings")

    def of(task: str) -> dict[str, Any]:
        asked, place = TASKS[task], "first" if TASKS[task].place == "first" else "last"
        found: dict[str, Any] = ceilings.get(asked.test) or ceilings[place]
        return found

    units = design.sizes["unit"]
    recalls = [[*of(task)["recall"], *[np.nan] * (units - len(of(task)["recall"]))] for task in tasks]
    share = named(
        [of(task)["accuracy"] for task in tasks],
        "ceiling",
        "share of right guesses that the position alone allows, exactly",
        dims=("task",),
    )
    recall = named(
        recalls,
        "ceiling_recall",
        "share of right guesses among each index that the position allows",
        dims=("task", "unit"),
    )
    return xr.merge([share, recall])


def _gains(main: xr.Dataset, scored: Mapping[str, WithinCells], settings: Settings) -> xr.Dataset:
    """The main score less each control's, resampled on the same prompts; p is Holm's over the controls."""
    own, over = _resampled(scored["last"], main, "score", _SCORE), _prompts(main, settings)
    gains = {
        task: (own - _resampled(scored[task], main, "score", _SCORE)).named(
            "gain", f"{_SCORE}, less the control's"
        )
        for task in CONTROLS
        if task in scored
    }
    found = {task: over.quantity(gain, together="depth", above=0.0) for task, gain in gains.items()}
    laid = side_by_side(found, "control", "control that the score is held against")
    return holm_over(laid, "gain", along="control")


# -- causal steps ---------------------------------------------------------------------------------------

_PUSHES = {"along the index": ("later", "earlier"), "control": ("control forth", "control back")}


def _moves(moves: xr.Dataset, settings: Settings) -> xr.Dataset:
    """What steering a state on rather than back changes: probes, attention, the prediction."""
    if not moves.sizes:
        return xr.Dataset()
    over = Over(moves, settings, rows="prompt")

    def pushed(variable: str, how: str) -> xr.DataArray:
        values = moves[variable].astype(np.float64)
        found = {
            push: values.sel(move=forth, drop=True) - values.sel(move=back, drop=True)
            if how == "apart"
            else values.sel(move=[forth, back]).mean("move")
            for push, (forth, back) in _PUSHES.items()
        }
        return xr.concat(list(found.values()), dim="push")

    decoded, attended = pushed("decoded_word", "apart"), pushed("attended_word", "apart")
    kl, changed = pushed("kl_from_unmoved", "mean"), pushed("prediction_changed", "mean")
    heads = named(
        attended.isel(push=0) - attended.isel(push=1),
        "head_shift",
        "the same for each head, less the control's",
        "word",
    )
    parts = [
        over.mean(
            named(
                decoded, "decoded_shift", "index that the probe gives, steered on less steered back", "word"
            )
        ),
        over.mean(
            named(
                attended.mean("head"),
                "attended_shift",
                "index of the earlier words attended to, steered on less steered back, mean over heads",
                "word",
            )
        ),
        over.paired(heads, together=("layer", "head"), p="head_shift_p"),
        over.mean(named(kl, "moved_kl", "divergence of the prediction", "nat")),
        over.paired(
            named(kl.isel(push=0) - kl.isel(push=1), "moved_kl_gain", "divergence less the control's", "nat")
        ),
        over.mean(named(changed, "moved_changed", "share of prompts whose most probable next token changed")),
    ]
    own = moves.rename(prompt="moved_prompt")
    own["moved_prompt"].attrs = {"long_name": "prompt of a moved state"}
    return xr.merge([own, *parts], join="exact").assign_coords(
        labelled("push", _PUSHES, "how the state was moved")
    )


def _ablations(stages: Earlier, main: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Scores of the same prompts with all heads and without some, and the difference."""
    cases = stages["without heads"]
    if not cases.sizes:
        return xr.Dataset()
    same = main.isel(token=np.flatnonzero(main.case_prompt.isin(cases.case_prompt)))
    over = _prompts(same, settings)
    whole = _resampled(_scored(same, settings), same, "score_whole", f"{_SCORE}, the same prompts")
    without, lost = {}, {}
    for name in dict.fromkeys(cases.case_task.to_numpy().tolist()):
        here = _cases_of(cases, name)
        ablated = _resampled(_scored(here, settings), here, "score_without", f"{_SCORE}, without heads")
        change = (whole - ablated).named("score_lost", "score that is lost without these heads")
        without[name] = _prompts(here, settings).quantity(ablated)
        lost[name] = over.quantity(change, together="depth", above=0.0, p="lost_p_adjusted")
    looked = stages["looks"][["start_preference", "anchor_share"]].mean("prompt", keep_attrs=True)
    return xr.merge(
        [
            side_by_side(without, "heads_out", "heads ablated"),
            side_by_side(lost, "heads_out", "heads ablated"),
            over.quantity(whole),
            looked,
        ]
    )
