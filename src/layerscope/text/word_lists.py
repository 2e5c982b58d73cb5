"""Word lists: one word a line, for experiments that write their own texts from words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from layerscope.bundled import bundled_folder
from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import refuse_hostile, shown
from layerscope.text.records import empty_file, read_text
from layerscope.text.sources import missing


def word_sets() -> dict[str, Path]:
    """The word lists that come with Layerscope, by name."""
    return {path.stem: path for path in sorted(bundled_folder("words").glob("*.txt"))}


def load_words(source: object) -> tuple[str, ...]:
    """Read words from a text file, a bundled set, or an iterable of words; their order is kept.

    Raises:
        LayerscopeError: an empty line, a line that is not one word, or a word that comes twice, with its
            line; a file that cannot be read.
    """
    where, lines = _lines(source)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise LayerscopeError(
            "there are no words", found=where, expected="one word a line", hint="another file"
        )
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word = line.strip()
        place = f"{where}, line {number}"
        if not word:
            raise _unfit(place, "an empty line", "remove it")
        if len(word.split()) > 1:
            raise _unfit(place, f"several words: {shown(word)}", "write each on a line of its own")
        if word in seen:
            raise _unfit(place, f"{shown(word)}, which is also line {seen[word]}", "remove one of the two")
        refuse_hostile(word, field="word", where=place)
        seen[word] = number
    return tuple(seen)


def _lines(source: object) -> tuple[str, list[str]]:
    if isinstance(source, (str, os.PathLike)):
        path = _file(os.fspath(source))
        text = read_text(path)
        if not text.strip():
            raise empty_file(path)
        return str(path), text.replace("\r\n", "\n").split("\n")
    if isinstance(source, Iterable):
        values = list(source)
        wrong = [value for value in values if not isinstance(value, str)]
        if not wrong:
            return "the words", values
        source = wrong[0]
    raise LayerscopeError(
        "this cannot be read as a list of words",
        found=f"{type(source).__name__}: {shown(source)}",
        expected="a text file with one word a line, a bundled set, or words",
        hint="--words world",
    )


def _file(source: str) -> Path:
    sets, path = word_sets(), Path(source)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long for a file name, or not encodable as one
        pass
    if source in sets:
        return sets[source]
    raise missing(source, "words", sets)


def _unfit(where: str, found: str, hint: str) -> LayerscopeError:
    return LayerscopeError(
        f"this list of words cannot be read: {where}", found=found, expected="one word a line", hint=hint
    )
