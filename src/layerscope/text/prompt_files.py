"""One prompt from the fields of a record, in any of the layouts that are read.

- Layerscope's own: `prompt`, `subject` (or stars in the prompt), `answer`; optional `id`, `category`,
  `pair`, `partner`, `subject_start`. Other fields are left alone.
- ROME's known_1000: `prompt`, `subject`, `attribute`, with `template`, `known_id`, `relation_id`.
- CounterFact: `requested_rewrite` with a `prompt` that holds {}, `subject` and `target_true`; or these three alone.
- zsRE: `src`, a question, with `subject` and `answers`, of which the first counts.

Of other known datasets it is said what they are, and how they can be read.

Source: the foreign layouts are those of Meng et al. 2022, "Locating and Editing Factual Associations".
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import Record, shown
from layerscope.text.stars import has_stars, parse_stars

UNCATEGORISED = "uncategorised"
LONGEST = 200_000
"""Characters of a field of a prompt. Longer ones are files that were taken for prompts: no model could be traced on
them, and splitting them into tokens takes minutes."""


def prompt_fields(record: Record, *, default_name: str) -> dict[str, Any]:
    """What `Prompt` is made of, from a record in any layout.

    Args:
        record: the fields as they were written.
        default_name: the name of a prompt that states none.

    Raises:
        LayerscopeError: naming the field and the place, for whatever does not hold.
    """
    _refuse_too_long(record)
    if "requested_rewrite" in record.fields:
        return _counterfact(record, default_name)
    if "answer" not in record.fields:
        if "attribute" in record.fields:
            return _known_1000(record, default_name)
        if "target_true" in record.fields:
            return _rewrite(_with_place(record), record.optional("case_id"), default_name)
        if "src" in record.fields and "prompt" not in record.fields:
            return _zsre(record, default_name)
    _refuse_other_datasets(record)
    return _own_layout(record, default_name)


def _own_layout(record: Record, default_name: str) -> dict[str, Any]:
    written = record.text("prompt")
    _refuse_empty(written, "prompt", record)
    text, span, note = _located(record, written)
    return {
        "name": record.optional("id") or default_name,
        "category": record.optional("category") or UNCATEGORISED,
        "text": text,
        "subject": span,
        "answer": record.text("answer", default=None if record.in_file else ""),
        "pair": record.optional("pair"),
        "partner": record.optional("partner") or "",
        "note": note,
    }


def _known_1000(record: Record, default_name: str) -> dict[str, Any]:
    text, subject = record.text("prompt"), record.text("subject")
    _refuse_empty(text, "prompt", record)
    _refuse_empty(subject, "subject", record)
    before, gap, _ = record.text("template", default="").partition("{}")
    start = len(before) if gap and text.startswith(before + subject) else None
    span, note = _span_of(text, subject, start, record)
    number, category = record.optional("known_id"), record.optional("relation_id")
    return {
        "name": f"known-{number}" if number else default_name,
        "category": category or UNCATEGORISED,
        "text": text,
        "subject": span,
        "answer": _after(text, record.text("attribute")),
        "note": note,
    }


def _counterfact(record: Record, default_name: str) -> dict[str, Any]:
    rewrite = record.inner("requested_rewrite")
    return _rewrite(rewrite, record.optional("case_id"), default_name)


def _with_place(record: Record) -> Record:
    """A flat record of CounterFact, whose prompt may hold the subject itself, with {} in its place."""
    prompt, subject = record.text("prompt"), record.text("subject")
    if not subject or "{}" in prompt:
        return record
    return replace(record, fields={**record.fields, "prompt": prompt.replace(subject, "{}", 1)})


def _rewrite(rewrite: Record, number: str | None, default_name: str) -> dict[str, Any]:
    """A prompt with {} in the subject's place, and a true target."""
    template, subject = rewrite.text("prompt"), rewrite.text("subject")
    _refuse_empty(subject, "subject", rewrite)
    before, gap, after = template.partition("{}")
    if not gap:
        raise LayerscopeError(
            f"the template has no place for the subject in {rewrite.where}",
            found=shown(template),
            expected='"{}" where the subject goes, as in "The mother tongue of {} is"',
            hint="put {} into the template",
        )
    text, true = before + subject + after, rewrite.fields.get("target_true")
    answer = true if isinstance(true, str) else rewrite.inner("target_true").text("str")
    return {
        "name": f"case-{number}" if number else default_name,
        "category": rewrite.optional("relation_id") or UNCATEGORISED,
        "text": text,
        "subject": (len(before), len(before) + len(subject)),
        "answer": _after(text, answer),
    }


