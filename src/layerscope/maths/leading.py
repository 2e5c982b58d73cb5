"""From ranks through depth: when does the answer first lead, and when is it settled?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from layerscope.maths.arrays import Array, to_float64


def first_leads(ranks: Num[Array, "*batch depth"]) -> Float[np.ndarray, "*batch"]:
    """The first depth at which the answer has rank 1, whatever comes after.

    Returns:
        Blocks applied; NaN where it never leads.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    leads = to_float64(ranks) == 1
    return np.where(leads.any(axis=-1), leads.argmax(axis=-1), np.nan)


def settled(ranks: Num[Array, "*batch depth"]) -> Float[np.ndarray, "*batch"]:
    """The first depth from which on the answer has rank 1 at every depth to the last.

    Returns:
        Blocks applied, at least `first_leads`; NaN where it does not lead at the end.

    Source: as `first_leads`; Geva et al. 2022 call it the saturation layer.
    """
    leads = to_float64(ranks) == 1
    trailing = np.cumprod(leads[..., ::-1], axis=-1).sum(axis=-1)
    return np.where(trailing > 0, leads.shape[-1] - trailing, np.nan)
