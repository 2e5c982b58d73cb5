import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, GPT2Tokenizer

from layerscope.errors import LayerscopeError
from layerscope.text.tokens import Tokens, bos_record, encode, tokenizer_digest

# Letters, blanks of several kinds, characters of two to four bytes, combining ones, and typed specials.
TEXTS = st.lists(
    st.sampled_from(
        ["The", " Eiffel", " ", "  ", "\n", "\t", "é", "e\u0301", "日本", "🙂", "½", "<s>", "|", "'s"]
    )
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=12,
).map("".join)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(tokens):
    return list(zip(tokens.texts, tokens.spans, strict=True))


def test_bos_is_put_in_front_with_no_characters(gpt2):
    assert table(encode(gpt2, "The Eiffel Tower")) == [
        ("<|endoftext|>", (0, 0)),
        ("The", (0, 3)),
        (" Eiffel", (3, 10)),
        (" Tower", (10, 16)),
    ]


def test_offsets_without_the_blank_are_brought_to_the_same_spans(gpt2, neox):
    text = "  The Eiffel  Tower \n is"

    assert table(encode(neox, text)) == table(encode(gpt2, text, bos="never"))


def test_the_blank_that_llama_puts_first_stands_for_no_character(llama):
    assert table(encode(llama, "½ a", bos="never")) == [
        (" ", (0, 0)),
        ("�", (0, 1)),
        ("�", (0, 1)),
        (" ", (1, 2)),
        ("a", (2, 3)),
    ]


def test_pieces_of_one_character_share_its_span(gpt2):
    assert table(encode(gpt2, "a🙂", bos="never")) == [("a", (0, 1))] + [("�", (1, 2))] * 4


def test_a_character_that_a_normaliser_spells_out_is_read_piece_by_piece(compatibility):
    tokens = encode(compatibility, "½ a")

    assert (tokens.texts[0], tokens.spans[0]) == ("1", (0, 1))
    assert "2" in tokens.texts
    assert "½" not in tokens.texts


@pytest.mark.parametrize("typed", ["<|endoftext|>", "<s>", "</s>", "<unk>"])
def test_special_tokens_that_are_typed_stay_plain_text(small, typed):
    tokens = encode(small, f"{typed}a{typed}", bos="never")

    assert not set(tokens.ids) & set(small.all_special_ids)
    assert "".join(tokens.texts).strip() == f"{typed}a{typed}"


@FEW
@given(text=TEXTS)
def test_ids_are_the_tokenizers_own_and_spans_lie_in_the_text(small, text):
    small.backend_tokenizer.encode_special_tokens = True
    own = small.backend_tokenizer.encode(text, add_special_tokens=False).ids

    tokens = encode(small, text)

    assert list(tokens.ids) == ([] if small.bos_token_id is None else [small.bos_token_id]) + own
    assert len(tokens.ids) == len(tokens.texts) == len(tokens.spans) == len(tokens)
    assert all(0 <= start <= end <= len(text) for start, end in tokens.spans)
    assert [end for _, end in tokens.spans] == sorted(end for _, end in tokens.spans)
    assert {at for span in tokens.spans for at in range(*span)} == set(range(len(text)))


@FEW
@given(text=TEXTS)
def test_a_token_that_shows_text_shows_the_text_of_its_span(small, text):
    for shown, (start, end) in table(encode(small, text, bos="never")):
        assert shown == text[start:end] or "\ufffd" in shown or shown == " "


def test_auto_does_what_a_tokenizer_that_adds_bos_does(llama):
    text = "The Eiffel Tower"

    assert list(encode(llama, text).ids) == llama(text)["input_ids"]
    assert list(encode(llama, text, bos="never").ids) == llama(text)["input_ids"][1:]


def test_auto_puts_nothing_first_where_the_tokenizer_does_not(silent):
    assert not encode(silent, "The", bos="auto").bos
    assert encode(silent, "The", bos="always").texts == ("<|endoftext|>", "The")


def test_any_token_can_be_named_to_stand_first(llama):
    assert encode(llama, "The", bos="</s>").texts[0] == "</s>"
    with pytest.raises(LayerscopeError, match="no such token") as refused:
        encode(llama, "The", bos="<|endoftext|>")
    assert "</s>" in str(refused.value)


