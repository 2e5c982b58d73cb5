import json

import pytest

from layerscope.errors import LayerscopeError
from layerscope.text.passages import Passage, load_passages


def refusal(source):
    with pytest.raises(LayerscopeError) as caught:
        load_passages(source)
    return str(caught.value)


def test_jsonl_gives_name_genre_and_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "genre": "novel", "text": "One."}\n{"text": "Two."}\n')

    assert load_passages(path) == (
        Passage(name="x", genre="novel", text="One."),
        Passage(name="passage-002", genre="uncategorised", text="Two."),
    )


def test_json_lists_hold_texts_or_objects_with_text_or_story(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["One.", {"text": "Two."}, {"story": "Three."}]))

    assert [passage.text for passage in load_passages(str(path))] == ["One.", "Two.", "Three."]


def test_csv_needs_a_column_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(',title,text\n0,A,"One, two."\n')
    assert load_passages(path)[0].text == "One, two."

    path.write_text("title,txt\nA,One\n")
    assert "rename 'txt'" in refusal(path)


def test_a_txt_file_is_one_passage_with_plain_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")

    assert load_passages(path) == (Passage(name="book", text="One.\nTwo.\n"),)


def test_a_folder_is_read_file_by_file(tmp_path):
    (tmp_path / "b.txt").write_text("Two.")
    (tmp_path / "a.json").write_text('["One.", "More."]')
    (tmp_path / "notes.md").write_text("not read")

    assert [p.name for p in load_passages(tmp_path)] == ["a-001", "a-002", "b"]


def test_python_texts_mappings_and_passages_are_read():
    given = Passage(name="given", text="c")

    assert [p.text for p in load_passages(["a", {"text": "b"}, given])] == ["a", "b", "c"]


def test_a_bundled_set_is_found_by_name(monkeypatch, tmp_path):
    (tmp_path / "world.jsonl").write_text('{"text": "One."}')
    monkeypatch.setattr("layerscope.text.sources.bundled_folder", lambda kind: tmp_path)

    assert load_passages("world")[0].text == "One."


@pytest.mark.parametrize("content", ["", " \n\n"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv"])
def test_empty_files_are_refused(tmp_path, content, ending):
    path = tmp_path / f"a{ending}"
    path.write_text(content)

    assert "empty" in refusal(path)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ([], "no passages"),
        ([""], '"text" is empty in passage 1'),
        (["a", 3], "passage 2 cannot be read"),
        (3, "the source cannot be read"),
        (["a\ud800"], '"text" holds a character'),
        ([{"text": "a", "id": "x"}, {"text": "b", "id": "x"}], "two passages have the same id"),
        ([{"txt": "a"}], "rename 'txt'"),
        ("some text of my own", "load_passages([text])"),
        ("nosuchset", "no such file of passages"),
    ],
)
def test_what_cannot_be_read_is_refused(source, problem):
    assert problem in refusal(source)


def test_a_folder_without_texts_is_refused(tmp_path):
    assert "no texts in this folder" in refusal(tmp_path)


def test_the_real_corpora_are_read(data):
    assert len(load_passages(data / "corpora" / "tinystories_1000.json")) == 1000
    assert len(load_passages(data / "corpora" / "wikipedia_val_500.csv")) == 500
    assert len(load_passages(data / "books")) == 7


def test_further_short_fields_are_kept_as_labels(tmp_path):
    path = tmp_path / "passages.jsonl"
    lines = [
        {"text": "One.", "language": "German ", "pages": 3, "draft": True, "note": "n" * 41, "lines": "a\nb"},
        {"text": "Two."},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))

    german, plain = load_passages(str(path))

    assert german.labels == {"language": "German", "pages": "3"}
    assert plain.labels == {}
    assert Passage.model_validate(german.model_dump(mode="json")) == german
    # What a run's texts are known by does not change for passages that have none.
    assert plain.model_dump(mode="json") == {"name": "passage-002", "genre": "uncategorised", "text": "Two."}


def test_columns_of_a_table_are_labels_too(tmp_path):
    path = tmp_path / "passages.csv"
    path.write_text(",text,register\n0,One.,letter\n1,Two.,\n")

    assert [passage.labels for passage in load_passages(str(path))] == [{"register": "letter"}, {}]


def test_a_label_that_no_file_can_hold_is_refused():
    with pytest.raises(LayerscopeError, match='"language" holds a character'):
        load_passages([{"text": "One.", "language": "a\0b"}])
