"""Pages for reading as the template shows them: texts made visible, equal neighbours joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from layerscope.plots.axes import plain
from layerscope.results.escaping import restored, visible
from layerscope.results.pages import Chapter, Excerpt, Page, Piece

_SHADES = 5


@dataclass(frozen=True)
class ShownExcerpt:
    """A line: runs of (class, text), and what stands before and after it."""

    runs: tuple[tuple[str, str], ...]
    value: str
    source: str


@dataclass(frozen=True)
class ShownChapter:
    """A heading, what is said under it (annotations last), and its lines."""

    heading: str
    notes: tuple[str, ...]
    excerpts: tuple[ShownExcerpt, ...]

    def beginning(self, lines: int) -> ShownChapter:
        """The same with its first lines only."""
        return replace(self, excerpts=self.excerpts[:lines])


@dataclass(frozen=True)
class ShownPage:
    """A page for reading, folded until somebody opens it."""

    anchor: str
    heading: str
    introduction: str
    chapters: tuple[ShownChapter, ...]
    layer: int | None = None

    @property
    def n_excerpts(self) -> int:
        """How many lines there are to read."""
        return sum(len(chapter.excerpts) for chapter in self.chapters)


def shown_page(anchor: str, heading: str, page: Page, notes: Mapping[str, str] | None = None) -> ShownPage:
    """A page for the template.

    Args:
        anchor: its id in the HTML.
        heading: its name in what `read` gave.
        page: the page.
        notes: what annotators say, by name of the chapter.
    """
    chapters = tuple(_chapter(chapter, notes or {}) for chapter in page.chapters)
    return ShownPage(anchor, heading, page.introduction, chapters, page.layer)


def _chapter(chapter: Chapter, notes: Mapping[str, str]) -> ShownChapter:
    said = (chapter.note, notes.get(chapter.name, "") if chapter.name else "")
    return ShownChapter(
        plain(chapter.heading),
        tuple(note for note in said if note),
        tuple(_excerpt(excerpt) for excerpt in chapter.excerpts),
    )


def _excerpt(excerpt: Excerpt) -> ShownExcerpt:
    runs = tuple(
        (look, "".join(_text(piece) for piece in pieces)) for look, pieces in groupby(excerpt.pieces, _look)
    )
    return ShownExcerpt(runs, excerpt.value, plain(excerpt.source))


def _look(piece: Piece) -> str:
    """Classes of the style sheet: the mark, and a shade from p1 to p5 or from n1 to n5."""
    strength = min(_SHADES, round(abs(piece.shade) * _SHADES)) if piece.shade == piece.shade else 0
    shade = f"{'p' if piece.shade > 0 else 'n'}{strength}" if strength else ""
    return " ".join(name for name in ("marked" if piece.marked else "", shade) if name)


def _text(piece: Piece) -> str:
    # A marked token may be nothing but blanks, which a reader must see; running text reads better without dots.
    return visible(restored(piece.text), blanks=piece.marked)
