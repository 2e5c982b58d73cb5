"""Findings as one table: what a page's sentences rest on, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from layerscope.results.escaping import visible

COLUMNS = (
    "experiment",
    "model",
    "sentence",
    "variable",
    "select",
    "value",
    "low",
    "high",
    "unit",
    "n",
    "p_adjusted",
    "significant",
    "twins",
    "caveat",
)


def findings_table(claims: Iterable[Any], experiment: str = "", model: str = "") -> pd.DataFrame:
    """One row for each claim: its sentence, number, interval, p, and where in the result it rests.

    Args:
        claims: of a result, as its experiment makes them.
        experiment, model: whose they are, for tables of several runs laid under one another.

    Returns:
        Columns COLUMNS; `select`, labels by dimension, and `twins`, values of untrained twins, are JSON. What could not
        be seen in a sentence is written out, as on the terminal.
    """
    rows = [
        _row(claim) | {"experiment": experiment, "model": visible(model, blanks=False)} for claim in claims
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(claim: Any) -> dict[str, Any]:
    same = ("value", "low", "high", "unit", "n", "p_adjusted", "significant")
    labels = {key: _plain(value) for key, value in claim.select.items() if key != "variable"}
    return {name: getattr(claim, name) for name in same} | {
        "sentence": visible(claim.text, blanks=False),
        "variable": str(claim.select.get("variable", "")),
        "select": json.dumps(labels, ensure_ascii=False),
        "twins": json.dumps([float(value) for value in claim.twins]),
        "caveat": visible(claim.caveat, blanks=False),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, int | float) else str(value)


def for_papers(findings: pd.DataFrame) -> pd.DataFrame:
    """The same as a paper prints it: the interval in one column, the place in words, twins by mean and ends."""
    if findings.empty:
        return pd.DataFrame(columns=["finding"])
    return pd.DataFrame(
        {
            "finding": findings["sentence"],
            "value": findings["value"].astype(float),
            "interval": [
                _ends((low, high)) for low, high in zip(findings["low"], findings["high"], strict=True)
            ],
            "unit": ["" if unit == "1" else unit for unit in findings["unit"]],
            "n": ["" if pd.isna(n) else f"{n:.0f}" for n in findings["n"]],
            "p": [_p(p) for p in findings["p_adjusted"]],
            "rests on": [
                " ".join([variable, *(f"{key}={value}" for key, value in json.loads(labels).items())])
                for variable, labels in zip(findings["variable"], findings["select"], strict=True)
            ],
            "untrained twins": [_twins(json.loads(values)) for values in findings["twins"]],
        }
    )


def _p(p: float | None) -> str:
    return "" if p is None or pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.2g}"


def _ends(ends: Sequence[float | None]) -> str:
    if any(end is None or pd.isna(end) for end in ends):
        return ""
    return " to ".join(f"{end:.4g}" for end in ends)


def _twins(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"
