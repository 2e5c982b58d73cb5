"""Scores of syntax probes over depth, with intervals over test documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from layerscope.evidence import Over, Resampled, cell_by_cell, named
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.syntax_probe.conclude.answers import answers, draws_of
from layerscope.experiments.syntax_probe.items.design import Design
from layerscope.maths.bootstrap import Interval
from layerscope.maths.probe_scores import compression, f1_counts, macro_f1, selectivity
from layerscope.results.schema import quantity

_OVER = ("task", "depth")
_BEYOND_TYPE = "accuracy beyond that of the word type alone"


def scores(
    main: xr.Dataset, alone: xr.Dataset, labels: xr.DataArray, design: Design, over: Over
) -> xr.Dataset:
    """Accuracy, loss, macro-F1, control and selectivity; gains over what words alone allow.

    Args:
        main: answers of the model's own probes at the last token of a word.
        alone: what the word type allows, with and without position.
        labels: of tested words [task tested].
        design: the tasks.
        over: test documents.
    """
    loss = over.row_means(named(main.loss, "loss", "loss of the probe", "nat"))
    gain = over.row_means(named(main.right - alone.type_accuracy, "gain", _BEYOND_TYPE))
    return xr.merge(
        [
            *(over.quantity(over.row_means(one)) for one in _simple(main, alone, design)),
            over.quantity(loss),
            over.quantity(gain, together=_OVER, above=0.0, p="p_adjusted", draws=True),
            over.quantity(_f1(main.predicted, labels, design, over)),
            *_control(main, design, over),
            _best_depth(loss, over),
        ]
    )


def _simple(main: xr.Dataset, alone: xr.Dataset, design: Design) -> Iterator[xr.DataArray]:
    """Scores that are means over tested words."""
    both = "type and position"
    met = np.isin(design.types[design.tested], design.types[design.learnt(0)])
    gain, saved = main.right - alone.type_accuracy, alone.type_loss - main.loss
    yield named(main.right, "accuracy", "accuracy")
    yield named(
        gain.where(xr.DataArray(met, dims="tested")),
        "gain_met",
        f"{_BEYOND_TYPE}, for words seen in training",
    )
    yield named(
        main.right - alone.type_and_position_accuracy,
        "gain_over_position",
        f"accuracy beyond that of {both} alone",
    )
    yield named(saved, "saved", "loss saved beyond the word type alone", "nat")
    yield named(
        alone.type_and_position_loss - main.loss,
        "saved_over_position",
        f"loss saved beyond {both} alone",
        "nat",
    )
    for name in ("type", "type_and_position"):
        for score, unit in (("loss", "nat"), ("accuracy", "1")):
            yield named(
                alone[f"{name}_{score}"],
                f"{name}_{score}",
                f"{score} by {name.replace('_', ' ')} alone",
                unit,
            )


def _f1(predicted: xr.DataArray, labels: xr.DataArray, design: Design, over: Over) -> Resampled:
    """Macro-F1 of every task and depth, from counts of whole documents."""
    tasks = []
    for number, task in enumerate(design.tasks):
        true, said = labels.isel(task=number).to_numpy(), predicted.isel(task=number).to_numpy().astype(int)
        counts = [
            [f1_counts(true[rows], one[rows], len(task.classes)) for one in said]
            for rows in over.places.values()
        ]
        sums = over.sums(xr.DataArray(counts, dims=(over.unit, "depth", "score", "label")))
        tasks.append(
            sums.map(lambda one: xr.apply_ufunc(macro_f1, one, input_core_dims=[["score", "label"]]))
        )
    value, draws, n = (
        xr.concat([getattr(one, of) for one in tasks], dim="task") for of in ("value", "draws", "n")
    )
    return Resampled(value, draws, n).named("macro_f1", "macro-F1")


def _control(main: xr.Dataset, design: Design, over: Over) -> Iterator[xr.Dataset]:
    """Accuracy on control tasks, and what is left beyond it.

    A label for each word type is no control for a label that a whole document has: genres have no selectivity.
    """
    of_words = xr.DataArray([task.field != "genre" for task in design.tasks], dims="task")
    control = named(main.control.where(of_words), "control_accuracy", "accuracy on the control task")
    if not control.notnull().any():
        return
    beside, own = over.row_means(control), over.row_means(main.right)
    yield over.quantity(beside)
    left = Resampled(
        cell_by_cell(selectivity, own.value, beside.value),
        cell_by_cell(selectivity, own.draws, beside.draws),
        own.n,
    ).named("selectivity", "accuracy less that on the control task")
    yield over.quantity(left, together=_OVER)


def _best_depth(loss: Resampled, over: Over) -> xr.Dataset:
    """Depth of the least loss, with plain quantiles over resamples: depths are whole numbers."""
    best, tail = (
        loss.map(lambda curve: curve.argmin("depth").astype(np.float64)),
        (1 - over.settings.level) / 2,
    )
    low, high = (np.quantile(best.draws, end, axis=0, method="inverted_cdf") for end in (tail, 1 - tail))
    interval = Interval(best.value.to_numpy(), low, high, best.n.to_numpy())
    found = interval_variables("best_depth", interval, ["task"], "depth of the least loss", "layer")
    found["best_depth"].attrs["over"] = over.unit
    return xr.Dataset(found)


def untrained(fits: xr.Dataset, labels: xr.DataArray, alone: xr.Dataset, over: Over) -> xr.Dataset:
    """The untrained twin's scores, and what training adds to them."""
    draws = draws_of(fits, "untrained", "last")
    if not draws:
        return xr.Dataset()
    twin = answers(draws, labels)
    own = answers(draws_of(fits, "trained", "last")[:1], labels)
    what = "the untrained twin's accuracy beyond that of the word type alone"
    return xr.merge(
        over.quantity(over.row_means(one))
        for one in (
            named(twin.right, "untrained_accuracy", "accuracy on the untrained twin"),
            named(twin.loss, "untrained_loss", "loss on the untrained twin", "nat"),
            named(twin.right - alone.type_accuracy, "untrained_gain", what),
            named(own.right - twin.right, "training_adds", "accuracy beyond the untrained twin's"),
        )
    )


def first_pieces(
    fits: xr.Dataset, main: xr.Dataset, labels: xr.DataArray, split: xr.DataArray, over: Over
) -> xr.Dataset:
    """Accuracy about words of several tokens, read at their first and at their last."""
    draws = draws_of(fits, "trained", "first")
    if not draws or not split.any():
        return xr.Dataset()
    return xr.merge(
        over.quantity(
            over.row_means(
                named(
                    one.right.where(split),
                    f"{piece}_piece_accuracy",
                    f"accuracy about words of several tokens, at their {piece} token",
                )
            )
        )
        for piece, one in (("first", answers(draws, labels)), ("last", main))
    )


def codes(draws: Sequence[xr.Dataset], design: Design) -> xr.Dataset:
    """Length of an online code for each label, and how many times shorter it is than one that knows nothing."""
    bits = np.array([draw.code_bits.transpose("task", "depth").to_numpy() for draw in draws])
    if not np.isfinite(bits).any():
        return xr.Dataset()
    counts = np.array(
        [[(row[design.learnt(draw)] >= 0).sum() for row in design.labels] for draw in range(len(draws))]
    )
    classes = np.array([len(task.classes) for task in design.tasks])
    saved = compression(bits, counts[..., None], classes[:, None])
    return xr.Dataset(
        {
            "code_length": quantity(
                (bits / counts[..., None]).mean(0), _OVER, "online code, for each label", "bit"
            ),
            "compression": quantity(saved.mean(0), _OVER, "compression by the online code"),
        }
    )
