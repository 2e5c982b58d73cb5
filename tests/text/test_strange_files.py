"""Files that are none, in other encodings, with other separators, or of other datasets: read, or told what they are."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from layerscope.errors import LayerscopeError
from layerscope.text.passages import load_passages
from layerscope.text.prompts import load_prompts
from layerscope.text.treebanks import load_treebank
from layerscope.text.word_lists import load_words

LINE = '{"prompt": "the réd fox met", "subject": "réd", "answer": " a"}\n'
LOADERS = {
    load_prompts: ".jsonl", load_passages: ".txt", load_treebank: ".conllu", load_words: ".txt",
}  # fmt: skip


def refusal(load: Callable[[str], object], path: Path) -> LayerscopeError:
    with pytest.raises(LayerscopeError) as caught:
        load(str(path))
    return caught.value


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "circle"])
def test_what_has_no_end_is_never_read(
    load: Callable[[str], object], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{LOADERS[load]}"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)

    error = refusal(load, path)

    assert "this is no file of" in error.problem
    assert {"circle": "leads round"}.get(kind, f"a {kind}") in error.found


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32")],
)
def test_other_encodings_are_named(encoding: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(LINE.encode(encoding))

    error = refusal(load_prompts, path)

    assert error.found.startswith(f"{name},")
    assert f"iconv -f {name} -t UTF-8" in error.hint


@pytest.mark.parametrize("text", ["ab", "a\u00e9", "日本語", "x" * 3000])
def test_utf8_is_taken_for_what_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")

    assert load_passages(str(path))[0].text == text


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "upright bars")])
def test_other_separators_are_said(separator: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [["prompt", "subject", "answer"], ["the red fox met, then", "red", " a"]]
    path.write_text("".join(separator.join(row) + "\n" for row in rows))

    error = refusal(load_prompts, path)

    assert name in error.problem
    assert error.expected == "prompt,subject,answer"


SUBJECT = {"subject": "Danielle Darrieux"}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "The mother tongue of {} is", **SUBJECT, "target_true": "French", "target_new": "English"},
        {"prompt": "The mother tongue of {} is", **SUBJECT, "target_true": {"str": "French", "id": "Q150"}},
        {"prompt": "The mother tongue of Danielle Darrieux is", **SUBJECT, "target_true": " French"},
        {"src": "The mother tongue of Danielle Darrieux is", **SUBJECT, "answers": ["French"], "alt": "x"},
    ],
)
def test_layouts_of_counterfact_and_zsre_are_read(record: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record))

    (prompt,) = load_prompts(str(path))

    assert prompt.text == "The mother tongue of Danielle Darrieux is"
    assert prompt.text[slice(*prompt.subject)] == "Danielle Darrieux"
    assert prompt.answer == " French"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"sentence_good": "Who is it?", "sentence_bad": "Who it is?"}, ["BLiMP", "--passages"]),
        ({"masked_sentences": ["a [MASK]"], "obj_label": "b", "sub_label": "c"}, ["LAMA"]),
        ({"clean": "a b", "corrupted": "a c", "answer": "d"}, ["corrupted", "partner"]),
        ({"text": "a b c d"}, ["passage"]),
        ({"src": "Who is it?", "subject": "it", "answers": []}, ["answers"]),
        ({"prompt": "a {} b", "subject": "c", "target_true": 5}, ["target_true"]),
    ],
)
def test_other_layouts_are_said(record: dict[str, object], words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record))

    error = refusal(load_prompts, path)

    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("field", ["text", "story", "sentence", "sentence_good", "content", "document"])
def test_passages_are_read_from_the_field_that_holds_them(field: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({field: "A fox ran.", "UID": "islands"}))

    (passage,) = load_passages(str(path))

    assert (passage.text, passage.labels) == ("A fox ran.", {"UID": "islands"})
