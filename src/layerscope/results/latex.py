"""Tables as LaTeX: booktabs, every text escaped, whatever characters tokens hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layerscope.results.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

_SHORT, _LETTER, _GAP = 20, 0.0105, 0.016
"""Letters of a cell that is not wrapped; widths of a letter and of the space between columns, of a line's."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # behind the end of a row, it and * would be read as belonging to that
    "*": "{*}",
    "−": "$-$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "χ": r"$\chi$",
    "Δ": r"$\Delta$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escaped_for_latex(text: str) -> str:
    """Text that LaTeX prints as it stands; what no reader could see is made visible first."""
    return "".join(_SPECIAL.get(letter, letter) for letter in visible(text, blanks=False))


def latex_of(table: pd.DataFrame) -> str:
    """A longtable with booktabs' rules, as wide as the page: long texts share what short columns leave.

    Args:
        table: texts and numbers; its index is not printed.

    Returns:
        LaTeX that needs the packages booktabs and longtable.
    """
    columns = _columns({str(name): [_cell(value) for value in table[name]] for name in table.columns})
    head = " & ".join(escaped_for_latex(str(name)) for name in table.columns)
    rows = [" & ".join(_cell(value) for value in row) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join(
        [
            r"% \usepackage{booktabs,longtable}; XeLaTeX or LuaLaTeX where tokens are not Latin",
            r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{{columns}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            r"\endgroup",
            "",
        ]
    )


def _columns(cells: Mapping[str, Sequence[str]]) -> str:
    """What \\begin{longtable} is told: columns of short cells are as wide as these, texts by their mean length."""
    longest = {name: max(map(len, (name, *texts))) for name, texts in cells.items()}
    long = {
        name: min(60.0, max(18.0, sum(map(len, cells[name])) / len(cells[name])))
        for name in cells
        if longest[name] > _SHORT
    }
    taken = _LETTER * sum(length for name, length in longest.items() if name not in long) + _GAP * len(cells)
    share = max(0.3, 1 - taken) / max(1.0, sum(long.values()))
    return "".join(f"p{{{share * long[name]:.3f}\\linewidth}}" if name in long else "l" for name in cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else escaped_for_latex(f"{value:.4g}")
    return escaped_for_latex("" if value is None else str(value))
