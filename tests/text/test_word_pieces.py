"""Tokens cut in two: by merges, and by the vocabulary where there are none."""

import zoo
from layerscope.planted._writing import pieces_tokenizer
from layerscope.text.word_pieces import token_cutter


def test_halves_read_as_the_token_and_are_its_last_merge() -> None:
    tokenizer = zoo.tokenizer()
    cut = token_cutter(tokenizer)
    merged = [token for token in range(len(tokenizer)) if cut(token) is not None]

    assert len(merged) > 30
    for token in merged:
        assert tokenizer.decode(list(cut(token))) == tokenizer.decode([token])
    town = tokenizer.encode(" town")
    assert len(town) == 1
    assert tokenizer.convert_ids_to_tokens(list(cut(town[0]))) in (
        ["Ġto", "wn"],
        ["Ġt", "own"],
        ["Ġtow", "n"],
    )


def test_single_characters_and_special_tokens_have_no_halves() -> None:
    tokenizer = zoo.tokenizer()
    cut = token_cutter(tokenizer)

    assert cut(tokenizer.bos_token_id) is None
    assert cut(tokenizer.convert_tokens_to_ids("a")) is None


def test_without_merges_the_vocabulary_is_searched_for_halves_of_equal_length() -> None:
    tokenizer = pieces_tokenizer(["ba", "b", "bara"], ["ra", "ara"])
    cut = token_cutter(tokenizer)

    halves = cut(tokenizer.convert_tokens_to_ids("bara"))

    assert tokenizer.convert_ids_to_tokens(list(halves)) == ["ba", "##ra"]
    assert cut(tokenizer.convert_tokens_to_ids("b")) is None
