"""Passages from standard input and from datasets of the hub."""

import io
import json
import sys
import types

import pytest

from layerscope.errors import LayerscopeError
from layerscope.text import passage_streams
from layerscope.text.passages import load_passages


@pytest.fixture
def typed(monkeypatch):
    def give(data):
        passage_streams._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))

    yield give
    passage_streams._standard_input.cache_clear()


def refusal(source):
    with pytest.raises(LayerscopeError) as caught:
        load_passages(source)
    return str(caught.value)


def test_standard_input_is_one_passage_and_is_read_once(typed):
    typed(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")

    (passage,) = load_passages("-")

    assert (passage.name, passage.text) == ("stdin-001", "One.\nTwo.\n")
    assert load_passages("-") == (passage,)


def test_standard_input_may_hold_an_object_on_each_line(typed):
    typed(b'{"id": "a", "text": "One."}\n\n{"text": "Two.", "genre": "novel"}\n')

    first, second = load_passages("-")

    assert (first.name, first.text) == ("a", "One.")
    assert (second.name, second.genre) == ("stdin-002", "novel")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "standard input is empty"),
        (b" \n", "standard input is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
        (b"a\x00b", "is not text"),
        (b'{"text": "One."}\n{"txt": "Two."}', "standard input, line 2"),
    ],
)
def test_what_is_no_text_is_refused(typed, data, problem):
    typed(data)

    assert problem in refusal("-")


def test_binary_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"plain, then a zero byte \x00 and more")

    assert "is not text" in refusal(tmp_path / "a.txt")


@pytest.mark.parametrize("source", ["hub:", "hub:two words", "hub:a@b c"])
def test_names_that_are_none_are_refused(source):
    assert "no name of a dataset" in refusal(source)


def test_without_the_package_its_name_is_told():
    try:
        import datasets  # noqa: F401
    except ImportError:
        assert "layerscope[datasets]" in refusal("hub:owner/name")
    else:
        pytest.skip("the package datasets is installed")


def test_a_dataset_is_read_row_by_row(tmp_path):
    pytest.importorskip("datasets")
    rows = [{"text": "One.", "more": 1}, {"text": " ", "more": 2}, {"text": "Three.", "more": 3}]
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))

    assert [(p.name, p.text) for p in load_passages(f"hub:{folder}")] == [
        ("small-001", "One."),
        ("small-002", "Three."),
    ]
    assert "dev" in refusal(f"hub:{folder}:dev")


def test_columns_of_a_dataset_are_labels_as_those_of_a_file_are(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {
            "id": 7,
            "text": "One.",
            "genre": "fable",
            "language": "en",
            "register": 1,
            "score": 0.5,
            "tags": ["a"],
        },
        {
            "id": 7,
            "text": "Zwei.",
            "genre": "fable",
            "language": "de",
            "register": -1,
            "score": 0.1,
            "tags": [],
        },
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k != "id"}) for row in rows))
    kinds = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "text": datasets.Value("string"),
            "genre": datasets.Value("string"),
            "language": datasets.Value("string"),
            "register": datasets.ClassLabel(names=["plain", "solemn"]),
            "score": datasets.Value("float64"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    folder = tmp_path / "small"
    folder.mkdir()
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(folder / "train.parquet")

    from_hub, from_file = load_passages(f"hub:{folder}"), load_passages(file)

    assert [p.name for p in from_hub] == ["small-001", "small-002"]  # two rows have the same id
    assert [p.genre for p in from_hub] == ["fable", "fable"]
    assert [dict(p.labels) for p in from_hub] == [
        {"language": "en", "register": "solemn"},
        {"language": "de"},
    ]
    assert [dict(p.labels) for p in from_file] == [
        {"language": "en", "register": "1"},
        {"language": "de", "register": "-1"},
    ]


def test_a_genre_of_a_dataset_that_is_a_list_is_no_genre(tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"text": "One.", "genre": ["a", "b"], "year": 1999}))

    (passage,) = load_passages(f"hub:{folder}")

    assert passage.genre == "uncategorised"
    assert dict(passage.labels) == {"year": "1999"}
