"""Fields of a record, taken out with their types checked and hostile characters refused."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from layerscope.errors import LayerscopeError
from layerscope.text.records import Item

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """The named fields of one prompt or passage, and where they came from."""

    fields: Mapping[str, object]
    where: str
    in_file: bool

    def text(self, name: str, *, default: str | None = None) -> str:
        """A field that holds text; `default` is returned where there is no such field, if given.

        Raises:
            LayerscopeError: no such field (with the nearest name there is), not text, or text that no
                tokenizer or result file can hold.
        """
        if name not in self.fields:
            if default is None:
                raise self._missing(name)
            return default
        value = self.fields[name]
        if not isinstance(value, str):
            raise self.unfit(name, value, "text")
        refuse_hostile(value, field=name, where=self.where)
        return value

    def optional(self, name: str) -> str | None:
        """A text that may be left out, null or empty (all three are None); a number is taken as text."""
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return None if value is None else self.text(name) or None

    def offset(self, name: str) -> int | None:
        """A count of characters, as a number or in digits; None where it is left out, null or empty."""
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value.strip()):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self.unfit(name, value, "a number of characters, 0 or more")

    def inner(self, name: str) -> Record:
        """The object that a field holds, as a record of its own."""
        if name not in self.fields:
            raise self._missing(name)
        value = self.fields[name]
        if not isinstance(value, Mapping):
            raise self.unfit(name, value, "an object")
        return Record(value, f'{self.where}, "{name}"', self.in_file)

    def unfit(self, name: str, value: object, expected: str) -> LayerscopeError:
        """The error for a field whose value is of a wrong type."""
        return LayerscopeError(
            f'the field "{name}" is of a wrong type in {self.where}',
            found=shown(value),
            expected=expected,
            hint=f'write "{name}" as {expected}',
        )

    def _missing(self, name: str) -> LayerscopeError:
        near = nearest(name, [key for key in self.fields if isinstance(key, str)])
        return LayerscopeError(
            f'the field "{name}" is missing in {self.where}',
            found=f"the fields {shown(list(self.fields))}",
            expected=f'"{name}"',
            hint=f'rename {near[0]!r} to "{name}"' if near else f'add "{name}"',
        )


def record_of(item: Item, *, expected: str) -> Record:
    """The item as a record; a LayerscopeError if it is not an object with named fields."""
    if not isinstance(item.value, Mapping):
        raise LayerscopeError(
            f"this is not an object with named fields: {item.where}",
            found=shown(item.value),
            expected=expected,
            hint="write one such object per text",
        )
    return Record(item.value, item.where, item.in_file)


def refuse_hostile(text: str, *, field: str, where: str) -> None:
    """Refuse text that tokenizers cannot encode or that result files cannot hold.

    Raises:
        LayerscopeError: the text holds half of a surrogate pair, or the character NUL.
    """
    match = _SURROGATE.search(text) or re.search("\0", text)
    if match:
        name = "NUL" if match.group() == "\0" else "half of a surrogate pair"
        raise LayerscopeError(
            f'"{field}" holds a character that cannot be encoded in {where}',
            found=f"U+{ord(match.group()):04X} ({name}) at offset {match.start()}",
            expected="valid Unicode text without NUL",
            hint="remove the character; it is often left behind by a cut or wrongly decoded text",
        )


def unique_names(names: Sequence[str], what: str) -> None:
    """Refuse two texts of one name: results are looked up by it."""
    name, times = max(Counter(names).items(), key=lambda entry: entry[1], default=("", 0))
    if times > 1:
        raise LayerscopeError(
            f"two {what} have the same id",
            found=f"{shown(name)}, {times} times",
            expected="an id of its own for each",
            hint="change one, or leave all ids out and they are numbered",
        )


def nearest(name: str, others: Iterable[str]) -> list[str]:
    """Up to three names most like `name`, whatever their case."""
    by_folded = {other.casefold(): other for other in others}
    return [by_folded[near] for near in difflib.get_close_matches(name.casefold(), by_folded, n=3)]


def shown(value: object, longest: int = 100) -> str:
    """A value for an error message: printable whatever it holds, and not too long."""
    # repr leaves lone surrogates escaped, so the message can always be printed.
    text = "null" if value is None else repr(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
