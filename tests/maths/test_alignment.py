"""Kernel alignment against a sum over all quadruples, which is what it estimates without bias."""

from itertools import permutations

import numpy as np
import pytest

from layerscope.maths.alignment import alignment, dependence


def by_quadruples(k: np.ndarray, m: np.ndarray) -> float:
    """Mean over ordered quadruples of distinct tokens of k_ij (m_ij + m_qr − 2 m_iq): the U-statistic."""
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(len(k)), 4)]
    return float(np.mean(terms))


def test_the_closed_form_is_the_mean_over_quadruples() -> None:
    states = np.random.default_rng(0).standard_normal((3, 6, 4))
    products = states @ states.transpose(0, 2, 1)

    found = dependence(states)

    for a in range(3):
        for b in range(3):
            assert found[a, b] == pytest.approx(by_quadruples(products[a], products[b]), rel=1e-9)


def test_turned_shifted_and_stretched_states_are_perfectly_aligned() -> None:
    rng = np.random.default_rng(1)
    states = rng.standard_normal((20, 5))
    turned = states @ np.linalg.qr(rng.standard_normal((5, 5)))[0] * 3 + 7

    found = alignment(dependence(np.stack([states, turned])))

    np.testing.assert_allclose(found, 1, atol=1e-9)


def test_unrelated_states_have_no_alignment_on_average_even_in_small_sets() -> None:
    rng = np.random.default_rng(2)
    sets = [dependence(rng.standard_normal((2, 8, 16))) for _ in range(800)]

    found = alignment(np.mean(sets, axis=0))

    assert abs(found[0, 1]) < 0.05
    assert found[0, 0] == pytest.approx(1)


def test_too_few_tokens_are_unknown() -> None:
    assert np.isnan(dependence(np.ones((2, 3, 4)))).all()
    assert np.isnan(alignment(np.zeros((2, 2)))).all()
