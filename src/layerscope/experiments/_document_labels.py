"""Labels of whole documents, read off single tokens: at which depth, and how long after they were given?

A passage's genre is there from its first token; a label that a passage announces (a register, a dialect, a
language) from the word that says it. At tokens 1, 2, 4, 8, … after that, probes ask every depth for the
label, on passages that they did not learn from. If a label is read early in depth long after it was given,
it has been carried there before long-range reading begins; what the token itself gives away is the baseline.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Earlier, ExperimentSettings, WorkItem
from layerscope.experiments._coordinates import number_coordinate, text_coordinate
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._syntax_rows import scored
from layerscope.experiments._syntax_scores import Resampled
from layerscope.experiments._word_tasks import depth_chunks
from layerscope.maths.bootstrap import Interval
from layerscope.maths.probe_scores import backed_off, label_frequencies
from layerscope.maths.probes import fit_logistic
from layerscope.maths.simultaneous import largest_t_p
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

KINDS = ("genre", "announced")
_FOLDS = 4


class PassageItem(WorkItem):
    """One passage, its labels, and the positions at which each label is given (−1: it has none)."""

    passage: TokenisedPassage
    labels: tuple[str, str]
    given: tuple[int, int]
    tokens: int


class DepthsItem(WorkItem):
    """All labels at some depths, which are fitted together."""

    depths: tuple[int, ...]


def passage_items(
    passages: Sequence[TokenisedPassage], pattern: str, tokens: int, fewest: int
) -> Iterator[PassageItem]:
    """Passages that have a label which enough passages share, in their order; none where there are no two labels."""
    announced = [_announced(passage, pattern) for passage in passages]
    genres = [passage.passage.genre for passage in passages]
    kept = [_frequent(genres, fewest), _frequent([label for label, _ in announced], fewest)]
    for passage, genre, (label, place) in zip(passages, genres, announced, strict=True):
        own = (genre if genre in kept[0] else "", label if label in kept[1] else "")
        if any(own):
            given = (int(passage.tokens.bos) if own[0] else -1, place if own[1] else -1)
            read = _needed(min(tokens, len(passage.tokens)), given)
            if not read:
                continue
            yield PassageItem(
                name=passage.name, size=read, passage=passage, labels=own, given=given, tokens=read
            )


def _announced(passage: TokenisedPassage, pattern: str) -> tuple[str, int]:
    """The label that a passage announces, and the position of the last token that says it."""
    try:
        compiled = re.compile(pattern)
        if pattern and not compiled.groups:
            raise re.error("it has no group")
    except re.error as error:
        raise LayerscopeError(
            "the pattern of announced labels cannot be used",
            found=f"{pattern!r}: {error}",
            expected=r"a regular expression whose first group is the label, such as Speech: (\w+)",
            hint="--set announced=''   to do without",
        ) from error
    match = compiled.search(passage.passage.text) if pattern else None
    if match is None or not match[1]:
        return "", -1
    inside = [place for place, (start, end) in enumerate(passage.tokens.spans) if start < match.end(1) <= end]
    return (match[1], inside[-1]) if inside else ("", -1)


def _frequent(labels: Sequence[str], fewest: int) -> set[str]:
    counts = Counter(label for label in labels if label)
    kept = {label for label, count in counts.items() if count >= fewest}
    return kept if len(kept) > 1 else set()


def _needed(tokens: int, given: tuple[int, int]) -> int:
    """Tokens up to the last one that is read: 2ⁿ behind a label, as far as the text goes; 0 if there is none."""
    behind = [(place, tokens - 1 - place) for place in given if place >= 0]
    return max((place + (1 << left.bit_length() - 1) + 1 for place, left in behind if left > 0), default=0)


def depth_items(rows: xr.Dataset, n_layers: int, width: int) -> Iterator[DepthsItem]:
    """All depths, as many at a time as memory allows; none where no passage has a label."""
    if "token_passage" not in rows.coords:
        return
    read = int(np.any(_places(rows.since.values), axis=1).sum())
    for depths in depth_chunks(n_layers + 1, read, width):
        yield DepthsItem(
            name=f"labels, depths {depths.start} to {depths.stop - 1}", size=len(depths), depths=tuple(depths)
        )


def rows_of(
    model: LayeredModel, item: PassageItem, settings: ExperimentSettings, earlier: Earlier
) -> xr.Dataset:
    """One passage's token ids and labels, and since how many tokens each label is given."""
    n = item.tokens
    since = np.stack([np.arange(n) - given if given >= 0 else np.full(n, -1) for given in item.given], axis=1)
    kinds = text_coordinate(KINDS, "label_kind", "which label")
    return xr.Dataset(
        {
            "token_id": quantity(np.array(item.passage.tokens.ids[:n]), "token", "token id"),
            "since": quantity(since, "token label_kind", "tokens since the label was given"),
            "passage_tokens": quantity(np.array([n]), "passage", "tokens that are read"),
        },
        coords={
            "label_kind": kinds,
            "token_passage": text_coordinate([item.name] * n, "token", "passage of the token"),
            "passage": text_coordinate([item.name], "passage", "passage"),
            "passage_genre": text_coordinate([item.labels[0]], "passage", "genre"),
            "passage_announced": text_coordinate([item.labels[1]], "passage", "announced label"),
        },
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
    right = np.full((len(item.depths), len(KINDS), 2, len(picked)), np.nan)
    loss = np.full_like(right, np.nan)
    for kind, name in enumerate(KINDS):
        read = np.flatnonzero(_places(rows.since.values[picked, kind]))
        classes, labels = np.unique(rows[f"passage_{name}"].values, return_inverse=True)
        has = classes != ""
        labels = labels.reshape(-1) - int(not has.all())
        if has.sum() < 2:
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
                states[:, learn], asked[:, learn], [int(has.sum())] * 2, l2=l2, tolerance=tolerance
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
            "label_kind": text_coordinate(KINDS, "label_kind", "which label"),
            "against": text_coordinate(
                ["label", "dealt"], "against", "true labels, or dealt to other passages"
            ),
            "read": number_coordinate(picked, "read", "row of a token that is read"),
        },
    )


