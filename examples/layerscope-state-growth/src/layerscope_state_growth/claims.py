"""Quantities in sentences: `finding` knows value, interval, p, digits and direction."""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """How fast the state grows."""
    growth = finding(result, "growth")
    yield growth.claim(
        f"the residual stream {growth.which('grows', 'shrinks')} by {growth.size} per layer",
        nothing="growth of the residual stream per layer",
        caveat="where the state grows, cosines between neighbouring depths rise for this reason alone",
        untrained=("effect", "random vectors that are added lengthen the state"),
    )
