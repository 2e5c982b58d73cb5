"""Labels of whole documents, read off single tokens: at which depth, and how long after they were given?

A passage's genre, and what else its file says of it in a column of its own (a language, a register), is there
from its first token; a label that a passage announces (a dialect) from the word that says it. At tokens 1, 2,
4, 8, … after that, probes ask every depth for the label, on passages that they did not learn from. If a label
is read early in depth long after it was given, it has been carried there before long-range reading begins;
what the token itself gives away is the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.evidence.probing import depth_chunks
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments._syntax_rows import scored
from layerscope.experiments._syntax_scores import Resampled
from layerscope.maths.bootstrap import Interval
from layerscope.maths.probe_scores import backed_off, label_frequencies
from layerscope.maths.probes import fit_logistic
from layerscope.maths.simultaneous import largest_t_p
from layerscope.results.schema import quantity, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

_FOLDS = 4


class DepthsItem(WorkItem):
    """All labels at some depths, which are fitted together."""

    depths: tuple[int, ...]


def depth_items(rows: xr.Dataset, n_layers: int, width: int) -> Iterator[DepthsItem]:
    """All depths, as many at a time as memory allows; none where no passage has a label."""
    if "token_passage" not in rows.coords:
        return
    read = int(np.any(_places(rows.since.values), axis=1).sum())
    for depths in depth_chunks(n_layers + 1, read, width):
        yield DepthsItem(
            name=f"labels, depths {depths.start} to {depths.stop - 1}", size=len(depths), depths=tuple(depths)
        )


def _places(since: np.ndarray) -> np.ndarray:
    """Which tokens are read: 1, 2, 4, 8, … after the label was given."""
    positive = np.maximum(since, 1)
    return (since > 0) & (positive & (positive - 1) == 0)


def fit_labels(
    model: LayeredModel, item: DepthsItem, rows: xr.Dataset, *, l2: float, tolerance: float, seed: int
) -> xr.Dataset:
    """Loss and answer for every token that is read, by probes that learnt from other passages.

    Beside each task stands its null: the same labels dealt to other passages.
    """
    tokens = _texts(rows)
    picked = np.flatnonzero(np.any(_places(rows.since.values), axis=1))
    states = _states(model, tokens, picked, item.depths)
    passage = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])[picked]
    kinds = rows.label_kind.values.tolist()
    right = np.full((len(item.depths), len(kinds), 2, len(picked)), np.nan)
    loss = np.full_like(right, np.nan)
    for kind in range(len(kinds)):
        read = np.flatnonzero(_places(rows.since.values[picked, kind]))
        n_classes, labels = _numbered(rows, kind)
        if n_classes < 2:
            continue
        of_passage = np.stack([labels, _dealt(labels, seed)])
        fold = _folds(labels, seed)
        for held_out in range(_FOLDS):
            test = read[fold[passage[read]] == held_out]
            learn = read[fold[passage[read]] != held_out]
            if not len(test):
                continue
            asked = of_passage[:, passage]
            probes = fit_logistic(
                states[:, learn], asked[:, learn], [n_classes] * 2, l2=l2, tolerance=tolerance
            )
            for row, logs in enumerate(probes.log_probabilities(states[:, test])):
                for depth, told in enumerate(logs.exp().double().cpu().numpy()):
                    loss[depth, kind, row, test], right[depth, kind, row, test] = scored(
                        told, asked[row, test]
                    )
    return xr.Dataset(
        {
            "right": quantity(right, "fit label_kind against read", "whether the likeliest label is right"),
            "loss": quantity(loss, "fit label_kind against read", "−log p of the label", "nat"),
        },
        coords={
            "fit": number_coordinate(item.depths, "fit", "probes at one depth"),
            "label_kind": rows.label_kind.variable,
            "against": text_coordinate(
                ["label", "dealt"], "against", "true labels, or dealt to other passages"
            ),
            "read": number_coordinate(picked, "read", "row of a token that is read"),
        },
    )


def _numbered(rows: xr.Dataset, kind: int) -> tuple[int, np.ndarray]:
    """How many labels of a kind there are, and the number of each passage's; −1 where it has none."""
    classes, labels = np.unique(rows.passage_label.values[kind], return_inverse=True)
    has = classes != ""
    return int(has.sum()), labels.reshape(-1) - int(not has.all())


def _texts(rows: xr.Dataset) -> list[list[int]]:
    ends = np.cumsum(rows.passage_tokens.values)
    return [ids.tolist() for ids in np.split(rows.token_id.values, ends[:-1])]


def _states(
    model: LayeredModel, tokens: list[list[int]], picked: np.ndarray, depths: Sequence[int]
) -> Tensor:
    """States [depth row width] of the picked tokens."""
    return runs.StateCache(model).picked(tokens, depths, picked).to(model.device)


def _dealt(labels: np.ndarray, seed: int) -> np.ndarray:
    dealt = labels.copy()
    dealt[labels >= 0] = np.random.default_rng([seed, 1]).permutation(labels[labels >= 0])
    return dealt


