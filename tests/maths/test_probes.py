"""Probes agree with scikit-learn, whichever way problems are put together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from layerscope.maths.probes import LinearProbes, doubling_ends, fit_logistic, fit_ridge, online_code_length

K = (5, 3)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Two depths of correlated states with a long common direction; two tasks, one on some rows only."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(12, 12))
    states = rng.normal(size=(2, 400, 12)) @ mixing + 30 * rng.normal(size=12)
    states[..., 5] *= 40  # a massive dimension
    states[..., 7] = 2.5  # one that never varies
    centred = states[0] - states[0].mean(0)
    shown = centred @ rng.normal(size=(12, K[0])) * 0.02 + rng.gumbel(size=(400, K[0]))
    first = shown.argmax(1)
    second = rng.integers(0, K[1], 400)
    second[::4] = -1
    return states, np.stack([first, second])


def _reference(states: np.ndarray, labels: np.ndarray, l2: float) -> np.ndarray:
    """scikit-learn's probabilities, to its optimum."""
    kept = labels >= 0
    inputs = StandardScaler().fit(states).transform(states)
    model = LogisticRegression(C=1 / l2, tol=1e-7, max_iter=5000).fit(inputs[kept], labels[kept])
    return model.predict_log_proba(inputs)


@pytest.mark.parametrize("l2", [0.3, 10.0])
def test_log_probabilities_are_scikit_learn_s(data: tuple[np.ndarray, np.ndarray], l2: float) -> None:
    states, labels = data

    probes = fit_logistic(torch.tensor(states), labels, K, l2=l2, tolerance=1e-10, most_steps=2000)

    assert bool(probes.converged.all())
    assert (
        probes.steps < {0.3: 180, 10.0: 36}[l2]
    )  # 122 and 29; a slip in the two loops ends there too, later
    for task, logs in enumerate(probes.log_probabilities(torch.tensor(states), mixed=False)):
        for depth in range(2):
            expected = _reference(states[depth], labels[task], l2)
            np.testing.assert_allclose(logs[depth].numpy(), expected, atol=2e-4)


