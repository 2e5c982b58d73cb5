"""Directions between classes, by hand and by least squares."""

import numpy as np

from layerscope.maths.class_contrasts import attended_index, contrast_within_cells


def test_what_differs_between_cells_does_not_enter() -> None:
    # Cell 1 lies 10 away from cell 0 and holds more of class 1; the classes differ by (1, 0) within cells.
    states = np.array([[0.0, 0], [0, 0], [1, 0], [10, 10], [11, 10], [11, 10]])
    labels, cells = np.array([0, 0, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])

    found = contrast_within_cells(states, labels=labels, cells=cells, first=0, second=1)

    np.testing.assert_allclose(found, [1, 0])
    back = contrast_within_cells(states, labels=labels, cells=cells, first=1, second=0)
    np.testing.assert_allclose(back, [-1, 0])


def test_it_is_the_coefficient_of_a_regression_with_a_constant_for_each_cell() -> None:
    rng = np.random.default_rng(0)
    labels, cells = rng.integers(0, 2, 80), rng.integers(0, 5, 80)
    states = rng.normal(size=(80, 3)) + cells[:, None] * [1.0, 5, -2] + labels[:, None] * [0.5, 0, 1]
    design = np.column_stack([labels, np.eye(5)[cells]])

    expected = np.linalg.lstsq(design, states, rcond=None)[0][0]

    found = contrast_within_cells(states, labels=labels, cells=cells, first=0, second=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_classes_that_never_share_a_cell_have_no_contrast() -> None:
    found = contrast_within_cells(
        np.ones((2, 2)), labels=np.array([0, 1]), cells=np.array([0, 1]), first=0, second=1
    )

    assert np.isnan(found).all()


def test_attended_index_by_hand() -> None:
    shares = np.array([[0.1, 0.1, 0.2], [0.0, 0, 0]])

    found = attended_index(shares)

    assert found[0] == (0.1 + 0.4) / 0.4
    assert np.isnan(found[1])
