"""Tables as LaTeX: booktabs, every text escaped, whatever characters tokens hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.results.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escaped_for_latex(text: str) -> str:
    """Text that LaTeX prints as it stands; what no reader could see is made visible first."""
    return "".join(_SPECIAL.get(letter, letter) for letter in visible(text, blanks=False))


def latex_of(table: pd.DataFrame) -> str:
    """A longtable with booktabs' rules, as wide as the page; a column's width goes by the length of its texts.

    Args:
        table: texts and numbers; its index is not printed.

    Returns:
        LaTeX that needs the packages booktabs and longtable.
    """
    lengths = [
        min(60.0, max(8.0, table[name].map(lambda one: len(_cell(one))).mean())) for name in table.columns
    ]
    columns = "".join(f"p{{{0.94 * length / sum(lengths):.3f}\\linewidth}}" for length in lengths)
    head = " & ".join(escaped_for_latex(str(name)) for name in table.columns)
    rows = [" & ".join(_cell(value) for value in row) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join(
        [
            r"% \usepackage{booktabs,longtable}",
            rf"\begin{{longtable}}{{{columns}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            "",
        ]
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else escaped_for_latex(f"{value:.4g}")
    return escaped_for_latex("" if value is None else str(value))
