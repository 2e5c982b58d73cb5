"""What a probe's answers are worth: macro-F1, control tasks, baselines that see no state, compression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from layerscope.maths.arrays import divide


def f1_counts(
    labels: Int[np.ndarray, "row"], predicted: Int[np.ndarray, "row"], classes: int
) -> Float[np.ndarray, "3 classes"]:
    """Of each class: rows that are rightly said to be of it, that are said to be, and that are.

    Counts of documents add up, so a resample of documents is a weighted sum. Rows with label −1 are left out.
    """
    kept = labels >= 0
    labels, predicted = labels[kept], predicted[kept]
    right = np.bincount(labels[labels == predicted], minlength=classes)
    counts = [right, np.bincount(predicted, minlength=classes), np.bincount(labels, minlength=classes)]
    return np.stack(counts).astype(np.float64)


def macro_f1(counts: Float[np.ndarray, "*batch 3 classes"]) -> Float[np.ndarray, "*batch"]:
    """Mean over the classes that occur of F1 = 2 right / (said + are), from `f1_counts`.

    Every class weighs alike, however rare: what accuracy hides. A class that occurs but is never said
    has F1 0; a class that does not occur is left out.

    Returns:
        A number in [0, 1]; NaN where no row has a label.

    Source: van Rijsbergen 1979; scikit-learn's f1_score(average="macro", labels=those that occur).
    """
    right, said, there = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    each = divide(2 * right, said + there)
    occurs = there > 0
    return np.asarray(divide(np.where(occurs, np.nan_to_num(each), 0.0).sum(-1), occurs.sum(-1)))


def selectivity(
    accuracy: Float[np.ndarray, "*shape"], control: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Accuracy less accuracy on the control task.

    The control gives every word type a label drawn by chance: a probe can be right about it only by
    telling word types apart and learning them by heart. What is left is owed to what the state says
    about the task.

    Source: Hewitt & Liang 2019, "Designing and Interpreting Probes with Control Tasks", section 2.
    """
    return np.asarray(accuracy - control)


def control_labels(
    types: Shaped[np.ndarray, "row"], labels: Int[np.ndarray, "row"], classes: int, *, seed: int
) -> Int[np.ndarray, "row"]:
    """One label for each word type, drawn from how frequent the labels are, the same wherever it stands.

    Args:
        types: the word type of each row.
        labels: the task's own labels; rows with −1 stay without one.
        classes: number of labels.
        seed: of the draw. Types are taken in alphabetical order, so the order of rows is of no account.

    Source: Hewitt & Liang 2019, section 2.1.
    """
    kept = labels >= 0
    frequency = np.bincount(labels[kept], minlength=classes) / max(1, kept.sum())
    different, which = np.unique(types, return_inverse=True)
    drawn = np.random.default_rng(seed).choice(classes, size=len(different), p=frequency)
    return np.where(kept, drawn[which.reshape(-1)], -1)


def control_heads(
    types: Shaped[np.ndarray, "row"],
    before: Int[np.ndarray, "row"],
    behind: Int[np.ndarray, "row"],
    *,
    seed: int,
) -> Int[np.ndarray, "row"]:
    """How far away each word's head is, by a rule dealt to its word type: itself, the first word, the last.

    The control for dependency heads: whoever knows the type and the places of the sentence's ends is right,
    and syntax is of no use.

    Args:
        types: the word type of each row.
        before, behind: words of the sentence before and behind it.
        seed: of the draw; types are taken in alphabetical order.

    Returns:
        Signed distance in words: 0 for itself, negative for a head on the left.

    Source: Hewitt & Liang 2019, section 2.1 (control task for dependency edge prediction).
    """
    different, which = np.unique(types, return_inverse=True)
    rules = np.random.default_rng(seed).integers(3, size=len(different))[which.reshape(-1)]
    return np.asarray(np.choose(rules, [np.zeros_like(before), -before, behind]))


def label_frequencies(labels: Int[np.ndarray, "row"], classes: int) -> Float[np.ndarray, "classes"]:
    """Share of each label among the rows that have one, with one row added to each: no label is impossible."""
    counts = np.bincount(labels[labels >= 0], minlength=classes) + 1.0
    return counts / counts.sum()


def backed_off(
    keys: Sequence[object],
    labels: Int[np.ndarray, "row"],
    asked: Sequence[object],
    prior: Float[np.ndarray, "*asked_or_one classes"],
    *,
    strength: float = 1.0,
) -> Float[np.ndarray, "asked classes"]:
    """p(label | key) from counts, falling back on a prior where a key is rare: (n_key,label + a·prior) / (n_key + a).

    With the word type for key and the label frequencies for prior, what the word alone tells; with type
    and position for key and that for prior, what they tell together. No state is involved: a probe on
    states says something only beyond this.

    Args:
        keys: of the rows that are learnt from.
        labels: of these rows; −1 is passed over.
        asked: keys that are asked about.
        prior: for all rows asked about, or one for each.
        strength: rows that the prior is worth.

    Source: additive smoothing; MacKay & Peto 1995.
    """
    prior = np.broadcast_to(prior, (len(asked), prior.shape[-1]))
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    counts = np.zeros((len(place) + 1, prior.shape[-1]))
    kept = np.flatnonzero(labels >= 0)
    rows = np.array([place[key] for key in keys], dtype=np.int64)
    np.add.at(counts, (rows[kept], labels[kept]), 1.0)
    seen = counts[[place.get(key, len(place)) for key in asked]]
    return (seen + strength * prior) / (seen.sum(-1, keepdims=True) + strength)


def compression(
    bits: Float[np.ndarray, "*shape"], labels: Int[np.ndarray, "*#shape"], classes: Int[np.ndarray, "*#shape"]
) -> Float[np.ndarray, "*shape"]:
    """How many times shorter a code is than labels sent at log₂K bits each: n log₂K / L.

    Returns:
        1 where nothing is saved; NaN where there is nothing to send.

    Source: Voita & Titov 2020, section 3.
    """
    plain = labels * np.log2(np.asarray(classes, dtype=np.float64))
    plain, bits = np.broadcast_arrays(plain, np.asarray(bits, dtype=np.float64))
    return np.asarray(divide(plain, bits))
