"""Treebanks: sentences whose words carry part of speech, dependency head and relation, from CoNLL-U files.

A treebank is parsed here by hand: one split at tabs is many times as fast as a general reader, keeps the
line of every word for error messages, and nothing but six of the ten columns is wanted.

Format: https://universaldependencies.org/format.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from layerscope.bundled import bundled_folder
from layerscope.errors import LayerscopeError
from layerscope.text.prompt_files import UNCATEGORISED
from layerscope.text.record_fields import refuse_hostile, shown, unique_names
from layerscope.text.records import empty_file, known_ending, read_text
from layerscope.text.sources import missing

Split = Literal["train", "dev", "test", ""]

_ENDINGS = (".conllu",)
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_COLUMNS = 10
_ID = re.compile(r"([1-9]\d*)(?:-([1-9]\d*)|\.(\d+))?|0\.\d+")
_GENRE = re.compile(r"(?:meta::)?(?:genre|register|language)")
_NOT_IN_TEXT = (0, 0)


class Sentence(BaseModel):
    """A sentence with its annotation; the tuples have one entry for each syntactic word.

    Attributes:
        name: its sent_id, or document and number.
        document: what it belongs to; documents, not sentences, are independent of one another.
        genre: of the document: what its metadata state, or the first piece of its id.
        split: the part of the treebank that it stands in, as its file's name says; "" where it does not.
        text: what a model reads.
        spans: the characters [start, end) of the text that a word stands for; (0, 0) for a word that does
            not stand in the text (a part of a contraction that is written otherwise).
        upos: coarse parts of speech.
        xpos: fine parts of speech, "" where the treebank has none.
        deprel: relation to the head, with its subtype.
        head: number of the head, counted from 1; 0 for the root, -1 where the treebank has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    document: str
    genre: str = UNCATEGORISED
    split: Split = ""
    text: str
    spans: tuple[tuple[int, int], ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]
    deprel: tuple[str, ...]
    head: tuple[int, ...]

    @property
    def forms(self) -> tuple[str, ...]:
        """The words as they are written; "" for a word that does not stand in the text."""
        return tuple(self.text[start:end] for start, end in self.spans)


def treebank_sets() -> dict[str, list[Path]]:
    """The treebanks that come with Layerscope: their files, by name."""
    sets: dict[str, list[Path]] = {}
    for path in sorted(bundled_folder("treebanks").glob("*.conllu")):
        sets.setdefault(re.sub(r"-(train|dev|test)$", "", path.stem), []).append(path)
    return {name: _in_order(files) for name, files in sets.items()}


def load_treebank(source: object) -> tuple[Sentence, ...]:
    """Read a treebank from a .conllu file, a folder of them, a bundled set, CoNLL-U text, or sentences.

    In a folder, files whose names hold train, dev or test as a word of their own are those parts of the
    treebank. Empty nodes are passed over. Documents begin at `# newdoc`; where a file has none, every
    sentence is a document of its own.

    Raises:
        LayerscopeError: whatever cannot be read, with file and line.
    """
    sentences = tuple(_read(source))
    if not sentences:
        raise LayerscopeError(
            "there are no sentences", found="an empty treebank", expected="at least one", hint="another file"
        )
    unique_names([sentence.name for sentence in sentences], "sentences")
    return sentences


def _read(source: object) -> Iterator[Sentence]:
    if isinstance(source, str) and "\t" in source:
        yield from _parsed(source, "the text", "text", "")
    elif isinstance(source, (str, os.PathLike)):
        for path in _files(os.fspath(source)):
            text = read_text(path)
            if not text.strip():
                raise empty_file(path)
            yield from _parsed(text, str(path), path.stem, _split_of(path))
    elif isinstance(source, Iterable):
        for number, sentence in enumerate(source, start=1):
            if not isinstance(sentence, Sentence):
                raise _not_a_treebank(sentence, f"entry {number}")
            yield sentence
    else:
        raise _not_a_treebank(source, "the source")


