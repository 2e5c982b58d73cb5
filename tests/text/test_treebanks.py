"""Treebanks: what is read from CoNLL-U, what is refused with its line, and which tokens words have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treebanks as made
import zoo
from layerscope.errors import LayerscopeError
from layerscope.text.tokenised_words import tokenise_sentence, tokenise_word
from layerscope.text.treebanks import Sentence, load_treebank, treebank_sets
from layerscope.text.word_lists import load_words

EWT = Path(__file__).parents[3] / "shared" / "data" / "treebanks" / "ewt"


def _line(number: str, form: str, *, head: str = "0", misc: str = "_", upos: str = "X") -> str:
    return "\t".join((number, form, form, upos, "_", "_", head, "dep", "_", misc))


def test_contractions_empty_nodes_and_missing_blanks() -> None:
    text = "\n".join(
        [
            "# newdoc id = letters-1",
            "# sent_id = one",
            "# text = I don't  say, du pain",
            _line("1", "I"),
            _line("2-3", "don't", head="_"),
            _line("2", "do"),
            _line("3", "n't"),
            "3.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_",
            _line("4", "say", misc="SpaceAfter=No"),
            _line("5", ","),
            _line("6-7", "du", head="_"),
            _line("6", "de"),
            _line("7", "le"),
            _line("8", "pain"),
            "",
        ]
    )

    (sentence,) = load_treebank(text)

    assert sentence.forms == ("I", "do", "n't", "say", ",", "", "", "pain")
    assert (sentence.name, sentence.document, sentence.genre) == ("one", "letters-1", "letters")
    tokens = tokenise_sentence(zoo.tokenizer(), sentence)
    assert [why for why in tokens.left_out if why] == ["unwritten", "unwritten"]


def test_a_text_is_put_together_where_none_is_stated() -> None:
    text = "\n".join([_line("1", "Hello", misc="SpaceAfter=No"), _line("2", "."), _line("3", "So", head="1")])

    (sentence,) = load_treebank(text + "\n\n")

    assert sentence.text == "Hello. So"
    assert sentence.forms == ("Hello", ".", "So")


def test_a_stated_genre_counts_before_the_document_s_name() -> None:
    text = (
        f"# newdoc id = a-1\n# meta::genre = poem\n{_line('1', 'O')}\n\n# sent_id = s2\n{_line('1', 'O')}\n"
    )

    sentences = load_treebank(text)

    assert [s.genre for s in sentences] == ["poem", "poem"]
    assert sentences[0].document == sentences[1].document == "a-1"


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ([_line("1", "a"), "2\tb"], "line 2", "2 columns"),
        ([_line("1", "a"), _line("3", "b")], "line 2", "word 3"),
        ([_line("x", "a")], "line 1", "the id 'x'"),
        ([_line("1", "a", head="5")], "line 1", "the head 5"),
        ([_line("1", "a", head="-1")], "line 1", "the head"),
        (["# text = b", _line("1", "a")], "line 2", "goes on with"),
        ([_line("1-4", "ab", head="_"), _line("1", "a")], "line 2", "contraction"),
        (["# sent_id = x\t"], "line 1", "no sentence"),
        ([_line("1", "")], "line 1", "without a form"),
    ],
)
def test_what_is_broken_is_refused_with_its_line(lines: list[str], where: str, what: str) -> None:
    with pytest.raises(LayerscopeError) as refused:
        load_treebank("\n".join(lines))

    assert where in str(refused.value)
    assert what in str(refused.value)


def test_two_sentences_of_one_name_are_refused() -> None:
    text = f"# sent_id = a\n{_line('1', 'x')}\n\n# sent_id = a\n{_line('1', 'y')}\n"
    with pytest.raises(LayerscopeError, match="same id"):
        load_treebank(text)


def test_a_folder_has_parts_by_the_names_of_its_files(tmp_path: Path) -> None:
    for part in ("train", "test", "dev"):
        (tmp_path / f"xx_yy-ud-{part}.conllu").write_text(f"# sent_id = {part}1\n{_line('1', 'a')}\n")

    found = load_treebank(tmp_path)

    assert [(s.split, s.name) for s in found] == [("train", "train1"), ("dev", "dev1"), ("test", "test1")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayerscopeError, match="no treebank in this folder"):
        load_treebank(tmp_path / "empty")


def test_files_that_are_not_there_or_not_treebanks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.conllu").write_text(" \n")
    (tmp_path / "prose.conllu").write_text("It was a dark night.\n")
    for source, words in (
        (tmp_path / "none.conllu", "no such file"),
        (tmp_path / "notes.txt", "ending"),
        (tmp_path / "empty.conllu", "empty"),
        (tmp_path / "prose.conllu", "line 1"),
        ([1, 2], "entry 1"),
        (7, "the source"),
    ):
        with pytest.raises(LayerscopeError, match=words):
            load_treebank(source)


def test_the_bundled_treebank_is_read_whole() -> None:
    assert "world" in treebank_sets()
    sentences = load_treebank("world")

    assert {s.split for s in sentences} == {"train", "dev", "test"}
    assert all(form for s in sentences for form in s.forms)


@pytest.mark.skipif(not EWT.is_dir(), reason="no ../shared/data/treebanks here")
def test_english_ewt_is_read_whole() -> None:
    sentences = load_treebank(EWT)

    assert len(sentences) == 12_544 + 2_001 + 2_077
    assert {s.genre for s in sentences} == {"answers", "email", "newsgroup", "reviews", "weblog"}
    assert all(form for s in sentences for form in s.forms)


def test_words_have_the_tokens_that_share_a_character_with_them() -> None:
    (sentence,) = load_treebank(
        "\n".join([_line("1", "redder"), _line("2", "bird", misc="SpaceAfter=No"), _line("3", "!")])
    )

    found = tokenise_sentence(zoo.tokenizer(), sentence)

    assert found.tokens.bos
    for (start, end), first, last in zip(sentence.spans, found.first, found.last, strict=True):
        assert found.tokens.spans[first][0] <= start < found.tokens.spans[first][1]
        assert found.tokens.spans[last][1] == end
    short = tokenise_sentence(zoo.tokenizer(), sentence, longest=3)
    assert short.left_out[-1] == "cut"
    assert len(short.tokens) == 3


def test_words_that_share_a_token_are_both_left_out() -> None:
    tokenizer = zoo.tokenizer()
    shared = next(t for t in ("the", "red", "dog", "town") if len(tokenizer.encode(f" {t}")) == 1)
    halves = (_line("1", "x"), _line("2", shared[:1], misc="SpaceAfter=No"), _line("3", shared[1:]))
    (sentence,) = load_treebank("\n".join(halves))

    found = tokenise_sentence(tokenizer, sentence)

    assert found.left_out == ("", "shared", "shared")
    assert found.first[1:] == (-1, -1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(alphabet="aé日 🙂.n't", min_size=1), st.booleans()), min_size=1, max_size=8)
)
def test_any_words_come_back_from_their_text(words: list[tuple[str, bool]]) -> None:
    forms = [(form.strip() or ".", spaced) for form, spaced in words]
    text = "\n".join(
        _line(str(i), form, misc="_" if spaced else "SpaceAfter=No")
        for i, (form, spaced) in enumerate(forms, 1)
    )

    (sentence,) = load_treebank(text)

    assert list(sentence.forms) == [form for form, _ in forms]
    found = tokenise_sentence(zoo.tokenizer(), sentence)
    for why, first, last in zip(found.left_out, found.first, found.last, strict=True):
        assert (first >= 0) == (not why)
        assert first <= last


def test_the_small_treebank_of_the_tests_is_one() -> None:
    sentences = load_treebank(made.small(documents=4))

    assert len({s.document for s in sentences}) == 4
    assert all(isinstance(s, Sentence) and s.text for s in sentences)


# -- words ----------------------------------------------------------------------------------------------


def test_words_are_read_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a\r\nnaïve\n日本\n".encode())

    assert load_words(tmp_path / "list.txt") == ("a", "naïve", "日本")
    assert load_words(["x", "y"]) == ("x", "y")
    assert len(load_words("world")) > 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\n\nb\n", "line 2"),
        ("a\nb c\n", "line 2"),
        ("a\nb\na\n", "also line 1"),
        ("\n \n", "empty"),
    ],
)
def test_lists_that_are_not_one_word_a_line_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "list.txt").write_text(content)

    with pytest.raises(LayerscopeError, match=words):
        load_words(tmp_path / "list.txt")


def test_other_things_are_no_list_of_words(tmp_path: Path) -> None:
    for source in (3, [3], tmp_path / "none.txt", []):
        with pytest.raises(LayerscopeError):
            load_words(source)


def test_a_listed_word_has_the_tokens_that_it_has_in_a_text() -> None:
    tokenizer = zoo.tokenizer()

    for word in ("red", "fox", "stonebird", "é日"):
        found = tokenise_word(tokenizer, word)
        inside = tokenizer(f"the {word} ran", add_special_tokens=False)["input_ids"]
        start = len(tokenizer("the", add_special_tokens=False)["input_ids"])
        assert tuple(inside[start : start + len(found.ids)]) == found.ids
        assert tokenizer.decode(found.ids) == f" {word}"
        assert tokenizer.decode(found.alone) == word
