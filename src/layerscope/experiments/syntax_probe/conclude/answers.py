"""What probes answered about every tested word, averaged over draws of training documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.experiments.syntax_probe.conclude.baselines import baselines
from layerscope.experiments.syntax_probe.items.design import Design

_DIMS = ("task", "depth", "tested")


def draws_of(fits: xr.Dataset, weights: str, piece: str) -> list[xr.Dataset]:
    """Fits of one model at one token of a word, one dataset over depth for each draw of training documents."""
    mine = fits.isel(fit=np.flatnonzero((fits.fit_weights == weights) & (fits.fit_piece == piece)))
    return [
        mine.isel(fit=np.flatnonzero(mine.fit_draw == draw)).sortby("fit").rename(fit="depth")
        for draw in range(int(mine.fit_draw.max()) + 1 if mine.sizes["fit"] else 0)
    ]


def answers(draws: Sequence[xr.Dataset], labels: xr.DataArray) -> xr.Dataset:
    """Loss, right and control, mean over draws, and what the first draw answered [task depth tested].

    Args:
        draws: fits of each draw.
        labels: of tested words [task tested]; −1 where one has none.

    Returns:
        Also `spread`, the SD of accuracy over draws [task depth], where there are several.
    """
    known, kept = labels >= 0, []
    for draw in draws:
        here = draw.transpose(*_DIMS).drop_vars(["task", "tested", "depth"])
        control = here.control_right
        kept.append(
            xr.Dataset(
                {
                    "loss": here.loss.astype(np.float64),
                    "right": (here.predicted == labels).where(known).transpose(*_DIMS),
                    "control": control.where(control >= 0).astype(np.float64),
                }
            )
        )
    each = xr.concat(kept, dim="draw")
    found = each.mean("draw", skipna=False).assign(
        predicted=draws[0].predicted.transpose(*_DIMS).drop_vars(["task", "tested", "depth"])
    )
    return found.assign(spread=each.right.mean("tested").std("draw", ddof=1)) if len(kept) > 1 else found


def word_alone(design: Design, draws: int) -> xr.Dataset:
    """Loss and rightness by the word type, alone and with position [task tested], mean over draws."""
    each = [baselines(design, draw) for draw in range(draws)]
    return xr.Dataset(
        {
            f"{name.replace(' ', '_')}_{score}": (
                ("task", "tested"),
                np.mean([draw[name] for draw in each], axis=0)[row],
            )
            for name in ("type", "type and position")
            for row, score in enumerate(("loss", "accuracy"))
        }
    )
