"""Prompts: texts that end just before an answer, each with the span of characters that is noised.

They come from a `.jsonl`, `.csv` or `.json` file (ROME's known_1000 and CounterFact included), from
Python, from a text with *stars* round what is corrupted, or from a set that comes with Layerscope.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from layerscope.errors import LayerscopeError
from layerscope.text.prompt_files import UNCATEGORISED, prompt_fields
from layerscope.text.record_fields import record_of, shown, unique_names
from layerscope.text.records import Item, known_ending, read_items
from layerscope.text.sources import bundled_sets, find_source, missing
from layerscope.text.stars import has_stars

_ENDINGS = (".jsonl", ".csv", ".json")
_FIELDS = '{"prompt": ..., "subject": ..., "answer": ...}'


class Prompt(BaseModel):
    """A text that ends before the answer, and what in it is noised.

    Attributes:
        name: the id by which results are looked up.
        category: what averages are taken over.
        text: what the model reads; a blank that belongs to the answer is not part of it.
        subject: the characters [start, end) of `text` that are noised.
        answer: how the text goes on, with its leading blank; "" means that the model's own top-1 is
            traced, whatever it is.
        pair: the name of the matched prompt, in matched designs.
        partner: another subject, to stand in the subject's place; "" for none.
        note: what the reader of the file found worth saying.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    category: str = UNCATEGORISED
    text: str
    subject: tuple[int, int]
    answer: str
    pair: str | None = None
    partner: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _subject_lies_in_the_text(self) -> Prompt:
        start, end = self.subject
        if not (0 <= start < end <= len(self.text) and self.text[start:end].strip()):
            raise ValueError(f"the subject {self.subject} is no span of the text {shown(self.text)}")
        if "\0" in self.text + self.answer + self.name + self.category:
            raise ValueError("a prompt cannot hold the character NUL")
        return self


def load_prompts(source: object) -> tuple[Prompt, ...]:
    """Read prompts from a file, a bundled set, Python values or a starred text.

    Args:
        source: a path (or its text) to a `.jsonl`, `.csv` or `.json` file; the name of a bundled set;
            several of these joined by `+`; a text with *stars* round what is corrupted; a Prompt or a mapping
            with a file's fields; or any iterable of these last three. In Python, "answer" may be left out:
            the model's own top-1 is then traced.

    Returns:
        The prompts in their order, with names that differ.

    Raises:
        LayerscopeError: whatever cannot be read, with the file, the line and the field.

    Example:
        load_prompts("The *Eiffel* Tower is located in the city of")
    """
    prompts = tuple(read() for read in prompts_of(source))
    if not prompts:
        raise LayerscopeError(
            "there are no prompts", found="an empty list", expected="at least one", hint="give one prompt"
        )
    unique_names([prompt.name for prompt in prompts], "prompts")
    return prompts


def prompts_of(source: object) -> list[Callable[[], Prompt]]:
    """What reads each prompt of a source, so that one that cannot be read need not hide the others.

    Raises:
        LayerscopeError: a source that cannot be read as a whole.
    """
    if several := _joined(source):
        return [read for part in several for read in prompts_of(part)]
    if isinstance(source, (str, os.PathLike)):
        path = find_source(source, kind="prompts", endings=_ENDINGS, folders=False)
        if path is None:
            return [partial(_starred, str(source), "the prompt", 1)]
        known_ending(path, _ENDINGS)
        return [partial(_from_item, item, number) for number, item in enumerate(read_items(path), start=1)]
    if isinstance(source, (Prompt, Mapping)):
        return [partial(_from_python, source, 1)]
    if not isinstance(source, Iterable):
        raise _not_prompts(source, "the source")
    return [partial(_from_python, value, number) for number, value in enumerate(source, start=1)]


def _joined(source: object) -> list[str]:
    """The parts of `world + world-invented`; none of a starred text, nor of a path that holds a plus itself."""
    if not isinstance(source, str) or "+" not in source or has_stars(source) or Path(source).exists():
        return []
    return [part.strip() for part in source.split("+")]


def _from_python(value: Any, number: int) -> Prompt:
    if isinstance(value, Prompt):
        return value
    if isinstance(value, str):
        return _starred(value, f"prompt {number}", number)
    if not isinstance(value, Mapping):
        raise _not_prompts(value, f"prompt {number}")
    return _from_item(Item(value, f"prompt {number}", in_file=False), number)


def _from_item(item: Item, number: int) -> Prompt:
    record = record_of(item, expected=_FIELDS)
    return Prompt(**prompt_fields(record, default_name=_default_name(number)))


def _starred(text: str, where: str, number: int) -> Prompt:
    if where == "the prompt" and not has_stars(text):
        raise _neither_file_nor_stars(text)
    return _from_item(Item({"prompt": text}, where, in_file=False), number)


def _default_name(number: int) -> str:
    return f"prompt-{number:03d}"


def _neither_file_nor_stars(text: str) -> LayerscopeError:
    if text.strip() and not any(character.isspace() for character in text.strip()):
        return missing(text, "prompts", bundled_sets("prompts"))
    return LayerscopeError(
        "this text is neither a file nor a starred prompt",
        found=shown(text),
        expected="a file, a bundled set, or a text with one pair of *stars* round what is corrupted",
        hint="The *Eiffel* Tower is located in the city of",
    )


def _not_prompts(value: object, where: str) -> LayerscopeError:
    return LayerscopeError(
        f"{where} cannot be read as a prompt",
        found=f"{type(value).__name__}: {shown(value)}",
        expected=f"a Prompt, a mapping like {_FIELDS}, or a text with *stars*",
        hint="load_prompts accepts a list of any of these",
    )
