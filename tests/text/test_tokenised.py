import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from layerscope.errors import LayerscopeError
from layerscope.text.passages import Passage
from layerscope.text.prompts import Prompt, load_prompts
from layerscope.text.tokenised import TokenisedPrompt, overlapping, tokenise_passage, tokenise_prompt
from layerscope.text.tokens import Tokens

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def prompt(starred, answer=""):
    (one,) = load_prompts([{"prompt": starred, "answer": answer}])
    return one


def noised_texts(tokenised):
    return [tokenised.tokens.texts[position] for position in tokenised.noised]


def test_the_noised_tokens_are_those_that_overlap_the_subject(gpt2):
    tokenised = tokenise_prompt(gpt2, prompt("The *Eiffel Tower* is in", " Paris"))

    assert tokenised.noised == (2, 3)  # BOS, The, Eiffel, Tower, is, in
    assert (tokenised.n_tokens, tokenised.last) == (6, 5)
    assert tokenise_prompt(gpt2, tokenised.prompt, bos="never").noised == (1, 2)


def test_a_token_is_found_by_its_place_and_not_by_its_text(gpt2):
    # " is" stands at both positions; only the second is noised.
    tokenised = tokenise_prompt(gpt2, prompt("The is Tower *is* in"), bos="never")

    assert tokenised.tokens.texts == ("The", " is", " Tower", " is", " in")
    assert tokenised.noised == (3,)


def test_pieces_of_one_character_are_noised_together(small):
    tokenised = tokenise_prompt(small, prompt("Paris *🙂* is"))

    assert noised_texts(tokenised)[-4:] == ["�"] * 4
    assert 4 <= len(tokenised.noised) <= 5  # a blank may be part of the first


def test_the_blank_that_a_tokenizer_adds_itself_is_never_noised(llama):
    assert noised_texts(tokenise_prompt(llama, prompt("*½* is"))) == ["�", "�"]


def test_neither_neighbours_nor_tokens_without_characters_overlap_a_span():
    spans = ((0, 0), (0, 3), (3, 5), (4, 4), (5, 7), (7, 9))
    tokens = Tokens(ids=(0,) * 6, texts=("x",) * 6, spans=spans, bos=True)

    assert overlapping(tokens, (3, 7)) == (2, 4)


def test_all_tokenizers_noise_the_same_characters(small):
    tokenised = tokenise_prompt(small, prompt("The *Eiffel* Tower is in"))

    assert noised_texts(tokenised) == [" Eiffel"]


def test_the_answer_is_what_follows_when_written_together(small):
    tokenised = tokenise_prompt(small, prompt("The *Eiffel* Tower is in the city of", " Paris"))

    together = small("The Eiffel Tower is in the city of Paris", add_special_tokens=False)["input_ids"]
    assert tokenised.answer_ids == tuple(together[-1:])
    assert tokenised.answer_texts == (" Paris",)
    assert not tokenised.note
    assert not tokenised.own


def test_without_an_answer_the_models_own_is_traced(gpt2):
    tokenised = tokenise_prompt(gpt2, prompt("The *Eiffel* Tower"))

    assert tokenised.own
    assert tokenised.answer_ids == ()


def test_an_answer_that_merges_with_the_prompt_is_encoded_by_itself(small):
    # Together " " and "Paris" are one token, so the prompt's ids are no prefix.
    tokenised = tokenise_prompt(small, prompt("The *Eiffel* Tower is in the city of ", "Paris"))

    assert "".join(tokenised.answer_texts) == "Paris"
    assert "encoded by itself" in tokenised.note


def test_an_answer_without_tokens_is_refused(data):
    characters = AutoTokenizer.from_pretrained(data / "models" / "babyllama-tok105")

    with pytest.raises(LayerscopeError, match="cannot be told apart"):
        tokenise_prompt(characters, prompt("The *cat* sat", " "))


def test_a_prompt_without_tokens_is_refused(data):
    characters = AutoTokenizer.from_pretrained(data / "models" / "babyllama-tok105")

    with pytest.raises(LayerscopeError, match="gives no tokens"):
        tokenise_passage(characters, Passage(name="blank", text=" "))


@FEW
@given(
    before=st.text(alphabet="ab é🙂T", max_size=6),
    subject=st.text(alphabet="ab é🙂T", min_size=1, max_size=6).filter(str.strip),
    after=st.text(alphabet="ab é🙂T", max_size=6),
)
def test_the_noised_tokens_cover_the_subject_and_no_other_token_touches_it(small, before, subject, after):
    span = (len(before), len(before) + len(subject))
    tokenised = tokenise_prompt(
        small, Prompt(name="x", text=before + subject + after, subject=span, answer="")
    )

    characters = {p: set(range(*span)) for p, span in enumerate(tokenised.tokens.spans)}
    assert all(characters[position] & set(range(*span)) for position in tokenised.noised)
    noised = set().union(*(characters[position] for position in tokenised.noised))
    others = set().union(*(characters[p] for p in characters if p not in tokenised.noised))
    assert set(range(*span)) <= noised
    assert not set(range(*span)) & others


