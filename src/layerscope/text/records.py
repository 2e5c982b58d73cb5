"""Records from files: what stands in a .jsonl, .csv or .json file, each with the place it came from.

Prompts and passages read their files through here, so that both refuse a broken line in the same words.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layerscope.errors import LayerscopeError
from layerscope.results.files import unreadable

_LONGEST_CELL = 2**31 - 1
_LOOKED_AT = 1000
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "upright bars"}


@dataclass(frozen=True)
class Item:
    """One value as its source gave it.

    `where` is for people: "facts.jsonl, line 3". `in_file` tells files, in which every required field
    must be written out, from Python values.
    """

    value: object
    where: str
    in_file: bool = True


def read_items(path: Path) -> list[Item]:
    """Everything a .jsonl, .csv or .json file holds, in its order.

    Raises:
        LayerscopeError: a file that cannot be read, is not UTF-8, is empty or broken (with the line), or
            has another ending.
    """
    readers = {".jsonl": _jsonl_items, ".csv": _csv_items, ".json": _json_items}
    items = list(readers[known_ending(path, readers)](read_text(path), path))
    if not items:
        raise empty_file(path)
    return items


def known_ending(path: Path, endings: Iterable[str]) -> str:
    """The file's ending in lower case; a LayerscopeError names the known ones if it is not among them."""
    ending, known = path.suffix.lower(), tuple(endings)
    if ending not in known:
        raise LayerscopeError(
            f"files with this ending are not read: {path}",
            found=ending or "no ending",
            expected=" or ".join(known),
            hint="convert the file, or give its contents from Python",
        )
    return ending


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, less a byte order mark; line ends stay as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    return decoded(data, str(path))


def decoded(data: bytes, where: str) -> str:
    """UTF-8 bytes as text, less a byte order mark; what is not text is refused with its place."""
    if other := _other_encoding(data):
        raise LayerscopeError(
            f"the file is not UTF-8: {where}",
            found=f"{other}, as some editors and spreadsheets save",
            expected="text in UTF-8",
            hint=f"save it as UTF-8, for example: iconv -f {other} -t UTF-8 OLD > NEW",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LayerscopeError(
            f"the file is not UTF-8: {where}, line {line}",
            found=f"the byte 0x{data[error.start]:02x} at offset {error.start}",
            expected="text in UTF-8",
            hint="save it as UTF-8, for example: iconv -f LATIN1 -t UTF-8 OLD > NEW",
        ) from error
    if "\0" in text:
        raise LayerscopeError(
            f"the file is not text: {where}",
            found=f"a zero byte at offset {data.index(0)}",
            expected="text in UTF-8",
            hint="a text file; binary data has no passages",
        )
    return text


def _other_encoding(data: bytes) -> str:
    """The encoding that a file begins like, where each character takes two or four bytes; else empty."""
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32")):
        if data.startswith(mark):
            return name
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    start = data[:_LOOKED_AT]
    zeros = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if (
        half > 1 and min(zeros) == 0 and max(zeros) > half // 2
    ):  # ordinary letters, of which every other byte is 0
        return "UTF-16BE" if zeros[0] else "UTF-16LE"
    return ""


def items_of_lines(text: str, where: str) -> list[Item]:
    """What stands in lines of JSON that came from elsewhere than a file."""
    return list(_jsonl_items(text, Path(where)))


def empty_file(path: Path) -> LayerscopeError:
    """The error for a file that holds nothing to work on."""
    return LayerscopeError(
        f"the file is empty: {path}",
        found="no records",
        expected="at least one",
        hint="check that it was written completely",
    )


def _jsonl_items(text: str, path: Path) -> Iterator[Item]:
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield Item(_parsed(line, f"{path}, line {number}"), f"{path}, line {number}")


def _json_items(text: str, path: Path) -> Iterator[Item]:
    if not text.strip():
        raise empty_file(path)
    values = _parsed(text, str(path))
    if not isinstance(values, list):
        raise LayerscopeError(
            f"this file does not hold a list: {path}",
            found=f"a JSON {_json_kind(values)}",
            expected="a JSON list with one entry per text",
            hint="put [ ] round the entries, or write one object per line into a .jsonl file",
        )
    for number, value in enumerate(values, start=1):
        yield Item(value, f"{path}, entry {number}")


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayerscopeError(
            f"broken JSON in {where}",
            found=_parser_message(error),
            expected="valid JSON",
            hint='mend or remove that line; quotes inside a text are written \\"',
        ) from error


def _parser_message(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    line = f"line {error.lineno}, " if error.lineno > 1 else ""
    return f"{error.msg} ({line}column {error.colno})"


def _csv_items(text: str, path: Path) -> Iterator[Item]:
    rows = _csv_rows(text, path)
    if not rows:
        return
    names = [name.strip() for name in rows[0][1]]
    _refuse_other_separators(names, path)
    _refuse_twins(names, f"{path}, line {rows[0][0]}")
    for line, cells in rows[1:]:
        where = f"{path}, line {line}"
        if len(cells) != len(names):
            raise LayerscopeError(
                f"a row does not fit the header in {where}",
                found=f"{len(cells)} cells",
                expected=f"{len(names)} cells: {', '.join(names)}",
                hint='put a cell that holds a comma or a line end in double quotes: "a, b"',
            )
        yield Item(dict(zip(names, cells, strict=True)), where)


def _csv_rows(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of the line where it begins."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, begins = [], 1
    try:
        with _cells_of_any_length():
            for cells in rows:
                if cells:
                    found.append((begins, cells))
                begins = rows.line_num + 1
    except csv.Error as error:
        raise LayerscopeError(
            f"broken csv in {path}, line {begins}",
            found=str(error),
            expected='comma-separated cells, quoted with " where needed',
            hint='look for a quote that is not closed; a " inside a cell is written ""',
        ) from error
    return found


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters: a cell may hold a whole book."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _refuse_other_separators(names: list[str], path: Path) -> None:
    """Refuse a header of one cell that holds another separator: spreadsheets of many countries write semicolons."""
    other = next((name for name in _OTHER_SEPARATORS if name in names[0]), None) if len(names) == 1 else None
    if other is not None:
        raise LayerscopeError(
            f"the cells of this file are separated by {_OTHER_SEPARATORS[other]}: {path}",
            found=names[0],
            expected=",".join(names[0].split(other)),
            hint="save it with commas between cells (CSV, comma delimited), or as .jsonl",
        )


def _refuse_twins(names: list[str], where: str) -> None:
    twins = sorted({name for name in names if name and names.count(name) > 1})
    if twins:
        raise LayerscopeError(
            f"two columns have the same name in {where}",
            found=", ".join(map(repr, twins)),
            expected="column names that differ",
            hint="rename one of them",
        )


def _json_kind(value: object) -> str:
    kinds = {dict: "object", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
