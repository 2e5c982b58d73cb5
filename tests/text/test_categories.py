"""What kind of token is this? Judged on tokenizers that differ in blanks, bytes and pieces."""

import json
import pathlib
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from layerscope import LayerscopeError
from layerscope.text.categories import (
    BOS,
    CATEGORIES,
    COMMON_WORDS,
    PIECES,
    TokenCategory,
    category_names,
    label_tokens,
    last_of,
    load_categories,
    occurrences,
    words_of,
)
from layerscope.text.tokens import Tokens, encode


def tokens_of(*pieces: str, bos: bool = False) -> tuple[Tokens, str]:
    """Tokens whose texts are these pieces of a text, whatever any tokenizer would do."""
    spans, at = [], 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    texts = ["<bos>", *pieces] if bos else list(pieces)
    spans = [(0, 0), *spans] if bos else spans
    return Tokens(ids=tuple(range(len(texts))), texts=tuple(texts), spans=tuple(spans), bos=bos), "".join(
        pieces
    )


def test_the_list_of_common_words_is_the_posts() -> None:
    assert len(COMMON_WORDS) == len(set(COMMON_WORDS)) == 23
    assert {"and", "which", "their", "i", "at"} <= set(COMMON_WORDS)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("\n", "newline"),
        ("\n\n", "newline"),
        (".", "full stop"),
        (" .", "full stop"),
        ("...", "other"),
        (",", "comma"),
        (" the", "common word"),
        ("The", "common word"),
        (" I", "common word"),
        (" fox", "alphabetic"),
        ("Größe", "alphabetic"),
        ("नमस्ते", "alphabetic"),
        ("n't", "other"),
        (" 1961", "other"),
        ("a1", "other"),
        (";", "other"),
        (" ", "other"),
        ("�", "other"),
    ],
)
def test_a_token_falls_into_the_first_category_that_fits(text: str, category: str) -> None:
    assert label_tokens(*tokens_of(text)).category == (category,)


def test_bos_is_a_category_of_its_own_and_no_rule_can_take_its_name() -> None:
    labels = label_tokens(*tokens_of("the", " end", bos=True))

    assert labels.category == (BOS, "common word", "alphabetic")
    assert labels.piece[0] == "no word"
    with pytest.raises(ValueError, match="no rule fits"):
        TokenCategory(name=BOS, words=("x",))


def test_every_token_has_one_of_the_named_categories(small: PreTrainedTokenizerFast) -> None:
    text = 'He said: "no."\n\nThe naïve fox, aged 7½, ran.  日本 🙂\t'
    tokens = encode(small, text)

    labels = label_tokens(tokens, text)

    assert len(labels.category) == len(labels.piece) == len(tokens)
    assert set(labels.category) <= {BOS, *category_names()}
    assert set(labels.piece) <= set(PIECES)
    assert labels.category[-3:].count("newline") == 0
    assert "full stop" in labels.category
    assert "comma" in labels.category


def test_pieces_of_a_word_are_told_by_their_place() -> None:
    labels = label_tokens(*tokens_of("The", " un", "believ", "able", " fox", ",", " O", "'", "Neill"))

    assert labels.piece == (
        "whole word", "first piece", "middle piece", "last piece", "whole word", "no word",
        "first piece", "middle piece", "last piece",
    )  # fmt: skip


def test_a_token_with_letters_of_two_words_is_no_piece_of_either() -> None:
    labels = label_tokens(*tokens_of("of the", " to", "wn"))

    assert labels.piece == ("no word", "first piece", "last piece")


def test_byte_pieces_of_one_character_are_pieces_of_its_word() -> None:
    tokens = Tokens(ids=(1, 2, 3), texts=("�", "�", "l"), spans=((0, 1), (0, 1), (1, 2)), bos=False)

    assert label_tokens(tokens, "öl").piece == ("first piece", "middle piece", "last piece")


def test_all_pieces_of_a_word_join_to_the_word(small: PreTrainedTokenizerFast) -> None:
    text = "Elon Musk was born in South Africa, and the encyclopedia's naïve fox was not."
    tokens = encode(small, text)

    pieces = label_tokens(tokens, text).piece

    assert pieces.count("first piece") == pieces.count("last piece") > 0
    starts = [at for at, piece in enumerate(pieces) if piece in ("first piece", "whole word")]
    assert len(starts) == len(list(words_of(text)))


def test_a_pronoun_is_a_whole_word() -> None:
    labels = label_tokens(*tokens_of("He", " sh", "it", " it"))

    assert labels.pronoun == (True, False, False, True)
    assert labels.category[2] == "common word"  # the post's rule looks at the token alone


def test_the_last_token_of_a_known_name_is_entity_final() -> None:
    tokens, text = tokens_of("The", " Ei", "ffel", " Tower", " and", " Eiffel", "ish", " Ei", "ffel")

    labels = label_tokens(tokens, text, entities=["Eiffel", "Eiffel Tower"])

    assert [at for at, final in enumerate(labels.entity_final) if final] == [3, 8]


def test_a_name_that_is_cut_off_with_the_text_has_no_last_token() -> None:
    tokens, _ = tokens_of("The", " Ei", "ffel")
    text = "The Eiffel Tower"

    assert last_of(tokens, list(occurrences(text, ["Eiffel Tower"]))) == []
    assert last_of(tokens, list(occurrences(text, ["Eiffel"]))) == [2]


def test_categories_are_data() -> None:
    mine = (TokenCategory(name="digit", pattern=r"\s*\d+"), *CATEGORIES)

    labels = label_tokens(*tokens_of(" 12", " the"), categories=mine)

    assert labels.category == ("digit", "common word")
    assert category_names(mine)[0] == "digit"


def test_a_file_of_categories_is_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"name": "greeting", "words": ["Hello"]}]))

    assert label_tokens(*tokens_of(" hello", " you"), categories=load_categories(file)).category == (
        "greeting",
        "other",
    )


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "none"}],
        [{"name": "bad", "pattern": "("}],
        [],
        {"name": "x"},
        [3],
        [{"name": "x", "wrds": ["y"]}],
    ],
)
def test_a_file_that_holds_no_categories_is_refused_by_name(tmp_path: pathlib.Path, entries: Any) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(entries))

    with pytest.raises(LayerscopeError, match="token categories cannot be read"):
        load_categories(file)


def test_a_missing_or_binary_file_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\x00\x80")
    for name in ("absent.json", "binary.json"):
        with pytest.raises(LayerscopeError, match="token categories cannot be read"):
            load_categories(tmp_path / name)
