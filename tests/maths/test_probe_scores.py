"""Scores of probes, worked by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from layerscope.maths.probe_scores import (
    backed_off,
    compression,
    control_heads,
    control_labels,
    f1_counts,
    label_frequencies,
    macro_f1,
    selectivity,
)


def test_macro_f1_of_a_hand_worked_case() -> None:
    # class 0: said twice, there twice, right once: F1 1/2; class 1: said twice, there once, right once: 2/3;
    # class 2: there once, never said: 0; class 3 is neither: left out.
    counts = f1_counts(np.array([0, 0, 1, 2, -1]), np.array([0, 1, 1, 0, 3]), 4)

    assert float(macro_f1(counts)) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_macro_f1_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 200), rng.integers(0, 7, 200)

    expected = f1_score(labels, predicted, average="macro", labels=np.unique(labels))

    assert float(macro_f1(f1_counts(labels, predicted, 7))) == pytest.approx(expected)


def test_macro_f1_of_nothing_is_unknown_and_counts_of_documents_add_up() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    parts = sum(f1_counts(labels[i::3], predicted[i::3], 3) for i in range(3))

    np.testing.assert_array_equal(parts, f1_counts(labels, predicted, 3))
    assert np.isnan(macro_f1(np.zeros((3, 4))))


def test_a_control_label_belongs_to_the_type_and_is_as_frequent_as_the_task_s() -> None:
    rng = np.random.default_rng(1)
    types = np.array([f"w{i}" for i in rng.integers(0, 4000, 9000)])
    labels = rng.choice(3, 9000, p=[0.6, 0.3, 0.1])
    labels[:100] = -1

    control = control_labels(types, labels, 3, seed=4)
    shuffled = rng.permutation(9000)

    assert (control[:100] == -1).all()
    for word in types[100:120]:
        assert len(set(control[(types == word) & (labels >= 0)])) == 1
    _, first = np.unique(types[100:], return_index=True)
    np.testing.assert_allclose(np.bincount(control[100:][first]) / len(first), [0.6, 0.3, 0.1], atol=0.03)
    again = control_labels(types[shuffled], labels[shuffled], 3, seed=4)
    np.testing.assert_array_equal(again, control[shuffled])
    assert (control_labels(types, labels, 3, seed=5) != control).mean() > 0.3


def test_counts_fall_back_on_the_prior_where_a_key_is_rare() -> None:
    labels = np.array([0, 0, 0, 1, 1, -1])
    prior = label_frequencies(labels, 2)
    np.testing.assert_allclose(prior, [4 / 7, 3 / 7])

    found = backed_off(list("aaabba"), labels, ["a", "b", "new"], prior, strength=1.0)

    # a: 3 of label 0; b: 1 of label 1 twice; the prior counts for one row
    np.testing.assert_allclose(found[0], [(3 + 4 / 7) / 4, (3 / 7) / 4])
    np.testing.assert_allclose(found[1], [(4 / 7) / 3, (2 + 3 / 7) / 3])
    np.testing.assert_allclose(found[2], prior)


def test_each_row_may_have_a_prior_of_its_own() -> None:
    priors = np.array([[0.9, 0.1], [0.2, 0.8]])

    found = backed_off(["x"], np.array([0]), ["x", "y"], priors, strength=3.0)

    np.testing.assert_allclose(found, [[(1 + 2.7) / 4, 0.3 / 4], [0.2, 0.8]])


def test_selectivity_and_compression() -> None:
    assert float(selectivity(np.array(0.9), np.array(0.6))) == pytest.approx(0.3)
    # 100 labels of 8 classes are 300 bits; in 150 bits they are sent twice as short
    assert float(compression(np.array(150.0), np.array(100), np.array(8))) == pytest.approx(2.0)


def test_control_heads_follow_one_rule_of_each_type() -> None:
    # Three sentences of four words; every word type has a place of its own in each.
    types = np.array(["a", "b", "c", "d"] * 3)
    before = np.array([0, 1, 2, 3] * 3)
    behind = 3 - before

    seen = set()
    for seed in range(20):
        distances = control_heads(types, before, behind, seed=seed).reshape(3, 4)
        assert (distances == distances[0]).all()
        assert distances[0, 1] in (0, -1, 2)
        assert distances[0, 3] in (0, -3)
        seen.add(int(distances[0, 1]))
    assert seen == {0, -1, 2}
