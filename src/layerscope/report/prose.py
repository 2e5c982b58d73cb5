"""An experiment's docstring as paragraphs for a page."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "beware", "source", "list", "verbatim"]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, or the items of a list; each line is a run of (is it code, text) pieces."""

    kind: Kind
    lines: tuple[tuple[tuple[bool, str], ...], ...]


def paragraphs(doc: str) -> list[Paragraph]:
    """The docstring after its first line (the question): caution and source are set off."""
    _, _, rest = inspect.cleandoc(doc).partition("\n")
    return [_paragraph(block) for block in re.split(r"\n\s*\n", rest.strip("\n")) if block.strip()]


def _paragraph(block: str) -> Paragraph:
    if all(line.startswith("    ") for line in block.splitlines()):
        return Paragraph("verbatim", (((False, inspect.cleandoc(block)),),))
    if re.match(r"[-*] ", block):
        return Paragraph("list", tuple(_pieces(item) for item in re.split(r"(?m)^[-*] ", block)[1:]))
    for kind, word in (("beware", "Beware:"), ("source", "Source:")):
        if block.startswith(word):
            return Paragraph(kind, (_pieces(block.removeprefix(word)),))  # type: ignore[arg-type]
    return Paragraph("text", (_pieces(block),))


def _pieces(text: str) -> tuple[tuple[bool, str], ...]:
    """Text split at backticks: every second piece is code."""
    joined = " ".join(text.split()).replace("``", "`")
    return tuple((place % 2 == 1, piece) for place, piece in enumerate(joined.split("`")) if piece)
