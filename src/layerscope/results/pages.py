"""Pages for reading: excerpts of texts with some of their tokens marked or shaded.

An experiment's `read(result)` gives such pages; the report shows them, folded, after the figures.
Figures say how much; a page for reading lets a person see of what. Nothing here is markup: texts are
kept in their stored form (results/escaping.py), and whoever shows them escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One token of an excerpt.

    Attributes:
        text: the token in its stored form.
        shade: from -1 to 1, how strongly it is shaded, and in which of two colours.
        marked: whether the excerpt is about this token.
    """

    text: str
    shade: float = 0.0
    marked: bool = False


@dataclass(frozen=True)
class Excerpt:
    """One line to read.

    Attributes:
        pieces: the tokens in reading order.
        value: what stands in front of it: a number, with its unit if it has one.
        source: where it is from: the passage's name and the position.
    """

    pieces: tuple[Piece, ...]
    value: str = ""
    source: str = ""


@dataclass(frozen=True)
class Chapter:
    """Excerpts that belong together.

    Attributes:
        heading: what they have in common: a key, a genre, a category.
        excerpts: in the order in which they should be read.
        note: numbers and cautions that stand under the heading.
        name: by which annotations are added; empty where nobody annotates.
    """

    heading: str
    excerpts: tuple[Excerpt, ...]
    note: str = ""
    name: str = ""


@dataclass(frozen=True)
class Page:
    """What `read` gives for each heading of the report: usually one page for each layer.

    Attributes:
        chapters: at least one.
        introduction: how to read it: what value, shade and mark mean.
        layer: the one that it is about, where it is about one.
    """

    chapters: tuple[Chapter, ...]
    introduction: str = ""
    layer: int | None = None
