"""Passages that come from no file: standard input, and datasets of the Hugging Face hub.

"-" is standard input: one passage, or, where it begins with "{", one JSON object on each line.

"hub:NAME" is a dataset, "hub:NAME@CONFIG" one of its configurations, and ":SPLIT" at the end one of its splits
(train, unless said otherwise). Its rows are streamed, the first `ROWS` of them; each must have a column "text"
or "story", and rows without a word are passed over. A column "genre" and further short columns are labels, as
the fields of a file are, and classes go by their names; passages are numbered, whatever ids the rows have,
since nobody could mend two that are the same. It needs the package `datasets`, which comes with the extra
of that name. A folder or a name that the package knows is handed on to it as it is.

A stream is read once and kept, since a command looks at its texts before it loads a model. A run keeps the
texts themselves, so it can be resumed and replayed without the stream.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from itertools import islice
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.results.trust import from_a_record
from layerscope.text.record_fields import shown
from layerscope.text.records import Item, decoded, items_of_lines

STANDARD_INPUT, HUB = "-", "hub:"
ROWS = 1000
"""Rows of a dataset that are read: more passages than any experiment uses by default."""

_NAME = re.compile(r"(?P<name>[^@\s]+?)(?:@(?P<config>[^:\s]+))?(?::(?P<split>[A-Za-z0-9_.\[\]%+-]+))?")


def is_stream(source: str) -> bool:
    """Whether a source is standard input or a dataset."""
    return source == STANDARD_INPUT or source.startswith(HUB)


def items_of_stream(source: str) -> tuple[str, list[Item]]:
    """A name for the passages, and what the stream holds.

    Raises:
        LayerscopeError: an empty or binary input; a dataset that cannot be had, or the package missing.
    """
    return _standard_input() if source == STANDARD_INPUT else _dataset(source)


@cache
def _standard_input() -> tuple[str, list[Item]]:
    text = decoded(sys.stdin.buffer.read(), "standard input").replace("\r\n", "\n")
    if not text.strip():
        raise LayerscopeError(
            "standard input is empty",
            found="no text",
            expected="a text, or one JSON object on each line",
            hint="layerscope run truncated_context --passages - < text.txt",
        )
    if text.lstrip().startswith("{"):
        return "stdin", items_of_lines(text, "standard input")
    return "stdin", [Item(text, "standard input")]


@cache
def _dataset(source: str) -> tuple[str, list[Item]]:
    asked = _NAME.fullmatch(source.removeprefix(HUB))
    if asked is None:
        raise LayerscopeError(
            "this is no name of a dataset",
            found=shown(source),
            expected="hub:OWNER/NAME, hub:OWNER/NAME@CONFIG or hub:OWNER/NAME:SPLIT",
            hint="hub:roneneldan/TinyStories:validation",
        )
    rows = _rows(asked["name"], asked["config"], asked["split"] or "train")
    if not rows:
        raise LayerscopeError(
            f"the dataset is empty: {asked['name']}",
            found="no rows",
            expected="at least one",
            hint="another split",
        )
    return asked["name"].rsplit("/", 1)[-1], [
        Item(_without_id(row), f"{source}, row {number}")
        for number, row in enumerate(rows, start=1)
        if str(row.get("text", row.get("story", "a row of another kind"))).strip()
    ]


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its id, and without a genre that is not one word or number, such as a list of several."""
    left_out = {"id"} if isinstance(row.get("genre", ""), (str, int)) else {"id", "genre"}
    return {column: value for column, value in row.items() if column not in left_out}


def _rows(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
    if from_a_record():
        raise LayerscopeError(
            "a dataset that a record names is not fetched from the hub",
            found=f"{HUB}{name}",
            expected="texts that lie in the run folder or on this machine",
            hint="ask anew with layerscope run, naming the dataset yourself",
        )
    try:
        import datasets
    except ImportError as error:
        raise LayerscopeError(
            "datasets of the hub need the package datasets",
            found="no such package here",
            expected="datasets",
            hint="pip install 'layerscope[datasets]'",
        ) from error
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
        names = {column: kind.names for column, kind in (stream.features or {}).items() if _is_class(kind)}
        return [_with_names(row, names) for row in islice(stream, ROWS)]
    except Exception as error:  # whatever the package and the network raise
        raise LayerscopeError(
            f"the dataset cannot be read: {name}",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="a dataset with this name, configuration and split, and a way to the hub",
            hint="hub:OWNER/NAME@CONFIG:SPLIT; without a network, a folder that was downloaded before",
        ) from error


def _is_class(kind: object) -> bool:
    """Whether a column holds numbers of named classes."""
    return type(kind).__name__ == "ClassLabel"


def _with_names(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """A row whose classes go by their names; a number that has none (−1, by custom: no label) is left out."""
    found = dict(row)
    for column, of_class in names.items():
        number = found.pop(column, None)
        if isinstance(number, int) and 0 <= number < len(of_class):
            found[column] = of_class[number]
    return found
