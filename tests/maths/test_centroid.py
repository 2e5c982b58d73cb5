"""Centroids by hand."""

import numpy as np

from layerscope.maths.centroid import centroid


def test_centroids_by_hand() -> None:
    found = centroid(np.array([[0.0, 1, 3], [1, -5, 1], [0, 0, 0], [-1, -1, -1], [1, np.nan, 1]]))

    np.testing.assert_allclose(found, [7 / 4, 1, np.nan, np.nan, np.nan])