def _files(source: str) -> list[Path]:
    sets, path = treebank_sets(), Path(source)
    try:
        is_file, is_folder = path.is_file(), bool(source) and path.is_dir()
    except (OSError, ValueError):  # too long for a file name, or not encodable as one
        is_file = is_folder = False
    if is_file:
        known_ending(path, _ENDINGS)
        return [path]
    if source in sets:
        return sets[source]
    if is_folder:
        return _from_folder(path)
    raise missing(source, "treebank", sets)


def _from_folder(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file()]
    if not files:
        raise LayerscopeError(
            f"there is no treebank in this folder: {folder}",
            found="no file that ends in .conllu",
            expected="…-train.conllu, …-dev.conllu, …-test.conllu, or a single file",
            hint="name another folder, or a file",
        )
    return _in_order(files)


def _in_order(files: Iterable[Path]) -> list[Path]:
    order: tuple[Split, ...] = (*_SPLITS, "")
    return sorted(files, key=lambda path: (order.index(_split_of(path)), path.name))


def _split_of(path: Path) -> Split:
    pieces = re.split(r"[^a-z]+", path.stem.lower())
    return next((split for split in _SPLITS if split in pieces), "")


# -- one file -----------------------------------------------------------------------------------------


@dataclass
class _Block:
    """The lines of one sentence, as far as they have been read."""

    line: int = 0
    comments: dict[str, str] = field(default_factory=dict)
    words: list[tuple[int, list[str]]] = field(default_factory=list)
    contractions: list[tuple[int, int, str, bool]] = field(default_factory=list)


@dataclass
class _Place:
    """Where in a file the reader is: what a sentence's document and name follow from."""

    where: str
    stem: str
    split: Split
    document: str = ""
    genre: str = ""
    number: int = 0


def _parsed(text: str, where: str, stem: str, split: Split) -> Iterator[Sentence]:
    place = _Place(where, stem, split)
    block = _Block()
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            _take(line, number, block, where)
        elif block.words:
            yield _sentence(block, place)
            block = _Block()
    if block.words:
        yield _sentence(block, place)
    if not place.number:
        raise _broken(where, 1, "no sentence", "lines of ten columns", "is this a CoNLL-U file?")


def _take(line: str, number: int, block: _Block, where: str) -> None:
    block.line = block.line or number
    if line.startswith("#"):
        name, _, value = line[1:].partition("=")
        block.comments[name.strip()] = value.strip()
        return
    columns = line.split("\t")
    if len(columns) != _COLUMNS:
        found = f"{len(columns)} columns: {shown(line, 60)}"
        raise _broken(where, number, found, "ten columns, separated by tabs", "convert the file to CoNLL-U")
    match = _ID.fullmatch(columns[0])
    if match is None:
        raise _broken(where, number, f"the id {shown(columns[0])}", "1, 2, …, 3-4 or 5.1", "mend the id")
    if match[2]:
        spaced = "SpaceAfter=No" not in columns[9].split("|")
        block.contractions.append((int(match[1]), int(match[2]), columns[1], spaced))
    elif "." not in columns[0]:
        _take_word(columns, number, block, where)


def _take_word(columns: list[str], number: int, block: _Block, where: str) -> None:
    expected = len(block.words) + 1
    if int(columns[0]) != expected:
        raise _broken(
            where, number, f"word {columns[0]}", f"word {expected}", "ids count 1, 2, 3 in a sentence"
        )
    if columns[6] != "_" and not re.fullmatch(r"\d{1,6}", columns[6]):
        raise _broken(
            where, number, f"the head {shown(columns[6])}", "the number of a word, 0 or _", "mend it"
        )
    if not columns[1]:
        raise _broken(where, number, "a word without a form", "a form in the second column", "mend the word")
    refuse_hostile(columns[1], field="form", where=f"{where}, line {number}")
    block.words.append((number, columns))


