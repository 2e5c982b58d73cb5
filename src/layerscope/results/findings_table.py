"""Findings as one table: what a page's sentences rest on, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "sentence",
    "value",
    "low",
    "high",
    "unit",
    "n",
    "p_adjusted",
    "significant",
    "caveat",
    "select",
    "twins",
)


def findings_table(claims: Iterable[Any]) -> pd.DataFrame:
    """One row for each claim: its sentence, number, interval, p, and where in the result it rests.

    Args:
        claims: of a result, as its experiment makes them.

    Returns:
        Columns COLUMNS; `select` and `twins` are JSON.
    """
    rows = [
        {
            "sentence": claim.text,
            "value": claim.value,
            "low": claim.low,
            "high": claim.high,
            "unit": claim.unit,
            "n": claim.n,
            "p_adjusted": claim.p_adjusted,
            "significant": claim.significant,
            "caveat": claim.caveat,
            "select": json.dumps({key: _plain(value) for key, value in claim.select.items()}),
            "twins": json.dumps([_plain(value) for value in claim.twins]),
        }
        for claim in claims
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _plain(value: Any) -> Any:
    return (
        value.item()
        if isinstance(value, np.generic)
        else value
        if isinstance(value, int | float)
        else str(value)
    )
