"""What a screen by gradients misses: against exact effects, with and without the fixes of AtP*."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from layerscope.evidence import text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.causal_trace.conclude.averages import mean_over_prompts
from layerscope.experiments.causal_trace.conclude.readouts import read_out, scale_of, used_prompts
from layerscope.experiments.causal_trace.measure.screen import KINDS, best_scores, over_draws, strongest
from layerscope.experiments.causal_trace.measure.tokens import TOKEN_CLASSES
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.permutation import holm, least_p_of_signs, sign_flip_p
from layerscope.results.schema import quantity

PLAIN, RECOMPUTED, DROPPED = "gradients", "gradients, patterns anew", "gradients, GradDrop"

METHODS = (PLAIN, RECOMPUTED, DROPPED)

SOURCES = ("exact", "estimated")

LAST_SUBJECT, LAST = TOKEN_CLASSES[3], TOKEN_CLASSES[6]


class _Screened(NamedTuple):
    """Every screened exchange, draws averaged.

    Attributes:
        kind, prompt, layer, position: of each.
        plain: signed estimates by the plain gradient.
        estimates: signed, with patterns anew where there are such.
        scores: how strong each method takes it to be [method cell]; NaN where a method has nothing of its own.
        exact: exact effects, NaN where unknown.
        confirmed: whether the screen picked it for an exact run.
    """

    kind: np.ndarray
    prompt: np.ndarray
    layer: np.ndarray
    position: np.ndarray
    plain: np.ndarray
    estimates: np.ndarray
    scores: np.ndarray
    exact: np.ndarray
    confirmed: np.ndarray


def screen(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Per prompt and kind: how many of the k strongest the screen misses, and how well it orders all.

    States are judged by the trace itself, which runs them all; other kinds where every one was confirmed.
    """
    screened = _screened(result, stage, settings)
    names = [str(name) for name in result.prompt.values]
    shape = (len(names), len(KINDS), len(METHODS))
    numbers = {name: np.full(shape, np.nan) for name in ("missed", "order", "best_missed")}
    chance, error = np.full(shape[:2], np.nan), np.full(shape[:2], np.nan)
    for row in np.flatnonzero(used_prompts(result)):
        for column, kind in enumerate(KINDS):
            here = np.flatnonzero((screened.prompt == names[row]) & (screened.kind == kind))
            error[row, column] = _error(screened, here)
            known = here[np.isfinite(screened.exact[here])]
            if (kind != "state" and len(known) < len(here)) or len(known) <= settings.strongest:
                continue
            chance[row, column] = 1 - settings.strongest / len(known)
            for method in range(len(METHODS)):
                found = _judged(screened, known, method, settings.strongest)
                for name, value in zip(numbers, found, strict=True):
                    numbers[name][row, column, method] = value
    return xr.merge(
        [stage, _averages(numbers, chance, error, settings), _over_depth(result, screened, settings)],
        join="outer",
    )


