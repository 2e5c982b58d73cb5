"""Stars round what is corrupted: `The *Eiffel* Tower is in`.

`\\*` is a star that is meant. Backslashes matter only directly before a star, where each pair of them
stands for one; so every text can be written with stars, and `parse_stars(with_stars(t, s)) == (t, s)`.
"""

from __future__ import annotations

import re

from layerscope.errors import LayerscopeError

_STAR = re.compile(r"(\\*)\*")
_EXPECTED = "one pair of stars round what is corrupted, as in 'The *Eiffel* Tower is in'"


def has_stars(text: str) -> bool:
    """Whether the text holds a star that marks something, rather than an escaped one."""
    return any(_is_mark(match) for match in _STAR.finditer(text))


def refuse_unstarred(text: str) -> None:
    """Refuse what is no single prompt with a marked subject.

    Raises:
        LayerscopeError: no star, or stars that do not mark one subject.
    """
    if not has_stars(text):
        raise LayerscopeError(
            "nothing in this prompt is marked to be corrupted",
            found=repr(text[:80]),
            expected="one prompt with one pair of *stars* round its subject",
            hint='layerscope trace "The *Eiffel* Tower is located in the city of"   '
            "(a file of prompts: layerscope run causal_trace --prompts FILE)",
        )
    parse_stars(text)


def parse_stars(text: str, *, where: str = "the prompt") -> tuple[str, tuple[int, int]]:
    """Take the stars out of a text.

    Args:
        text: a text with exactly one pair of unescaped stars.
        where: what to call the text in an error: a file and line, or "the prompt".

    Returns:
        The text without its marks, and the character span [start, end) that stood between them.

    Raises:
        LayerscopeError: no star, a star without its partner, several pairs, or nothing between the two.
    """
    plain, marks = _without_marks(text)
    if len(marks) != 2:
        raise LayerscopeError(
            f"the stars in {where} do not mark one subject",
            found=f"{_counted(len(marks))} in {text[:80]!r}",
            expected=_EXPECTED,
            hint=r"put one star before and one after the subject; write \* for a star that is meant",
        )
    if not plain[marks[0] : marks[1]].strip():
        raise LayerscopeError(
            f"the stars in {where} mark an empty subject",
            found=f"nothing but blanks between the stars of {text[:80]!r}",
            expected=_EXPECTED,
            hint="put the stars round at least one word",
        )
    return plain, (marks[0], marks[1])


def with_stars(text: str, span: tuple[int, int]) -> str:
    """Write a text with stars round `span`; the inverse of `parse_stars`."""
    start, end = span
    return f"{_before_mark(text[:start])}*{_before_mark(text[start:end])}*{_escaped(text[end:])}"


def _is_mark(match: re.Match[str]) -> bool:
    return len(match.group(1)) % 2 == 0


def _without_marks(text: str) -> tuple[str, list[int]]:
    plain, marks, done = "", [], 0
    for match in _STAR.finditer(text):
        plain += text[done : match.start()] + "\\" * (len(match.group(1)) // 2)
        done = match.end()
        if _is_mark(match):
            marks.append(len(plain))
        else:
            plain += "*"
    return plain + text[done:], marks


def _escaped(text: str) -> str:
    return _STAR.sub(lambda match: f"{match.group(1) * 2}\\*", text)


def _before_mark(text: str) -> str:
    """Escaped, and with the backslashes doubled that would otherwise escape the mark that follows."""
    escaped = _escaped(text)
    return escaped + "\\" * (len(escaped) - len(escaped.rstrip("\\")))


def _counted(stars: int) -> str:
    return {0: "no star", 1: "one star without its partner"}.get(stars, f"{stars} stars")
