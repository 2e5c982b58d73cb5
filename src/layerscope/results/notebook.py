"""Results as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from layerscope.results.escaping import visible


class InWords:
    """Lines that show themselves: as text in a terminal, wrapped and escaped in a notebook's own colours."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(visible(part, blanks=False) for line in lines for part in str(line).split("\n"))

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return as_html(self.lines)


def as_html(lines: Iterable[str]) -> str:
    """Lines as HTML that any notebook shows in its own colours; whatever they hold, it is text."""
    text = "\n".join(escape(visible(line, blanks=False)) for line in lines)
    return (
        f'<pre style="white-space: pre-wrap; font: inherit; line-height: 1.45; max-width: 60em">{text}</pre>'
    )
