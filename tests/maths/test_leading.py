"""When an answer leads, by hand."""

import numpy as np

from layerscope.maths.leading import first_leads, settled

RANKS = np.array([[5, 1, 3, 1, 1], [1, 1, 1, 1, 1], [4, 3, 2, 1, 2], [9, 9, 9, 9, 9]])


def test_first_and_last_time() -> None:
    np.testing.assert_array_equal(first_leads(RANKS), [1, 0, 3, np.nan])
    np.testing.assert_array_equal(settled(RANKS), [3, 0, np.nan, np.nan])