def _zsre(record: Record, default_name: str) -> dict[str, Any]:
    text, subject, answers = record.text("src"), record.text("subject"), record.fields.get("answers")
    _refuse_empty(text, "src", record)
    _refuse_empty(subject, "subject", record)
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        raise record.unfit("answers", answers, "a list of texts")
    span, note = _span_of(text, subject, None, record)
    return {
        "name": default_name,
        "text": text,
        "subject": span,
        "answer": _after(text, answers[0]),
        "note": note,
    }


_OTHERS = {
    "sentence_good": (
        "a minimal pair of BLiMP, which has no subject and no answer",
        "--passages reads sentence_good",
    ),
    "masked_sentences": (
        "a probe of LAMA for masked models",
        "the part before [MASK] is a prompt, obj_label its answer",
    ),
    "obj_label": ("a probe of LAMA or ParaRel", "write prompt, sub_label as subject and obj_label as answer"),
    "corrupted": (
        "a clean and a corrupted text",
        "one prompt with its subject, and a partner for it",
    ),
    "question": ("a question with answers", "rename question to prompt, and add subject and answer"),
    "text": ("a passage", "--passages reads it; a prompt has prompt, subject and answer"),
}
"""Fields by which other datasets are known: what they are, and how they can be read."""


def _refuse_other_datasets(record: Record) -> None:
    known = next((name for name in _OTHERS if name in record.fields), None)
    if known is not None and "prompt" not in record.fields:
        what, hint = _OTHERS[known]
        raise LayerscopeError(
            f"this is no prompt: {record.where}",
            found=f'"{known}": {what}',
            expected='"prompt", "subject" and "answer", or the layout of known_1000, CounterFact or zsRE',
            hint=hint,
        )


def _located(record: Record, written: str) -> tuple[str, tuple[int, int], str]:
    """The prompt's text, its subject's span, and a note where that span was a choice."""
    subject = record.text("subject", default="")
    if subject.strip():
        span, note = _span_of(written, subject, record.offset("subject_start"), record)
        stars = "stars in the prompt are read as they stand, since a subject is given"
        return written, span, "; ".join(filter(None, [note, stars if has_stars(written) else ""]))
    if has_stars(written):
        return *parse_stars(written, where=record.where), ""
    if "subject" in record.fields:
        _refuse_empty(subject, "subject", record)
    raise LayerscopeError(
        f"it is not said what is corrupted in {record.where}",
        found=f'neither a field "subject" nor stars in {shown(written)}',
        expected='"subject": the words of the prompt that are corrupted',
        hint="add the field, or put *stars* round those words in the prompt",
    )


def _span_of(text: str, subject: str, start: int | None, record: Record) -> tuple[tuple[int, int], str]:
    first, times = _first_place(text, subject), text.count(subject)
    if first < 0:
        raise LayerscopeError(
            f"the subject does not occur in the prompt in {record.where}",
            found=f"{shown(subject)} in {shown(text)}",
            expected="the subject as it is written in the prompt, capitals and accents included",
            hint="copy the words out of the prompt",
        )
    if start is None:
        many = f"the subject occurs {times} times in the prompt: the first whole word is corrupted"
        return (first, first + len(subject)), many if times > 1 else ""
    if not text.startswith(subject, start):
        raise LayerscopeError(
            f"the subject does not stand at subject_start in {record.where}",
            found=f"{shown(text[start : start + len(subject)])} at character {start}",
            expected=f"{shown(subject)}, which first occurs at character {first}",
            hint="count characters from 0, or leave subject_start out",
        )
    return (start, start + len(subject)), ""


def _first_place(text: str, subject: str) -> int:
    """Where the subject first stands as whole words, else where it first stands at all; -1 where nowhere."""
    whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", text)
    return whole.start() if whole else text.find(subject)


def _after(prompt: str, answer: str) -> str:
    """The answer as it continues the prompt: these layouts write it without the blank between the two."""
    return answer if not answer or prompt[-1:].isspace() or answer[0].isspace() else f" {answer}"


def _refuse_empty(text: str, field: str, record: Record) -> None:
    if not text.strip():
        raise LayerscopeError(
            f'"{field}" is empty in {record.where}',
            found=shown(text),
            expected="text",
            hint=f"fill the {field} in, or remove the entry",
        )


def _refuse_too_long(record: Record) -> None:
    for name, value in record.fields.items():
        if isinstance(value, str) and len(value) > LONGEST:
            raise LayerscopeError(
                f'"{name}" is far too long for a prompt in {record.where}',
                found=f"{len(value):,} characters: {shown(value)}",
                expected=f"at most {LONGEST:,} characters",
                hint="long texts are passages (--passages): the experiments that read them take any length",
            )
