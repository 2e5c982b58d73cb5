"""Text that a spreadsheet does not take for a formula."""

from __future__ import annotations

import pandas as pd

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before what would begin one.

    Source: OWASP, "CSV Injection".
    """
    return f"'{cell}" if cell[:1] in _BEGINS_A_FORMULA else cell


def harmless_table(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, its texts harmless; numbers are left as they are."""

    def one(value: object) -> object:
        return harmless(value) if isinstance(value, str) else value

    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(one) for name in texts})