def _texts(rows: xr.Dataset) -> list[list[int]]:
    ends = np.cumsum(rows.passage_tokens.values)
    return [ids.tolist() for ids in np.split(rows.token_id.values, ends[:-1])]


def _states(
    model: LayeredModel, tokens: list[list[int]], picked: np.ndarray, depths: Sequence[int]
) -> Tensor:
    """States [depth row width] of the picked tokens."""
    import torch

    cache, start = runs.StateCache(model), 0
    parts: list[list[Tensor]] = [[] for _ in depths]
    for group in runs.groups([len(ids) for ids in tokens]):
        stop = start + sum(len(tokens[text]) for text in group)
        here = torch.from_numpy(picked[(picked >= start) & (picked < stop)] - start)
        for part, depth in zip(parts, depths, strict=True):
            part.append(cache.states([tokens[text] for text in group], depth)[here])
        start = stop
    found = torch.stack([torch.cat(part) for part in parts])
    return found.to(model.device, torch.promote_types(torch.float32, found.dtype))


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
    """The result with the labels' accuracy over depth and over tokens since each was given, if there are any."""
    if "right" not in fits:
        return result
    ordered = fits.sortby("fit")
    since = rows.since.values[fits.read.values]
    kinds = [kind for kind in range(len(KINDS)) if np.isfinite(ordered.right.values[:, kind]).any()]
    after = sorted({int(steps) for kind in kinds for steps in since[_places(since[:, kind]), kind]})
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
        label_kind=text_coordinate([KINDS[kind] for kind in kinds], "label_kind", "which label"),
        since=number_coordinate(after, "since", "tokens since the label was given"),
    )


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
    by_type = _by_type(rows, KINDS[kind], kind, fits.read.values, passage, seed)[mine]
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


def _by_type(
    rows: xr.Dataset, name: str, kind: int, picked: np.ndarray, passage: np.ndarray, seed: int
) -> np.ndarray:
    """Whether the token alone gives the label away, by counts on other passages; NaN where it has none."""
    found = np.full(len(picked), np.nan)
    classes, labels = np.unique(rows[f"passage_{name}"].values, return_inverse=True)
    has = classes != ""
    labels = labels.reshape(-1) - int(not has.all())
    if has.sum() < 2:
        return found
    fold, ids = _folds(labels, seed), rows.token_id.values[picked].tolist()
    read = np.flatnonzero(_places(rows.since.values[picked, kind]))
    for held_out in range(_FOLDS):
        test = read[fold[passage[read]] == held_out]
        learn = read[fold[passage[read]] != held_out]
        if len(test):
            asked = labels[passage]
            prior = label_frequencies(asked[learn], int(has.sum()))
            told = backed_off([ids[i] for i in learn], asked[learn], [ids[i] for i in test], prior[None])
            found[test] = scored(told, asked[test])[1]
    return found