def _screened(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> _Screened:
    columns = {name: stage[f"screen_{name}"].values for name in ("plain", "recomputed", "dropped")}
    means = {name: over_draws(values) for name, values in columns.items()}
    kind, prompt = stage.screened_site.values, stage.screened_prompt.values
    exact = over_draws(stage.screen_exact.values)
    confirmed = np.isfinite(exact)
    # The trace has the same effect of a state, and of the states that were not confirmed too.
    traced = _traced_effects(result, settings)
    of_states = zip(prompt, stage.screened_position.values, stage.screened_layer.values, strict=True)
    for index, (name, position, depth) in enumerate(of_states):
        if kind[index] == "state":
            exact[index] = traced.get((str(name), int(position), int(depth)), exact[index])
    return _Screened(
        kind,
        prompt,
        stage.screened_layer.values,
        stage.screened_position.values,
        means["plain"],
        np.where(np.isnan(means["recomputed"]), means["plain"], means["recomputed"]),
        np.stack([np.abs(means["plain"]), np.abs(means["recomputed"]), means["dropped"]]),
        exact,
        confirmed & (settings.confirm != "all") | _picked(kind, prompt, best_scores(columns), settings),
    )


def _picked(kind: np.ndarray, prompt: np.ndarray, scores: np.ndarray, settings: Settings) -> np.ndarray:
    """The k strongest of each prompt and kind by the screen."""
    picked = np.zeros(len(kind), dtype=bool)
    for name in set(prompt.tolist()):
        for site in KINDS:
            here = np.flatnonzero((prompt == name) & (kind == site))
            picked[strongest(here, scores, settings.strongest)] = True
    return picked


def _traced_effects(result: xr.Dataset, settings: Settings) -> dict[tuple[str, int, int], float]:
    values = read_out(result, "restored", settings).mean("sample").transpose("token", "depth").values
    base, _ = scale_of(result, settings)
    nothing = dict(zip(result.prompt.values.tolist(), base.tolist(), strict=True))
    owners, positions = result.token_prompt.values.tolist(), result.position.values.tolist()
    return {
        (owner, position, depth): float(values[row, depth] - nothing[owner])
        for row, (owner, position) in enumerate(zip(owners, positions, strict=True))
        for depth in range(values.shape[1])
    }


def _judged(screened: _Screened, known: np.ndarray, method: int, count: int) -> tuple[float, float, float]:
    """Share of the strongest that a method misses, its rank correlation with all, whether it misses the best."""
    scores, exact = screened.scores[method], np.abs(screened.exact)
    if not np.isfinite(scores[known]).all():
        return np.nan, np.nan, np.nan
    wanted, found = strongest(known, exact, count), strongest(known, scores, count)
    missed = 1 - len(np.intersect1d(wanted, found)) / count
    return missed, rank_correlation(scores[known], exact[known]), float(wanted[0] not in found)


def _error(screened: _Screened, here: np.ndarray) -> float:
    """Of what was confirmed: how far estimates are off, as a share of the exact effects."""
    picked = here[screened.confirmed[here] & np.isfinite(screened.exact[here])]
    estimates = screened.estimates[picked]
    size = np.abs(screened.exact[picked]).sum()
    return float(np.abs(estimates - screened.exact[picked]).sum() / size) if size > 0 else np.nan


def _averages(
    numbers: dict[str, np.ndarray], chance: np.ndarray, error: np.ndarray, settings: Settings
) -> xr.Dataset:
    mean = mean_over_prompts(settings)
    words = {
        "missed": f"share of the {settings.strongest} strongest patches that the screen misses",
        "order": "rank correlation of the screen with the sizes of exact effects",
        "best_missed": f"whether the strongest of all is not among the screen's {settings.strongest}",
    }
    variables: dict[str, xr.Variable] = {}
    for name, values in numbers.items():
        variables[f"prompt_screen_{name}"] = quantity(values, "prompt kind screened_by", words[name])
        variables |= interval_variables(f"screen_{name}", mean(values), "kind screened_by", words[name])
    variables |= interval_variables(
        "screen_chance", mean(chance), "kind", f"{words['missed']}, if it picked at random"
    )
    variables |= interval_variables(
        "screen_error",
        mean(error),
        "kind",
        "error of the confirmed estimates, as a share of the exact effects",
    )
    variables["screen_strongest"] = quantity(settings.strongest, "", "k of the k strongest patches")
    dataset = xr.Dataset(
        variables,
        coords={
            "kind": text_coordinate(list(KINDS.values()), "kind", "what is patched"),
            "screened_by": text_coordinate(METHODS, "screened_by", "how it is screened"),
        },
    )
    return xr.merge([dataset, _fixes(numbers["missed"], mean, settings)], join="outer")


def _fixes(missed: np.ndarray, mean: Any, settings: Settings) -> xr.Dataset:
    """Does a fix miss less than plain gradients on the same prompts?"""
    names, changes = [], []
    for column, kind in enumerate(KINDS.values()):
        for method in (1, 2):
            change = missed[:, column, method] - missed[:, column, 0]
            if np.isfinite(change).any():
                names.append(f"{kind}: {METHODS[method].removeprefix('gradients, ')}")
                changes.append(change)
    if not names:
        return xr.Dataset()
    tests = [sign_flip_p(change[np.isfinite(change)], seed=settings.seed) for change in changes]
    least = [min(1.0, len(tests) * least_p_of_signs(n)) for _, n in tests]
    what = "change of the share that is missed, against plain gradients"
    return xr.Dataset(
        interval_variables("screen_gain", stacked([mean(change) for change in changes]), "fix", what)
        | {
            "screen_gain_p": quantity(
                holm([p for p, _ in tests]), "fix", "p by flipping signs of prompts, Holm over fixes"
            ),
            "screen_gain_least_p": quantity(least, "fix", "smallest adjusted p that was possible"),
        },
        coords={"fix": text_coordinate(names, "fix", "kind and fix")},
    )


def _over_depth(result: xr.Dataset, screened: _Screened, settings: Settings) -> xr.Dataset:
    """Exact and estimated effects of the two states that matter most, over depth."""
    mean = mean_over_prompts(settings)
    used = np.flatnonzero(used_prompts(result))
    places = {LAST_SUBJECT: LAST_SUBJECT, LAST: LAST}
    values = np.full((len(used), 2, len(places), result.sizes["depth"]), np.nan)
    classes = dict(
        zip(
            zip(result.token_prompt.values.tolist(), result.position.values.tolist(), strict=True),
            result.token_class.values.tolist(),
            strict=True,
        )
    )
    rows = {str(result.prompt.values[index]): row for row, index in enumerate(used)}
    for cell in np.flatnonzero(screened.kind == "state"):
        name, position = str(screened.prompt[cell]), int(screened.position[cell])
        place = classes.get((name, position))
        if name in rows and place in places:
            column, depth = list(places).index(place), int(screened.layer[cell])
            values[rows[name], :, column, depth] = screened.exact[cell], screened.plain[cell]
    return xr.Dataset(
        interval_variables(
            "screen_effect", mean(values), "source screened_row depth", "mean change of the metric"
        ),
        coords={
            "source": text_coordinate(SOURCES, "source", "exact, or estimated by gradient"),
            "screened_row": text_coordinate(list(places), "screened_row", "token whose state is patched"),
        },
    )
