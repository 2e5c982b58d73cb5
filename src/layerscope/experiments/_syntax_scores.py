"""Scores of syntax probes over depth, with intervals over test documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments._syntax_rows import FIELDS, Design, baselines
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts
from layerscope.maths.probe_scores import compression, f1_counts, macro_f1, selectivity
from layerscope.maths.simultaneous import largest_t_p
from layerscope.results.schema import quantity, write_json
from layerscope.text.tokenised_words import LEFT_OUT

MAIN = "relation"
_OVER = "task depth"


class Resampled:
    """Test documents drawn again and again, the same draws for every score."""

    def __init__(self, document: np.ndarray, *, seed: int, level: float, resamples: int) -> None:
        names, self.document = np.unique(document, return_inverse=True)
        self.units, self.level = len(names), level
        self.counts = resampled_counts(self.units, seed=seed, resamples=resamples)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of each document [document *cell] of values [*cell row]; NaN counts nothing."""
        flat = np.nan_to_num(values).reshape(-1, values.shape[-1])
        by_document = np.zeros((self.units, len(flat)))
        np.add.at(by_document, self.document, flat.T)
        return by_document.reshape(self.units, *values.shape[:-1])

    def again(self, sums: np.ndarray) -> np.ndarray:
        """Sums of each resample [resample *cell]."""
        return (self.counts @ sums.reshape(self.units, -1)).reshape(-1, *sums.shape[1:])

    def mean(self, values: np.ndarray) -> tuple[Interval, np.ndarray]:
        """Mean over rows [*cell] with its interval, and its resamples [resample *cell]; NaN is left out."""
        sums, known = self.sums(values), self.sums(np.isfinite(values).astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            value, draws = sums.sum(0) / known.sum(0), self.again(sums) / self.again(known)
        return self.interval(value, draws), draws

    def interval(self, value: np.ndarray, draws: np.ndarray) -> Interval:
        """The interval of a score from its resamples."""
        return interval_of_draws(value, draws, units=self.units, level=self.level)


def conclude(
    words: xr.Dataset,
    fits: xr.Dataset,
    design: Design,
    *,
    asked: Sequence[str],
    seed: int,
    level: float,
    resamples: int,
) -> xr.Dataset:
    """The result: scores of every task at every depth, and the answer about every tested word.

    `asked` are the tasks that were wanted; of those that could not be asked it is said why.
    """
    tested, n_depths = design.tested, int(fits.fit.values.max()) + 1
    again = Resampled(design.document[tested], seed=seed, level=level, resamples=resamples)
    labels = design.labels[:, tested]
    main, spread = _chosen(fits, labels, "trained", "last")
    without = {
        name: np.mean([baselines(design, draw)[name] for draw in range(_draws(fits))], axis=0)
        for name in ("type", "type and position")
    }
    variables = _scores(main, without, labels, design, again)
    variables |= _beside(fits, labels, main, without, again)
    split = design.rows[0, tested] != design.rows[1, tested]
    variables |= _first_pieces(fits, labels, main, split, again)
    variables |= _codes(fits, design)
    if spread is not None:
        variables["spread_over_draws"] = quantity(spread, _OVER, "SD of accuracy over draws", "1")
    variables |= _answers(design, labels, main["predicted"])
    result = xr.Dataset(
        variables,
        coords={
            "task": text_coordinate([task.name for task in design.tasks], "task", "what is asked"),
            "depth": depth_coordinate(n_depths - 1),
            "tested": number_coordinate(tested, "tested", "number of a tested word among the chosen ones"),
            "tested_form": ("tested", design.types[tested], {"long_name": "the word as it is written"}),
            "tested_document": (
                "tested",
                np.array(design.documents)[design.document[tested]],
                {"long_name": "its document"},
            ),
        },
    )
    return write_json(
        result,
        cautions=_not_asked(words, design, asked) + _cautions(words, fits, design, again.units),
        classes={task.name: list(task.classes) for task in design.tasks},
        level=level,
        learnt_words=len(design.learnt(0)),
        tested_words=len(tested),
        several_tokens=int(split.sum()),
    )


def _draws(fits: xr.Dataset) -> int:
    return int(fits.fit_draw.values.max()) + 1


def _chosen(
    fits: xr.Dataset, labels: np.ndarray, weights: str, piece: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Loss, right, control and answers [task depth tested] of one kind of fit, averaged over draws.

    Also the spread of accuracy over draws [task depth], None where there is one draw or no such fit.
    """
    is_one = (fits.fit_weights.values == weights) & (fits.fit_piece.values == piece)
    if not is_one.any():
        return {}, None
    draws = []
    for draw in range(int(fits.fit_draw.values[is_one].max()) + 1):
        here = fits.isel(fit=np.flatnonzero(is_one & (fits.fit_draw.values == draw))).sortby("fit")
        predicted = here.predicted.values.swapaxes(0, 1)
        known = (labels >= 0)[:, None]
        control = here.control_right.values.swapaxes(0, 1)
        draws.append(
            {
                "loss": here.loss.values.swapaxes(0, 1).astype(np.float64),
                "right": np.where(known, predicted == labels[:, None], np.nan),
                "control": np.where(control >= 0, control, np.nan),
                "predicted": predicted,
            }
        )
    found = {name: np.mean([draw[name] for draw in draws], axis=0) for name in ("loss", "right", "control")}
    found["predicted"] = draws[0]["predicted"]
    each = [np.nanmean(draw["right"], axis=-1) for draw in draws]
    return found, np.std(each, axis=0, ddof=1) if len(draws) > 1 else None


def _scores(
    main: Mapping[str, np.ndarray],
    without: Mapping[str, np.ndarray],
    labels: np.ndarray,
    design: Design,
    again: Resampled,
) -> dict[str, xr.Variable]:
    """Accuracy, loss, macro-F1, control and selectivity; gains over what words alone tell."""
    accuracy, _ = again.mean(main["right"])
    loss, loss_draws = again.mean(main["loss"])
    gain, gain_draws = again.mean(main["right"] - without["type"][1][:, None])
    found = interval_variables("accuracy", accuracy, _OVER, "accuracy")
    found |= interval_variables("loss", loss, _OVER, "loss of the probe", "nat")
    found |= interval_variables("macro_f1", _f1(main["predicted"], labels, design, again), _OVER, "macro-F1")
    found |= interval_variables("gain", gain, _OVER, "accuracy beyond what the word type tells")
    found["p_adjusted"] = quantity(
        largest_t_p(gain.value, gain_draws, units=gain.n),
        _OVER,
        "p of the gain, adjusted for all tasks and depths",
    )
    met = np.isin(design.types[design.tested], design.types[design.learnt(0)])
    on_met = np.where(met, main["right"] - without["type"][1][:, None], np.nan)
    what = "accuracy beyond what the word type tells, about words that were learnt from"
    found |= interval_variables("gain_met", again.mean(on_met)[0], _OVER, what)
    for name, values, long_name, units in (
        ("gain_over_position", main["right"] - without["type and position"][1][:, None], "accuracy", "1"),
        ("saved", without["type"][0][:, None] - main["loss"], "loss saved", "nat"),
        ("saved_over_position", without["type and position"][0][:, None] - main["loss"], "loss saved", "nat"),
    ):
        what = "type and position tell" if "position" in name else "the word type tells"
        found |= interval_variables(
            name, again.mean(values)[0], _OVER, f"{long_name} beyond what {what}", units
        )
    for name, key in (("type", "type"), ("type_and_position", "type and position")):
        both = again.mean(without[key])[0]
        for row, (score, units) in enumerate((("loss", "nat"), ("accuracy", "1"))):
            one = Interval(both.value[row], both.low[row], both.high[row], both.n[row])
            found |= interval_variables(f"{name}_{score}", one, "task", f"{score} by {key} alone", units)
    # A label for each word type is no control for a label that a whole document has: genres have no selectivity.
    of_words = np.array([task.field != "genre" for task in design.tasks])
    controls = np.where(of_words[:, None, None], main["control"], np.nan)
    if np.isfinite(controls).any():
        control, control_draws = again.mean(controls)
        found |= interval_variables("control_accuracy", control, _OVER, "accuracy on the control task")
        _, accuracy_draws = again.mean(main["right"])
        chosen = again.interval(
            selectivity(accuracy.value, control.value), selectivity(accuracy_draws, control_draws)
        )
        found |= interval_variables("selectivity", chosen, _OVER, "accuracy less that on the control task")
    best = loss_draws.argmin(axis=2).astype(np.float64)
    tail = (1 - again.level) / 2
    place = Interval(
        loss.value.argmin(axis=1).astype(np.float64),
        np.quantile(best, tail, axis=0, method="inverted_cdf"),
        np.quantile(best, 1 - tail, axis=0, method="inverted_cdf"),
        np.full(len(labels), again.units),
    )
    return found | interval_variables("best_depth", place, "task", "depth of the least loss", "block")


def _f1(predicted: np.ndarray, labels: np.ndarray, design: Design, again: Resampled) -> Interval:
    tasks, depths, _ = predicted.shape
    value = np.empty((tasks, depths))
    draws = np.empty((len(again.counts), tasks, depths))
    rows = [np.flatnonzero(again.document == unit) for unit in range(again.units)]
    for t, task in enumerate(design.tasks):
        for d in range(depths):
            count = len(task.classes)
            sums = np.stack([f1_counts(labels[t, r], predicted[t, d, r].astype(int), count) for r in rows])
            value[t, d], draws[:, t, d] = macro_f1(sums.sum(0)), macro_f1(again.again(sums))
    return again.interval(value, draws)


def _beside(
    fits: xr.Dataset,
    labels: np.ndarray,
    main: Mapping[str, np.ndarray],
    without: Mapping[str, np.ndarray],
    again: Resampled,
) -> dict[str, xr.Variable]:
    """The untrained twin's scores, and what training adds to them."""
    twin, _ = _chosen(fits, labels, "untrained", "last")
    if not twin:
        return {}
    one_draw, _ = _chosen(fits.isel(fit=np.flatnonzero(fits.fit_draw.values == 0)), labels, "trained", "last")
    rows = (
        ("untrained_accuracy", twin["right"], "accuracy on the untrained twin", "1"),
        ("untrained_loss", twin["loss"], "loss on the untrained twin", "nat"),
        (
            "untrained_gain",
            twin["right"] - without["type"][1][:, None],
            "the untrained twin's accuracy beyond what the word type tells",
            "1",
        ),
        ("training_adds", one_draw["right"] - twin["right"], "accuracy beyond the untrained twin's", "1"),
    )
    found: dict[str, xr.Variable] = {}
    for name, values, what, units in rows:
        found |= interval_variables(name, again.mean(values)[0], _OVER, what, units)
    return found


def _first_pieces(
    fits: xr.Dataset,
    labels: np.ndarray,
    main: Mapping[str, np.ndarray],
    split: np.ndarray,
    again: Resampled,
) -> dict[str, xr.Variable]:
    """Accuracy about words of several tokens, read at their first and at their last."""
    first, _ = _chosen(fits, labels, "trained", "first")
    if not first or not split.any():
        return {}
    found: dict[str, xr.Variable] = {}
    for name, values in (("first_piece", first["right"]), ("last_piece", main["right"])):
        only = np.where(split, values, np.nan)
        what = f"accuracy about words of several tokens, at their {name.split('_')[0]} token"
        found |= interval_variables(f"{name}_accuracy", again.mean(only)[0], _OVER, what)
    return found


def _codes(fits: xr.Dataset, design: Design) -> dict[str, xr.Variable]:
    is_main = (fits.fit_weights.values == "trained") & (fits.fit_piece.values == "last")
    draws = [
        fits.isel(fit=np.flatnonzero(is_main & (fits.fit_draw.values == draw))).sortby("fit")
        for draw in range(_draws(fits))
    ]
    bits = np.array([draw.code_bits.values.T for draw in draws])
    if not np.isfinite(bits).any():
        return {}
    counts = np.array(
        [[(row[design.learnt(d)] >= 0).sum() for row in design.labels] for d in range(len(draws))]
    )
    classes = np.array([len(task.classes) for task in design.tasks])
    each = bits / counts[..., None]
    saved = compression(bits, counts[..., None], classes[:, None])
    return {
        "code_length": quantity(each.mean(0), _OVER, "online code, for each label", "bit"),
        "compression": quantity(saved.mean(0), _OVER, "compression by the online code"),
    }


def _answers(design: Design, labels: np.ndarray, predicted: np.ndarray) -> dict[str, xr.Variable]:
    return {
        "label": quantity(labels.astype(np.int16), "task tested", "number of the true label, −1: not asked"),
        "predicted": quantity(
            predicted.astype(np.int16), "task depth tested", "number of the likeliest label"
        ),
    }


def _not_asked(words: xr.Dataset, design: Design, asked: Sequence[str]) -> list[str]:
    """Why a task that was wanted is not there."""
    found = []
    there = {task.name for task in design.tasks}
    for name in asked:
        if name in there:
            continue
        column = words.sentence_genre if FIELDS[name] == "genre" else words[FIELDS[name]]
        labels = set(column.values.tolist()) - {""}
        if not labels:
            found.append(f"{name} is not asked about: this treebank does not annotate it")
        elif len(labels) == 1:
            found.append(f"{name} is not asked about: this treebank has only one ({labels.pop()})")
        else:
            found.append(
                f"{name} is not asked about: fewer than two labels have enough words to learn from, or no tested "
                "word has one of them"
            )
    return found


def _cautions(words: xr.Dataset, fits: xr.Dataset, design: Design, documents: int) -> list[str]:
    found = []
    why = Counter(words.left_out.values.tolist())
    n = len(words.left_out)
    left = ", ".join(f"{count} {LEFT_OUT[key]}" for key, count in sorted(why.items()) if key)
    if left:
        found.append(f"{n - why['']} of {n} words are left out: {left}")
    if documents < 8:
        found.append(f"only {documents} test document{'s' * (documents > 1)}: intervals are too short")
    for task in design.tasks:
        if task.left_out and not task.shift:
            rare = ", ".join(task.left_out)
            n_words = sum(task.left_out.values())
            found.append(
                f"{task.name}: {n_words} words with labels too rare to learn are not asked about ({rare})"
            )
    slow = int((~fits.converged.values).sum())
    if slow:
        found.append(f"{slow} of {fits.converged.size} fits were stopped before their tolerance")
    return found


def strip(result: xr.Dataset) -> xr.Dataset:
    """The gain over depth of the main task, with the untrained twin's for null."""
    names = result.task.values.tolist()
    one = result.sel(task=MAIN if MAIN in names else names[0])
    null = one.untrained_gain.reset_coords(drop=True) if "untrained_gain" in one else None
    return as_curve(one, "gain", null=null)


def named(result: xr.Dataset, name: str) -> list[Any]:
    """Names of tasks for which a score is known."""
    if name not in result:
        return []
    known = np.isfinite(result[name].values).reshape(result.sizes["task"], -1).any(axis=1)
    return [task for task, is_known in zip(result.task.values.tolist(), known, strict=True) if is_known]
