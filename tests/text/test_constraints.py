import pytest

from layerscope.errors import LayerscopeError
from layerscope.text.constraints import clean_constraint, constraints_of, refuse_unfit, strip
from layerscope.text.prompts import Prompt, load_prompts
from layerscope.text.tokenised import tokenise_prompt


def tokenised(tokenizer, starred, answer=" Paris", name="x", **options):
    (one,) = load_prompts([{"id": name, "prompt": starred, "answer": answer}])
    return tokenise_prompt(tokenizer, one, **options)


def by_name(prompt, context=None):
    return {constraint.name: constraint for constraint in constraints_of(prompt, context=context)}


def broken(prompt, context=None):
    return [name for name, constraint in by_name(prompt, context).items() if not constraint.holds]


def test_a_fit_prompt_meets_every_constraint(small):
    prompt = tokenised(small, "The *Eiffel* Tower is in the city of")

    assert broken(prompt, context=9) == []
    assert list(by_name(prompt)) == [
        "fits the context",
        "subject found in tokens",
        "first token not corrupted",
        "last token not corrupted",
        "corrupted tokens lie exactly on the subject",
        "one corrupted token",
        "answer is one token",
    ]


def test_a_prompt_longer_than_the_context_does_not_fit(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel* Tower is")

    assert broken(prompt, context=5) == []
    assert broken(prompt, context=4) == ["fits the context"]
    assert by_name(prompt, 4)["fits the context"].detail == "5 tokens; the model reads 4"


def test_the_first_token_is_noised_only_without_bos(gpt2):
    starred = "*The* Eiffel Tower"

    assert broken(tokenised(gpt2, starred)) == []
    assert broken(tokenised(gpt2, starred, bos="never")) == ["first token not corrupted"]


def test_the_last_token_noised_is_named(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel*")

    assert broken(prompt) == ["last token not corrupted"]
    assert "“·Eiffel”" in by_name(prompt)["last token not corrupted"].detail


def test_a_token_that_reaches_beyond_the_subject_is_named(gpt2):
    prompt = tokenised(gpt2, "The Eif*fel* Tower is")

    constraint = by_name(prompt)["corrupted tokens lie exactly on the subject"]
    assert not constraint.holds
    assert not constraint.needed
    assert constraint.detail == "“·Eiffel” reaches beyond the subject"


def test_a_subject_without_tokens_is_not_found(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel* Tower is").model_copy(update={"noised": ()})

    assert "subject found in tokens" in broken(prompt)
    assert by_name(prompt)["corrupted tokens lie exactly on the subject"].detail == "no token is corrupted"


def test_several_noised_tokens_and_answer_tokens_are_counted(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel Tower* is in", " Paris is")

    assert by_name(prompt)["one corrupted token"].detail == "2 corrupted"
    assert by_name(prompt)["answer is one token"].detail == "2 tokens: ·Paris|·is"
    assert not any(constraint.needed for constraint in map(by_name(prompt).get, broken(prompt)))


def test_a_prompt_without_an_answer_has_the_models_own(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel* Tower", "")

    assert by_name(prompt)["answer is one token"].detail == "own top-1"
    clean = clean_constraint(prompt, top1_id=7, top1_text=" is", rank=1, probability=0.25)
    assert clean.holds
    assert clean.detail == "own top-1 “·is”, p = 0.25"


def test_the_right_answer_holds_with_its_probability(gpt2):
    prompt = tokenised(gpt2, "The *Eiffel* Tower is in")

    clean = clean_constraint(
        prompt, top1_id=prompt.answer_ids[0], top1_text=" Paris", rank=1, probability=0.931
    )

    assert (clean.name, clean.holds, clean.needed) == ("answer is the model's top-1", True, True)
    assert clean.detail == "p = 0.931"


@pytest.mark.parametrize(
    ("starred", "answer", "top1", "advice"),
    [
        ("The *Eiffel* Tower is in", " Paris", " Rome", ""),
        ("The *Eiffel* Tower is in", "Paris", " Paris", "lacks its leading space"),
        ("The *Eiffel* Tower is in ", " Paris", "Paris", "does the prompt end in one?"),
    ],
)
def test_a_wrong_answer_is_told_with_what_would_help(gpt2, starred, answer, top1, advice):
    prompt = tokenised(gpt2, starred, answer)

    clean = clean_constraint(prompt, top1_id=-1, top1_text=top1, rank=12, probability=0.01)

    assert not clean.holds
    assert f"the model says “{top1.replace(' ', '·')}”" in clean.detail
    assert "at rank 12, p = 0.01" in clean.detail
    assert clean.detail.endswith(advice)
    assert ("leading space" in clean.detail) == ("leading space" in advice)


def test_fit_prompts_are_not_refused(gpt2):
    refuse_unfit([tokenised(gpt2, "The *Eiffel* Tower is")], context=None)


def test_unfit_prompts_are_refused_together_with_reasons(gpt2):
    fit = tokenised(gpt2, "The *Eiffel* Tower is")
    unfit = [tokenised(gpt2, "The *Eiffel*", name=f"bad-{number}") for number in range(5)]

    with pytest.raises(LayerscopeError) as caught:
        refuse_unfit([fit, *unfit], context=None)

    message = str(caught.value)
    assert "5 of 6 prompts" in message
    assert "bad-2: not “last token not corrupted”" in message
    assert "bad-3" not in message
    assert "and 2 more" in message
    assert "leave out --set unfit=refuse" in message
    assert "--bos" not in message


def test_a_noised_first_token_is_told_of_bos(gpt2):
    with pytest.raises(LayerscopeError, match="--bos always"):
        refuse_unfit([tokenised(gpt2, "*The* Eiffel Tower", bos="never")], context=None)


def test_the_strip_shows_blanks_and_stars(gpt2):
    assert strip(tokenised(gpt2, "The *Eiffel* Tower\n is")) == "<|endoftext|>|The|*·Eiffel*|·Tower|⏎|·is"


def test_the_strip_shows_what_could_not_be_seen(gpt2):
    prompt = Prompt(name="x", text="a\u202eb Tower", subject=(4, 9), answer="")

    assert strip(tokenise_prompt(gpt2, prompt, bos="never")) == "a|�|�|�|b|*·Tower*"


def test_of_a_long_text_the_middle_is_left_out_and_counted(gpt2):
    line = strip(tokenised(gpt2, "The *Eiffel* Tower" + " is" * 500))

    assert line.startswith("<|endoftext|>|The|*·Eiffel*|·Tower|")
    assert " … 424 tokens … " in line
    assert line.count("·is") == 36 + 40