def test_a_tokenizer_that_puts_two_tokens_first_is_refused_by_their_names(llama):
    inner = Tokenizer.from_str(llama.backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(
        "<s> </s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )

    with pytest.raises(LayerscopeError, match="several tokens") as refused:
        encode(type(llama)(tokenizer_object=inner, bos_token="<s>"), "The")
    assert "<s>, </s>" in str(refused.value)


def test_always_is_refused_and_auto_silent_where_there_is_no_bos(neox):
    assert not encode(neox, "The", bos="auto").bos
    with pytest.raises(LayerscopeError, match="no BOS"):
        encode(neox, "The", bos="always")


def test_an_unknown_policy_is_refused(gpt2):
    with pytest.raises(LayerscopeError, match="no such token"):
        bos_record(gpt2, "sometimes", "sometimes")


def test_a_doubled_bos_is_refused(gpt2):
    with pytest.raises(LayerscopeError, match="twice"):
        encode(gpt2, "The Eiffel", bos="The")
    assert encode(gpt2, "The Eiffel", bos="never").texts == ("The", " Eiffel")


def test_a_tokenizer_without_offsets_is_refused_by_name(python_only):
    with pytest.raises(LayerscopeError, match="ByT5Tokenizer"):
        encode(python_only, "The")


@pytest.mark.parametrize("text", ["a\ud800", "a\0"])
def test_text_that_cannot_be_encoded_is_refused(gpt2, text):
    with pytest.raises(LayerscopeError, match="cannot be encoded"):
        encode(gpt2, text)


def test_the_record_tells_what_stands_first_and_what_the_tokenizer_does_by_itself(silent, llama):
    assert bos_record(llama, "never", "never") == {
        "policy": "never",
        "prepended": False,
        "id": None,
        "text": None,
        "tokenizer_adds": {"before": [1], "after": []},
    }
    assert bos_record(silent, "auto", "<|endoftext|>") == {
        "policy": "auto",
        "prepended": True,
        "id": 0,
        "text": "<|endoftext|>",
        "tokenizer_adds": {"before": [], "after": []},
    }


def test_the_digest_is_stable_and_tells_tokenizers_apart(gpt2, neox, llama):
    digests = [tokenizer_digest(tokenizer) for tokenizer in (gpt2, neox, llama)]

    assert digests == [tokenizer_digest(tokenizer) for tokenizer in (gpt2, neox, llama)]
    assert len(set(digests)) == 3


def test_texts_share_what_they_have_in_common_also_when_read_back(gpt2):
    text = " ".join(f"the {number}th long word" for number in range(300))
    here, there = encode(gpt2, text), Tokens.model_validate_json(encode(gpt2, text).model_dump_json())
    for one, other in ((here.ids, there.ids), (here.texts, there.texts), (here.spans, there.spans)):
        assert len(one) > 1000
        assert all(left is right for left, right in zip(one, other, strict=True))


def test_a_text_longer_than_the_model_reads_is_encoded_without_a_warning(llama, caplog, capfd):
    short = type(llama)(tokenizer_object=llama.backend_tokenizer, model_max_length=2)

    encode(short, "The Eiffel Tower is in the city")

    assert "longer" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize(
    "folder", ["models/english-12l", "models/stories260K", "models/aidreams260K", "tokenizers/gpt_neox"]
)
def test_real_tokenizers_keep_typed_specials_plain_and_cover_the_text(data, folder):
    tokenizer = AutoTokenizer.from_pretrained(data / folder)
    text = " naïve <s> 🙂 <|endoftext|> 日本\n\n  The Eiffel </s>"

    tokens = encode(tokenizer, text)

    inner = tokens.ids[tokens.bos :]
    assert not set(inner) & {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    assert {at for span in tokens.spans for at in range(*span)} == set(range(len(text)))
    assert tokens.bos == (tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)


def test_the_real_gpt2_tokenizer_reads_as_expected(data):
    folder = data / "tokenizers" / "gpt2"
    tokenizer = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))

    tokens = encode(tokenizer, "The Eiffel Tower is in", bos="always")

    assert tokens.ids == (50256, 464, 412, 733, 417, 8765, 318, 287)
    assert tokens.texts[1:] == ("The", " E", "iff", "el", " Tower", " is", " in")


def test_the_real_gpt_neox_spans_take_their_blank_back(data):
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizers" / "gpt_neox")

    assert table(encode(tokenizer, "The Eiffel  x")) == [
        ("The", (0, 3)),
        (" E", (3, 5)),
        ("iff", (5, 8)),
        ("el", (8, 10)),
        ("  ", (10, 12)),
        ("x", (12, 13)),
    ]
