import csv
import json
import os

import pytest

from layerscope.errors import LayerscopeError
from layerscope.text.prompts import load_prompts

EIFFEL = {"prompt": "The Eiffel Tower is in", "subject": "Eiffel", "answer": " Paris"}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def refusal(source):
    with pytest.raises(LayerscopeError) as caught:
        load_prompts(source)
    return str(caught.value)


def test_a_missing_file_is_refused_with_near_names(write, tmp_path):
    write(lines(EIFFEL))

    message = refusal(tmp_path / "fact.jsonl")

    assert "no such file" in message
    assert "facts.jsonl" in message


def test_a_missing_folder_is_named(tmp_path):
    assert "nor the folder" in refusal(str(tmp_path / "nowhere" / "facts.jsonl"))


@pytest.mark.parametrize("name", ["facts.jsonl", "some facts.csv", "no/such/set", "nosuchset", "*.jsonl"])
def test_a_text_that_looks_like_a_path_is_refused_as_one(name):
    assert "no such file of prompts" in refusal(name)


@pytest.mark.parametrize("text", ["no stars at all here", "", " ", "x " * 5000, "nul \0 here"])
def test_a_text_without_stars_is_refused(text):
    assert "neither a file nor a starred prompt" in refusal(text)


def test_a_folder_is_refused(tmp_path):
    assert "this is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "name"), [("", "a.jsonl"), (" \n", "a.json"), ("[]", "a.json"), ("", "a.csv")]
)
def test_an_empty_file_is_refused(write, content, name):
    assert "the file is empty" in refusal(write(content, name))


def test_a_csv_of_a_header_alone_is_empty(write):
    assert "the file is empty" in refusal(write("prompt,answer\n", "a.csv"))


def test_no_prompts_are_refused():
    assert "there are no prompts" in refusal([])


def test_a_broken_line_is_named_with_what_the_parser_said(write):
    message = refusal(write(lines(EIFFEL) + '{"prompt": oops}\n'))

    assert "facts.jsonl, line 2" in message
    assert "Expecting value" in message


def test_json_too_deep_for_the_parser_is_broken(write):
    assert "broken JSON" in refusal(write("[" * 200_000, "a.json"))


def test_a_broken_json_file_names_the_line(write):
    assert "line 2" in refusal(write('[\n{"a" 1}]', "a.json"))


@pytest.mark.parametrize("value", ["1", '"text"', "null", "[1]"])
def test_a_line_that_is_no_object_is_refused(write, value):
    assert "not an object" in refusal(write(lines(EIFFEL) + value))


def test_a_json_file_that_is_no_list_is_refused(write):
    assert "does not hold a list" in refusal(write('{"prompt": "x"}', "a.json"))


@pytest.mark.parametrize("field", ["prompt", "answer"])
def test_a_missing_field_is_refused_with_the_nearest_name(write, field):
    record = {("x" + key if key == field else key): value for key, value in EIFFEL.items()}

    message = refusal(write(lines(record)))

    assert f'the field "{field}" is missing' in message
    assert f"rename 'x{field}'" in message


def test_a_prompt_without_subject_or_stars_is_refused():
    assert "what is corrupted" in refusal({"prompt": "The Eiffel Tower"})


def test_an_absent_subject_is_refused(write):
    assert "does not occur" in refusal(write(lines(EIFFEL | {"subject": "eiffel"})))


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", ""), ("prompt", " \n"), ("subject", ""), ("subject", " ")]
)
def test_empty_texts_are_refused(write, field, value):
    message = refusal(write(lines(EIFFEL | {field: value})))

    assert f'"{field}" is empty' in message
    assert "line 1" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 3),
        ("subject", ["Eiffel"]),
        ("answer", None),
        ("id", 1.5),
        ("category", True),
        ("pair", {}),
        ("subject_start", "four"),
        ("subject_start", -1),
        ("subject_start", True),
    ],
)
def test_wrong_types_are_refused_by_field(write, field, value):
    message = refusal(write(lines(EIFFEL | {field: value})))

    assert f'the field "{field}" is of a wrong type' in message
    assert "line 1" in message


def test_a_subject_start_elsewhere_is_refused(write):
    assert "first occurs at character 4" in refusal(write(lines(EIFFEL | {"subject_start": 5})))


@pytest.mark.parametrize("field", ["prompt", "subject", "answer", "id", "category", "pair"])
@pytest.mark.parametrize("character", ["\ud800", "\0"])
def test_characters_that_cannot_be_encoded_are_refused_by_field(write, field, character):
    message = refusal(write(lines(EIFFEL | {field: f"Eiffel{character}"})))

    assert f'"{field}" holds a character' in message
    assert f"U+{ord(character):04X}" in message
    message.encode("utf-8")  # can be printed


def test_files_that_are_not_utf8_are_refused_with_the_line(write):
    message = refusal(write(lines(EIFFEL).encode() + b'{"prompt": "caf\xe9"}'))

    assert "not UTF-8" in message
    assert "line 2" in message


def test_an_unknown_ending_is_refused(write):
    assert "files with this ending" in refusal(write("x", "facts.tsv"))


def test_twin_ids_are_refused(write):
    assert "the same id" in refusal(write(lines(EIFFEL | {"id": "a"}, EIFFEL | {"id": "a"})))


def test_a_ragged_row_is_refused_with_its_line(write):
    message = refusal(write('prompt,subject,answer\n"a\nb",a, c\nx,y\n', "a.csv"))

    assert "line 4" in message
    assert "2 cells" in message


def test_an_unclosed_quote_is_refused_with_its_line(write):
    assert "line 2" in refusal(write('prompt,subject,answer\n"a,b,c\nd,e,f\n', "a.csv"))


def test_twin_columns_are_refused(write):
    assert "same name" in refusal(write("prompt,prompt\na,b\n", "a.csv"))


def test_a_cell_may_be_longer_than_the_csv_modules_limit(write):
    before = csv.field_size_limit()

    (prompt,) = load_prompts(write(f"prompt,subject,answer\n{'x ' * 70_000},x,y\n", "a.csv"))

    assert len(prompt.text) == 140_000
    assert csv.field_size_limit() == before


def test_a_template_without_a_place_is_refused(write):
    rewrite = {"prompt": "The tongue is", "subject": "S", "target_true": {"str": "x"}}

    assert "no place" in refusal(write(json.dumps([{"requested_rewrite": rewrite}]), "a.json"))


@pytest.mark.parametrize("source", [3, None, [3], [["a"]]])
def test_other_python_values_are_refused(source):
    assert "cannot be read as a prompt" in refusal(source)


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all"
)
def test_an_unreadable_file_is_refused(write):
    path = write(lines(EIFFEL))
    path.chmod(0)

    assert "cannot be read" in refusal(path)
