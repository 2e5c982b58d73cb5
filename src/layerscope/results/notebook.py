"""Results as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from layerscope.results.escaping import visible

_MOST_LINES = 400
"""Of what a notebook shows at once: it keeps every output in its file."""


class InWords:
    """Lines that show themselves: as text in a terminal, wrapped and escaped in a notebook's own colours."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(visible(part, blanks=False) for line in lines for part in str(line).split("\n"))

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return as_html(self.lines)


class Findings(list[Any]):
    """Claims that show themselves together in a notebook."""

    def _repr_html_(self) -> str:
        return as_html(claim.text for claim in self)


def as_html(lines: Iterable[str]) -> str:
    """Lines as HTML that any notebook shows in its own colours; whatever they hold, it is text."""
    every = list(lines)
    left = len(every) - _MOST_LINES
    shown = every[:_MOST_LINES] + [f"... and {left} more lines"] * (left > 0)
    text = "\n".join(escape(visible(line, blanks=False)) for line in shown)
    return (
        f'<pre style="white-space: pre-wrap; font: inherit; line-height: 1.45; max-width: 60em">{text}</pre>'
    )