def _folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each passage; every label is spread over all folds."""
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    fold = np.empty(len(labels), dtype=int)
    for label in set(labels.tolist()):
        mine = order[labels[order] == label]
        fold[mine] = np.arange(len(mine)) % _FOLDS
    return fold


def concluded(
    result: xr.Dataset, rows: xr.Dataset, fits: xr.Dataset, seed: int, level: float, resamples: int
) -> xr.Dataset:
    """The result with the labels' accuracy over depth and over tokens since each was given, if there are any.

    A place that most passages do not reach is left out: the few that do are no sample of them.
    """
    cautions = [*read_json(result, "cautions"), *read_json(rows, "not_asked", [])]
    result = write_json(result, cautions=cautions)
    if "right" not in fits:
        return result
    ordered = fits.sortby("fit")
    since = rows.since.values[fits.read.values]
    names = rows.label_kind.values
    kinds = [kind for kind in range(len(names)) if np.isfinite(ordered.right.values[:, kind]).any()]
    after = [
        steps
        for steps in sorted({int(steps) for kind in kinds for steps in since[_places(since[:, kind]), kind]})
        if any(_reached(since, kind, steps) > _passages(rows, kind) / 2 for kind in kinds)
    ]
    each = [_scores_of(ordered, rows, kind, after, seed, level, resamples) for kind in kinds]
    over = "label_kind depth since"
    variables: dict[str, xr.Variable] = {}
    for name, what in (
        ("label_accuracy", "accuracy about the label"),
        ("label_gain", "accuracy beyond what the token tells"),
        ("label_null", "accuracy about labels dealt to other passages"),
        ("label_by_token", "accuracy by the token alone"),
    ):
        dims = "label_kind since" if name == "label_by_token" else over
        variables |= interval_variables(name, stacked([one[name][0] for one in each]), dims, what)
    variables["label_passages"] = quantity(
        np.array([[_reached(since, kind, steps) for steps in after] for kind in kinds]),
        "label_kind since",
        "passages that are read so far",
    )
    gains, draws = zip(*(one["label_gain"] for one in each), strict=True)
    variables["label_p"] = quantity(
        largest_t_p(
            np.stack([gain.value for gain in gains]),
            np.stack(draws, axis=1),
            units=np.stack([gain.n for gain in gains]),
        ),
        over,
        "p of that gain, adjusted for all labels, depths and places",
    )
    return result.assign(variables).assign_coords(
        label_kind=xr.Variable(("label_kind",), names[kinds], {"long_name": "which label"}),
        since=number_coordinate(after, "since", "tokens since the label was given"),
    )


def _passages(rows: xr.Dataset, kind: int) -> int:
    return int((rows.passage_label.values[kind] != "").sum())


def _reached(since: np.ndarray, kind: int, steps: int) -> int:
    """Passages that have a token so long after their label was given: each has one at most."""
    return int((since[:, kind] == steps).sum())


def _scores_of(
    fits: xr.Dataset,
    rows: xr.Dataset,
    kind: int,
    after: Sequence[int],
    seed: int,
    level: float,
    resamples: int,
) -> dict[str, tuple[Interval, np.ndarray]]:
    """Scores of one label [depth since] and their resamples, over the passages that have it."""
    passage = np.repeat(np.arange(rows.sizes["passage"]), rows.passage_tokens.values)[fits.read.values]
    since = rows.since.values[fits.read.values, kind]
    mine = np.flatnonzero(_places(since))
    by_type = _by_type(rows, kind, fits.read.values, passage, seed)[mine]
    here = since[mine] == np.array(after)[:, None]  # [since row]
    right, dealt = (
        np.where(here, fits.right.values[:, kind, against][:, None, mine], np.nan) for against in (0, 1)
    )
    alone = np.where(here, by_type, np.nan)
    again = Resampled(passage[mine], seed=seed, level=level, resamples=resamples)
    return {
        "label_accuracy": again.mean(right),
        "label_gain": again.mean(right - alone),
        "label_null": again.mean(dealt),
        "label_by_token": again.mean(alone),
    }


def _by_type(rows: xr.Dataset, kind: int, picked: np.ndarray, passage: np.ndarray, seed: int) -> np.ndarray:
    """Whether the token alone gives the label away, by counts on other passages; NaN where it has none."""
    found = np.full(len(picked), np.nan)
    n_classes, labels = _numbered(rows, kind)
    if n_classes < 2:
        return found
    fold, ids = _folds(labels, seed), rows.token_id.values[picked].tolist()
    read = np.flatnonzero(_places(rows.since.values[picked, kind]))
    for held_out in range(_FOLDS):
        test = read[fold[passage[read]] == held_out]
        learn = read[fold[passage[read]] != held_out]
        if len(test):
            asked = labels[passage]
            prior = label_frequencies(asked[learn], n_classes)
            told = backed_off([ids[i] for i in learn], asked[learn], [ids[i] for i in test], prior[None])
            found[test] = scored(told, asked[test])[1]
    return found
