"""About which place does something lie?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import divide


def centroid(weights: Float[np.ndarray, "*batch place"]) -> Float[np.ndarray, "*batch"]:
    """Σ w p / Σ w over the places p = 0, 1, 2, ..., with weights below 0 taken for 0.

    Beware: where nothing lies anywhere, small positive noise decides; hold it against a null.

    Returns:
        A place; NaN where no weight is positive or one is NaN.

    Source: definition.
    """
    positive = np.where(weights < 0, 0.0, weights)
    places = np.arange(weights.shape[-1])
    return np.asarray(divide((positive * places).sum(axis=-1), positive.sum(axis=-1)))
