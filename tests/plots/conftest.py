from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.results.schema import quantity

HOSTILE = [
    "<script>alert(1)</script>",
    "<b>",
    "&lt;",
    "<extra>",
    "%{y}",
    "\\u0007",
    "\\ud800",
    "\u202eabc",
]
SHOWN = [
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&lt;b&gt;",
    "&amp;lt;",
    "&lt;extra&gt;",
    "%&#123;y}",
    "&lt;U+0007&gt;",
    "&lt;U+D800&gt;",
    "&lt;U+202E&gt;abc",
]


@pytest.fixture
def hostile() -> list[tuple[str, str]]:
    """Stored text, and the label that shows it exactly."""
    return list(zip(HOSTILE, SHOWN, strict=True))


@pytest.fixture
def curves() -> xr.Dataset:
    """Two categories over five depths; the second has no interval at depth 2."""
    value = np.array([[0.0, 0.1, 0.4, 0.8, 1.0], [0.0, 0.3, 0.6, 0.9, 1.0]])
    low = value - 0.05
    low[1, 2] = np.nan
    return xr.Dataset(
        {
            "value": quantity(value, "category depth", "share of the effect recovered"),
            "low": quantity(low, "category depth", "lower end"),
            "high": quantity(value + 0.1, "category depth", "upper end"),
            "null": quantity(np.full(5, 0.02), "depth", "null"),
            "n": quantity([40, 38], "category", "prompts"),
        },
        coords={"category": ["facts", "<b>"], "depth": range(5)},
    )
