"""Passages: running text, for everything that is measured on ordinary reading."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer

from layerscope.errors import LayerscopeError
from layerscope.results.files import readable
from layerscope.text.passage_streams import is_stream, items_of_stream
from layerscope.text.prompt_files import UNCATEGORISED
from layerscope.text.record_fields import Record, record_of, refuse_hostile, shown, unique_names
from layerscope.text.records import Item, empty_file, known_ending, read_items, read_text
from layerscope.text.sources import bundled_sets, find_source, missing

_ENDINGS = (".jsonl", ".csv", ".json", ".txt")
_FIELDS = '{"text": ...}'
_TEXTS = ("text", "story", "sentence", "sentence_good", "content", "document")
"""Fields that hold the text, in layouts of several datasets (sentence_good: BLiMP's); the first of them counts."""

_OF_ITS_OWN = ("id", "genre", *_TEXTS)
_LONGEST_LABEL = 40


class Passage(BaseModel):
    """A text to read, by name.

    Attributes:
        name: the id by which results are looked up.
        genre: what kind of text it is, for averages by genre.
        text: what the model reads.
        labels: what else its file says of it in a word or two, by column, such as a language or a register.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    genre: str = UNCATEGORISED
    text: str
    labels: Mapping[str, str] = {}

    @model_serializer(mode="wrap")
    def _without_empty_labels(self, as_usual: Any) -> dict[str, Any]:
        # Runs know their texts by a digest; passages without further labels keep the one they always had.
        fields: dict[str, Any] = as_usual(self)
        return fields if self.labels else {name: fields[name] for name in fields if name != "labels"}


def load_passages(source: object) -> tuple[Passage, ...]:
    """Read passages from a file, a folder of files, a bundled set, or Python values.

    Args:
        source: a path (or its text) to a `.jsonl` file of {"id", "genre", "text"}, a `.json` list of texts
            or of objects with "text" (or "story", "sentence", "content", ...), a `.csv` file with such a
            column, a `.txt` file (one passage), or a folder of such files; further short fields are kept as
            labels. Or the name of a
            bundled set; "-" for standard input; "hub:NAME" for a Hugging Face dataset (see
            `passage_streams`); a Passage or a mapping with these fields; or an iterable of texts, mappings
            and Passages.

    Returns:
        The passages in their order (a folder's files by name), with names that differ.

    Raises:
        LayerscopeError: whatever cannot be read, with the file, the line and the field.
    """
    passages = tuple(_read(source))
    if not passages:
        raise LayerscopeError(
            "there are no passages", found="an empty list", expected="at least one", hint="give one text"
        )
    unique_names([passage.name for passage in passages], "passages")
    return passages


def _read(source: object) -> list[Passage]:
    if isinstance(source, str) and is_stream(source):
        name, items = items_of_stream(source)
        return [_from_item(item, f"{name}-{number:03d}") for number, item in enumerate(items, start=1)]
    if isinstance(source, (str, os.PathLike)):
        path = find_source(source, kind="passages", endings=_ENDINGS, folders=True)
        if path is None:
            raise _not_a_source(str(source))
        return _from_folder(path) if path.is_dir() else _from_file(path, "passage")
    if isinstance(source, (Passage, Mapping)):
        return [_from_python(source, 1)]
    if not isinstance(source, Iterable):
        raise _not_passages(source, "the source")
    return [_from_python(value, number) for number, value in enumerate(source, start=1)]


def _from_folder(folder: Path) -> list[Passage]:
    with readable(folder):
        files = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file()
        )
    if not files:
        raise LayerscopeError(
            f"there are no texts in this folder: {folder}",
            found="no file with a known ending",
            expected=f"files that end in {', '.join(_ENDINGS)}",
            hint="name another folder, or a file",
        )
    return [passage for path in files for passage in _from_file(path, path.stem)]


def _from_file(path: Path, prefix: str) -> list[Passage]:
    if known_ending(path, _ENDINGS) != ".txt":
        items = enumerate(read_items(path), start=1)
        return [_from_item(item, f"{prefix}-{number:03d}") for number, item in items]
    text = read_text(path).replace("\r\n", "\n")
    if not text.strip():
        raise empty_file(path)
    return [_from_item(Item(text, str(path)), path.stem)]


def _from_python(value: Any, number: int) -> Passage:
    if isinstance(value, Passage):
        return value
    if not isinstance(value, (str, Mapping)):
        raise _not_passages(value, f"passage {number}")
    return _from_item(Item(value, f"passage {number}", in_file=False), f"passage-{number:03d}")


def _from_item(item: Item, default_name: str) -> Passage:
    """A passage from an object with named fields, or from a text alone."""
    value = {"text": item.value} if isinstance(item.value, str) else item.value
    record = record_of(Item(value, item.where, item.in_file), expected=_FIELDS)
    text = _text_of(record)
    name = record.optional("id") or default_name
    refuse_hostile(name, field="id", where=record.where)
    return Passage(
        name=name, genre=record.optional("genre") or UNCATEGORISED, text=text, labels=_labels_of(record)
    )


def _labels_of(record: Record) -> dict[str, str]:
    """Further fields whose value is a word or two: what is longer, or no text, says nothing of a kind."""
    found = {}
    for name, value in record.fields.items():
        known = isinstance(value, (str, int)) and not isinstance(value, bool)
        if known and isinstance(name, str) and name.strip() and name not in _OF_ITS_OWN:
            label = str(value).strip()
            if 0 < len(label) <= _LONGEST_LABEL and "\n" not in label:
                refuse_hostile(name + label, field=name, where=record.where)
                found[name.strip()] = label
    return found


def _text_of(record: Record) -> str:
    name = next((name for name in _TEXTS if name in record.fields), "text")
    text = record.text(name)
    if not text.strip():
        raise LayerscopeError(
            f'"{name}" is empty in {record.where}',
            found=shown(text),
            expected="text",
            hint="fill the text in, or remove the entry",
        )
    return text


def _not_a_source(text: str) -> LayerscopeError:
    if text.strip() and not any(character.isspace() for character in text.strip()):
        return missing(text, "passages", bundled_sets("passages"))
    return LayerscopeError(
        "this text is neither a file, a folder nor a bundled set",
        found=shown(text),
        expected=f"a path that ends in {', '.join(_ENDINGS)}, a folder, a bundled set, - or hub:NAME",
        hint="give a text of your own in a list: load_passages([text])",
    )


def _not_passages(value: object, where: str) -> LayerscopeError:
    return LayerscopeError(
        f"{where} cannot be read as a passage",
        found=f"{type(value).__name__}: {shown(value)}",
        expected=f"a text, a mapping like {_FIELDS}, or a Passage",
        hint="load_passages accepts a list of any of these",
    )