def _objective(probes: LinearProbes, states: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Of each task, in float64 from the definition: Σ −log p(label) + l2/2 ‖W‖², with l2 = 10."""
    numbers = {name: getattr(probes, name).double() for name in ("weights", "bias", "centre", "scale")}
    fine = replace(probes, **numbers)
    found, start = [], 0
    for row, logs in zip(labels, fine.log_probabilities(states.double(), mixed=False), strict=True):
        kept, stop = row >= 0, start + logs.shape[-1]
        loss = -logs[0, kept, row[kept]].sum()
        found.append(float(loss + 5.0 * fine.weights[0, :, start:stop].square().sum()))
        start = stop
    return np.array(found)


def test_each_problem_is_within_its_tolerance_of_the_optimum_of_its_objective() -> None:
    """On states as models have them: variances over six decades, and labels that lie in the small directions too."""
    rng = np.random.default_rng(8)
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    plain = rng.normal(size=(800, 64))
    states = torch.tensor((plain * np.logspace(0, -3, 64)) @ turn + 3, dtype=torch.float32)[None]
    common = (plain @ rng.normal(size=(64, 9)) + rng.gumbel(size=(800, 9))).argmax(1)
    rare = (plain[:, -1] > 2.2).astype(int)
    labels = np.stack([common, rare, rng.integers(0, 4, 800)])
    labels[2, ::3] = -1

    probes = fit_logistic(states, labels, (9, 2, 4), l2=10.0)

    assert bool(probes.converged.all())
    inputs = ((states - probes.centre[:, None]) / probes.scale[:, None])[0].double().numpy()
    for row, ours in zip(labels, _objective(probes, states, labels), strict=True):
        kept = row >= 0
        # Of two classes scikit-learn fits one column, which is charged as much as ours at half the penalty.
        two = row.max() == 1
        theirs = LogisticRegression(C=0.2 if two else 0.1, tol=1e-9, max_iter=20_000).fit(
            inputs[kept], row[kept]
        )
        loss = -theirs.predict_log_proba(inputs[kept])[range(kept.sum()), row[kept]].sum()
        optimum = loss + (2.5 if two else 5.0) * (theirs.coef_**2).sum()
        assert -1e-6 < ours / optimum - 1 < 1e-4


def test_a_task_of_one_class_alone_is_solved_although_its_optimum_is_infinitely_far() -> None:
    states = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0))

    probes = fit_logistic(states, np.zeros((1, 40), dtype=int), (3,))

    assert bool(probes.converged.all())
    assert probes.steps < 100


def test_without_a_penalty_there_is_no_fit() -> None:
    with pytest.raises(ValueError, match="penalty above 0"):
        fit_logistic(torch.randn(1, 3, 2), np.array([[0, 1, 0]]), [2], l2=0.0)


def test_at_the_tolerance_in_use_float32_is_close_to_scikit_learn(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    states, labels = data
    inputs = torch.tensor(states, dtype=torch.float32)

    probes = fit_logistic(inputs, labels, K, l2=10.0)

    for task, logs in enumerate(probes.log_probabilities(inputs, mixed=False)):
        for depth in range(2):
            expected = _reference(states[depth], labels[task], 10.0)
            assert np.abs(np.exp(logs[depth].numpy()) - np.exp(expected)).max() < 0.02


def test_unstandardised_states_give_scikit_learn_s_coefficients() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 4)) + 5
    labels = (states @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.logistic(size=200) > -2.5).astype(int)
    expected = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(states, labels)

    probes = fit_logistic(
        torch.tensor(states)[None], labels[None], [2], l2=2.0, standardise=False, tolerance=1e-8
    )

    # Two classes are two columns here and one there: the difference of the columns w and -w is 2w, and the
    # penalty falls on both, so l2 of one is half of that of the other.
    half = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(states, labels)
    difference = (probes.weights[0, :, 1] - probes.weights[0, :, 0]).numpy()
    np.testing.assert_allclose(difference, half.coef_[0], atol=1e-4)
    assert np.abs(difference - expected.coef_[0]).max() > 1e-2


def test_problems_fitted_together_are_those_fitted_alone(data: tuple[np.ndarray, np.ndarray]) -> None:
    states, labels = data
    together = fit_logistic(torch.tensor(states), labels, K, tolerance=1e-10, most_steps=2000)

    alone = fit_logistic(torch.tensor(states[1:]), labels[:1], K[:1], tolerance=1e-10, most_steps=2000)

    first = next(together.log_probabilities(torch.tensor(states)))[1]
    assert torch.allclose(next(alone.log_probabilities(torch.tensor(states[1:])))[0], first, atol=1e-4)


def test_the_same_numbers_come_out_twice(data: tuple[np.ndarray, np.ndarray]) -> None:
    states, labels = data
    inputs = torch.tensor(states, dtype=torch.float32)

    fits = [fit_logistic(inputs, labels, K) for _ in range(2)]

    assert torch.equal(fits[0].weights, fits[1].weights)


def test_starting_elsewhere_ends_at_the_same_optimum(data: tuple[np.ndarray, np.ndarray]) -> None:
    states, labels = data
    inputs = torch.tensor(states)
    few = fit_logistic(inputs[:, :80] * 3 + 1, labels[:, :80], K)

    far = fit_logistic(inputs, labels, K, tolerance=1e-10, most_steps=2000, start=few)
    near = fit_logistic(inputs, labels, K, tolerance=1e-10, most_steps=2000)

    for there, here in zip(far.log_probabilities(inputs), near.log_probabilities(inputs), strict=True):
        assert torch.allclose(there, here, atol=1e-3)


def test_starting_from_itself_there_is_nothing_to_do(data: tuple[np.ndarray, np.ndarray]) -> None:
    states, labels = data
    inputs = torch.tensor(states)
    done = fit_logistic(inputs, labels, K, tolerance=1e-10, most_steps=2000)

    again = fit_logistic(inputs, labels, K, tolerance=1e-9, start=done)

    assert again.steps == 0


def test_a_class_without_a_row_has_a_small_probability() -> None:
    states = torch.randn(1, 60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = np.array([[0, 1] * 30])

    logs = next(fit_logistic(states, labels, [3]).log_probabilities(states))

    # Two classes of equal rows, and one row's worth of all three: nobody can do better than 1/3 of a row in 61.
    assert float(logs[0, :, 2].exp().max()) < 0.02
    assert float(logs.min()) >= -np.log(3 * 61) - 1e-9
    np.testing.assert_allclose(logs.exp().sum(-1).numpy(), 1.0, atol=1e-12)


def test_more_entries_than_rows_is_a_solved_problem() -> None:
    rng = np.random.default_rng(1)
    states, labels = rng.normal(size=(30, 80)), np.arange(30) % 3

    probes = fit_logistic(torch.tensor(states)[None], labels[None], [3], l2=1.0, tolerance=1e-10)

    logs = next(probes.log_probabilities(torch.tensor(states)[None], mixed=False))[0]
    np.testing.assert_allclose(logs.numpy(), _reference(states, labels, 1.0), atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [([[0, 3, 1]], "beyond"), ([[-1, -1, -1]], "no row")],
)
def test_labels_that_do_not_fit_are_refused(labels: list[list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_logistic(torch.randn(1, 3, 2), np.array(labels), [3])


@pytest.mark.parametrize("standardise", [True, False])
def test_ridge_is_scikit_learn_s(standardise: bool) -> None:
    rng = np.random.default_rng(2)
    states = rng.normal(size=(90, 7)) * [1, 2, 3, 4, 5, 6, 100] + 10
    targets = states[:, :2] @ np.array([[1.0, 2], [3, -1]]) + rng.normal(size=(90, 2))

    probes = fit_ridge(torch.tensor(states)[None], targets, l2=4.0, standardise=standardise)

    inputs = StandardScaler().fit_transform(states) if standardise else states
    expected = Ridge(alpha=4.0, solver="svd").fit(inputs, targets).predict(inputs)
    np.testing.assert_allclose(probes.outputs(torch.tensor(states)[None])[0].numpy(), expected, atol=1e-8)


def test_the_online_code_is_that_of_scikit_learn_s_probes(data: tuple[np.ndarray, np.ndarray]) -> None:
    states, labels = data
    ends = doubling_ends(400, first=50)

    bits = online_code_length(
        torch.tensor(states), labels, K, ends=ends, l2=5.0, tolerance=1e-10, most_steps=2000
    )

    for depth in range(2):
        expected = ends[0] * np.log2(K[0])
        for before, end in pairwise(ends):
            scaler = StandardScaler().fit(states[depth, :before])
            model = LogisticRegression(C=1 / 5.0, tol=1e-7, max_iter=5000)
            model.fit(scaler.transform(states[depth, :before]), labels[0, :before])
            told = np.zeros((end - before, K[0]))
            told[:, model.classes_] = model.predict_proba(scaler.transform(states[depth, before:end]))
            mixed = (before * told + 1 / K[0]) / (before + 1)
            expected -= np.log2(mixed[range(end - before), labels[0, before:end]]).sum()
        assert float(bits[depth, 0]) == pytest.approx(expected, rel=1e-3)


def test_an_online_code_of_what_states_do_not_show_is_no_shorter_than_the_labels() -> None:
    rng = np.random.default_rng(4)
    states = torch.tensor(rng.normal(size=(1, 1024, 6)))
    labels = np.stack([rng.integers(0, 4, 1024), (states[0, :, 0].numpy() > 0).astype(int)])

    bits = online_code_length(states, labels, (4, 2), ends=doubling_ends(1024, first=32), l2=10.0)[0]

    assert float(bits[0]) > 0.99 * 1024 * 2
    assert float(bits[1]) < 0.35 * 1024


def test_rows_without_a_label_cost_nothing() -> None:
    rng = np.random.default_rng(5)
    states = torch.tensor(rng.normal(size=(1, 64, 3)))
    labels = rng.integers(0, 2, (1, 64))
    labels[0, 8:] = -1

    bits = online_code_length(states, labels, (2,), ends=[8, 16, 64])

    assert float(bits) == pytest.approx(8.0)


def test_blocks_double() -> None:
    assert doubling_ends(100, first=8) == [8, 16, 32, 64, 100]
    assert doubling_ends(64, first=8) == [8, 16, 32, 64]
    assert doubling_ends(5, first=8) == [5]
