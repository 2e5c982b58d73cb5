"""Labels of whole documents: accuracy over depth and over tokens since each was given, over held-out passages."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, Resampled, named, number_coordinate, side_by_side
from layerscope.evidence.families import with_p
from layerscope.evidence.probing import scored
from layerscope.experiments.syntax_probe.items.passages import FOLDS, folds_of, numbered_labels, read_since
from layerscope.experiments.syntax_probe.settings import Settings
from layerscope.maths.bootstrap import FEWEST_UNITS
from layerscope.maths.probe_scores import backed_off, label_frequencies
from layerscope.maths.simultaneous import largest_t_p
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity

_OVER = ("label_kind", "depth", "since")


def labels_of_documents(rows: xr.Dataset, fits: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Accuracy about each label, with its baselines; nothing where no passage has a label.

    A place that most passages do not reach is left out: the few that do are no sample of them.

    Args:
        rows: passages, their labels, and since how many tokens each is given.
        fits: loss and rightness of probes [fit label_kind against read].
        settings: seed and resamples.
    """
    if "right" not in fits:
        return xr.Dataset()
    fits = fits.sortby("fit").rename(fit="depth").drop_vars("depth")
    since = rows.since.isel(token=fits.read.to_numpy())
    kinds = np.flatnonzero(fits.right.notnull().any(["depth", "against", "read"])).tolist()
    after = _places(rows, since, kinds)
    each = {kind: _scores_of(fits, rows, kind, after, settings) for kind in kinds}
    names = [restored(str(rows.label_kind.to_numpy()[kind])) for kind in each]
    laid = {
        name: xr.merge(over.quantity(one) for one in found)
        for name, (over, found) in zip(names, each.values(), strict=True)
    }
    reached = [[_reached(since, kind, steps) for steps in after] for kind in each]
    result = side_by_side(laid, "label_kind", "which label").assign(
        {"label_passages": quantity(reached, ("label_kind", "since"), "passages that are read so far")}
        | _p_of_gains([found[1] for _, found in each.values()], settings)
    )
    return result.assign_coords(since=number_coordinate(after, "since", "tokens since the label was given"))


def _p_of_gains(gains: list[Resampled], settings: Settings) -> dict[str, xr.Variable]:
    """p of every gain over the token alone, by the largest t over all labels, depths and places."""
    value, n = (
        np.stack([getattr(gain, of).transpose("depth", "since") for gain in gains]) for of in ("value", "n")
    )
    draws = np.stack([gain.draws.transpose("draw", "depth", "since") for gain in gains], axis=1)
    p = np.where(n < FEWEST_UNITS, np.nan, largest_t_p(value, draws, units=n))
    least = np.where(np.isnan(p), np.nan, 1 / (1 + settings.resamples))
    said = "p of that gain, adjusted for all labels, depths and places"
    return with_p("label_gain", _OVER, p, least, said, "label_p")


def _places(rows: xr.Dataset, since: xr.DataArray, kinds: list[int]) -> list[int]:
    """Numbers of tokens after a label that most of the passages that have it reach."""
    read = read_since(since)
    several = {int(steps) for kind in kinds for steps in since[read[:, kind], kind]}
    passages = (rows.passage_label != "").sum("passage").to_numpy()
    return [
        steps
        for steps in sorted(several)
        if any(_reached(since, kind, steps) > passages[kind] / 2 for kind in kinds)
    ]


def _reached(since: xr.DataArray, kind: int, steps: int) -> int:
    """Passages that have a token so long after their label was given: each has one at most."""
    return int((since.isel(label_kind=kind) == steps).sum())


def _scores_of(
    fits: xr.Dataset, rows: xr.Dataset, kind: int, after: list[int], settings: Settings
) -> tuple[Over, list[Resampled]]:
    """Accuracy, gain, null and the token's own accuracy of one label, over the passages that have it."""
    read = fits.read.to_numpy()
    passage = np.repeat(np.arange(rows.sizes["passage"]), rows.passage_tokens)[read]
    since = rows.since.isel(token=read, label_kind=kind)
    mine = np.flatnonzero(read_since(since))
    over = Over(xr.Dataset(coords={"read_passage": ("read", passage[mine])}), settings, rows="read_passage")
    here = xr.DataArray(since.to_numpy()[mine] == np.array(after)[:, None], dims=("since", "read"))
    right = fits.right.isel(label_kind=kind, read=mine).drop_vars(["read", "label_kind"])
    own, dealt = (right.isel(against=row, drop=True).where(here) for row in (0, 1))
    by_token = _by_token(rows, kind, read, passage, settings.seed)[mine]
    alone = xr.DataArray(by_token, dims="read").where(here)
    columns = (
        (own, "label_accuracy", "accuracy about the label"),
        (own - alone, "label_gain", "accuracy beyond that of the token alone"),
        (dealt, "label_null", "accuracy about labels dealt to other passages"),
        (alone, "label_by_token", "accuracy by the token alone"),
    )
    order = ("read", "depth", "since")
    return over, [
        over.row_means(named(one.transpose(*order, missing_dims="ignore"), name, said))
        for one, name, said in columns
    ]


def _by_token(rows: xr.Dataset, kind: int, picked: np.ndarray, passage: np.ndarray, seed: int) -> np.ndarray:
    """Whether the token alone gives the label away, by counts on other passages; NaN where it has none."""
    found = np.full(len(picked), np.nan)
    n_classes, labels = numbered_labels(rows, kind)
    if n_classes < 2:
        return found
    ids, asked = rows.token_id.to_numpy()[picked].tolist(), labels[passage]
    read = np.flatnonzero(read_since(rows.since.isel(token=picked, label_kind=kind)))
    fold = folds_of(labels, seed)[passage[read]]
    for held_out in range(FOLDS):
        test, train = read[fold == held_out], read[fold != held_out]
        if len(test):
            prior = label_frequencies(asked[train], n_classes)
            guess = backed_off([ids[i] for i in train], asked[train], [ids[i] for i in test], prior[None])
            found[test] = scored(guess, asked[test])[1]
    return found