def test_a_tokenised_prompt_survives_json(small):
    tokenised = tokenise_prompt(small, prompt("The *Eiffel* 🙂 is", " Paris"))

    assert TokenisedPrompt.model_validate_json(tokenised.model_dump_json()) == tokenised


# chats


def test_a_chat_shifts_the_subject_and_keeps_one_bos(chatty):
    tokenised = tokenise_prompt(chatty, prompt("The *Eiffel* Tower is in", " Paris"), chat=True)

    assert tokenised.text == "<s>user: The Eiffel Tower is in</s>\nmodel:\n"
    assert tokenised.text[slice(*tokenised.subject)] == "Eiffel"
    assert noised_texts(tokenised) == [" Eiffel"]
    assert tokenised.tokens.ids.count(1) == 1
    assert tokenised.tokens.spans[0] == (0, 0)
    assert 2 in tokenised.tokens.ids  # </s> is the template's, and special
    assert "".join(tokenised.answer_texts) == "Paris"
    assert "leading blank was dropped" in tokenised.note


def test_a_chat_without_bos_loses_the_templates_own(chatty):
    assert 1 not in tokenise_prompt(chatty, prompt("The *Eiffel*"), bos="never", chat=True).tokens.ids


@pytest.mark.parametrize(
    ("starred", "problem"),
    [
        ("The *Eiffel* ", "cannot be found in the chat"),  # the template cuts blanks
        ("*u*", "cannot be found in the chat"),  # twice: in "user" too
        ("The *Eiffel* </s>", "holds a special token"),
    ],
)
def test_what_a_chat_would_change_is_refused(chatty, starred, problem):
    with pytest.raises(LayerscopeError, match=problem):
        tokenise_prompt(chatty, prompt(starred), chat=True)


def test_a_tokenizer_without_template_is_refused(gpt2):
    with pytest.raises(LayerscopeError, match="no chat template"):
        tokenise_prompt(gpt2, prompt("The *Eiffel*"), chat=True)


# passages


@pytest.mark.parametrize(
    ("bos", "texts"), [("auto", ("<|endoftext|>", "The")), ("never", ("The", " Eiffel"))]
)
def test_a_passage_is_cut_to_its_first_tokens_bos_included(gpt2, bos, texts):
    tokenised = tokenise_passage(gpt2, Passage(name="x", text="The Eiffel Tower"), bos=bos, longest=2)

    assert tokenised.tokens.texts == texts
    assert tokenised.cut == 3 + (bos == "auto") - 2


def test_a_short_passage_is_whole(gpt2):
    passage = Passage(name="x", text="The Eiffel Tower")

    assert tokenise_passage(gpt2, passage, longest=9).cut == 0
    assert tokenise_passage(gpt2, passage).tokens.texts[1:] == ("The", " Eiffel", " Tower")


@pytest.mark.parametrize("longest", [1, 0, -3])
def test_a_passage_cannot_be_cut_to_nothing(gpt2, longest):
    with pytest.raises(LayerscopeError, match="cut this short"):
        tokenise_passage(gpt2, Passage(name="x", text="The Eiffel Tower"), longest=longest)


# real tokenizers


def test_real_prompts_have_their_answers_and_subjects(data):
    folder = data / "models" / "english-12l"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = load_prompts(folder / "prompts.jsonl")

    for one in prompts:
        tokenised = tokenise_prompt(tokenizer, one, bos="always")
        covered = "".join(noised_texts(tokenised))
        assert "�" in covered or one.text[slice(*one.subject)] in covered
        assert tokenizer.decode(tokenised.answer_ids) == one.answer
        assert tokenised.tokens.ids[0] == 0
        assert not tokenised.note


@pytest.mark.parametrize("folder", ["models/stories260K", "tokenizers/gpt_neox"])
def test_known_facts_keep_subject_and_answer_in_other_tokenizers(data, folder):
    tokenizer = AutoTokenizer.from_pretrained(data / folder)

    for one in load_prompts(data / "facts" / "known_1000.json")[:150]:
        tokenised = tokenise_prompt(tokenizer, one)
        spans = [tokenised.tokens.spans[position] for position in tokenised.noised]
        assert one.text[spans[0][0] : spans[-1][1]].strip() == one.text[slice(*one.subject)]
        assert tokenizer.decode(tokenised.answer_ids).strip() == one.answer.strip()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
        "{% if",
        3,
        "{% for i in range(10**9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_is_told(chatty, monkeypatch, template):
    monkeypatch.setattr(chatty, "chat_template", template)
    with pytest.raises(LayerscopeError, match="the chat template of this tokenizer fails"):
        tokenise_prompt(chatty, prompt("The *dog* ran"), chat=True)