def _sentence(block: _Block, place: _Place) -> Sentence:
    place.number += 1
    begins = [name for name in block.comments if name == "newdoc" or name.startswith("newdoc ")]
    if begins:
        place.document = block.comments[begins[0]] or f"{place.stem}-document-{place.number:05d}"
        place.genre = _genre(block.comments, place.document)
    name = block.comments.get("sent_id") or f"{place.stem}-{place.number:05d}"
    _check_heads(block, place.where)
    text, spans = _text_and_spans(block, place.where)
    columns = list(zip(*(word for _, word in block.words), strict=True))
    return Sentence(
        name=name,
        document=place.document or name,
        genre=place.genre or _genre(block.comments, ""),
        split=place.split,
        text=text,
        spans=tuple(spans),
        upos=_labels(columns[3]),
        xpos=_labels(columns[4]),
        deprel=_labels(columns[7]),
        head=tuple(-1 if head == "_" else int(head) for head in columns[6]),
    )


def _labels(column: Iterable[str]) -> tuple[str, ...]:
    return tuple("" if label == "_" else label for label in column)


def _genre(comments: dict[str, str], document: str) -> str:
    """What the metadata state; else the first piece of the document's id, as in English EWT."""
    stated = [value for name, value in comments.items() if _GENRE.fullmatch(name) and value]
    first = re.split(r"[-_]", document)[0]
    return stated[0] if stated else first if first != document else UNCATEGORISED


def _check_heads(block: _Block, where: str) -> None:
    for number, columns in block.words:
        if columns[6] != "_" and int(columns[6]) > len(block.words):
            raise _broken(
                where, number, f"the head {columns[6]}", f"0 to {len(block.words)}", "mend the head"
            )


def _text_and_spans(block: _Block, where: str) -> tuple[str, list[tuple[int, int]]]:
    """The text, as stated or put together, and each word's characters in it."""
    stated = block.comments.get("text")
    refuse_hostile(stated or "", field="text", where=f"{where}, line {block.line}")
    text, spans, at = stated or "", [_NOT_IN_TEXT] * len(block.words), 0
    for number, form, spaced, inside in _surface(block, where):
        if stated is None:
            start, text = len(text), text + form + (" " if spaced else "")
        else:
            while at < len(text) and text[at].isspace() and not form.startswith(text[at]):
                at += 1
            start = at
            if not text.startswith(form, start):
                found = f"{shown(form)} where the text goes on with {shown(text[start : start + 20])}"
                raise _broken(
                    where, number, found, "words in the order of # text", "mend # text, or leave it out"
                )
        at = start + len(form)
        for word in inside:
            length = len(block.words[word][1][1]) if len(inside) > 1 else len(form)
            spans[word] = (start, start + length)
            start += length
    return text.rstrip() if stated is None else text, spans


def _surface(block: _Block, where: str) -> Iterator[tuple[int, str, bool, list[int]]]:
    """What stands in the text, one after another: line, form, whether a blank follows, and the words in it.

    A contraction holds its words if they spell it one after another, else none (French du = de + le).
    """
    starts = {first: (last, form, spaced) for first, last, form, spaced in block.contractions}
    index = 0
    while index < len(block.words):
        number, columns = block.words[index]
        if index + 1 not in starts:
            yield number, columns[1], "SpaceAfter=No" not in columns[9].split("|"), [index]
            index += 1
            continue
        last, form, spaced = starts[index + 1]
        if last > len(block.words) or last <= index:
            raise _broken(
                where, number, f"a contraction up to word {last}", "words that are there", "mend it"
            )
        inside = list(range(index, last))
        spelt = "".join(block.words[word][1][1] for word in inside)
        yield number, form, spaced, inside if spelt == form else []
        index = last


def _broken(where: str, line: int, found: str, expected: str, hint: str) -> LayerscopeError:
    return LayerscopeError(
        f"this treebank cannot be read: {where}, line {line}", found=found, expected=expected, hint=hint
    )


def _not_a_treebank(value: object, where: str) -> LayerscopeError:
    return LayerscopeError(
        f"{where} cannot be read as a treebank",
        found=f"{type(value).__name__}: {shown(value)}",
        expected="a .conllu file, a folder of them, a bundled set, CoNLL-U text, or Sentences",
        hint="--treebank world",
    )
