import json

import pytest

from layerscope.errors import LayerscopeError
from layerscope.text.prompts import Prompt, load_prompts

EIFFEL = {"prompt": "The Eiffel Tower is in", "subject": "Eiffel", "answer": " Paris"}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_line_of_jsonl_becomes_a_prompt(write):
    record = EIFFEL | {"id": "e", "category": "facts", "pair": "f", "p": 0.9}

    assert load_prompts(write(lines(record))) == (
        Prompt(name="e", category="facts", text=EIFFEL["prompt"], subject=(4, 10), answer=" Paris", pair="f"),
    )


def test_ids_default_to_numbers_and_categories_to_none(write):
    first, second = load_prompts(write(lines(EIFFEL, EIFFEL)))

    assert (first.name, second.name) == ("prompt-001", "prompt-002")
    assert first.category == "uncategorised"


def test_a_path_may_be_given_as_text_and_blank_lines_do_not_count(write):
    assert len(load_prompts(str(write("\n" + lines(EIFFEL) + "\n \n")))) == 1


def test_csv_cells_are_fields_and_empty_ones_are_left_out(write):
    path = write(
        'id,prompt,subject,answer,subject_start,pair\na,"Rome, Rome is",Rome, big,6,\n,"a *b*\nc",,,,\n',
        "facts.csv",
    )

    first, second = load_prompts(path)

    assert (first.name, first.subject, first.answer, first.pair) == ("a", (6, 10), " big", None)
    assert (second.name, second.text, second.subject, second.answer) == ("prompt-002", "a b\nc", (2, 3), "")


def test_an_empty_subject_start_in_csv_is_left_out(write):
    path = write("prompt,subject,answer,subject_start\nRome is,Rome, big,\n", "facts.csv")

    assert load_prompts(path)[0].subject == (0, 4)


def test_byte_order_marks_and_windows_line_ends_are_handled(write):
    record = EIFFEL | {"prompt": "The Eiffel\u2028Tower is in"}
    content = json.dumps(record, ensure_ascii=False) + "\r\n"
    rows = "prompt,subject,answer\r\nThe Eiffel Tower,Eiffel, x\r\n"

    assert load_prompts(write(b"\xef\xbb\xbf" + content.encode()))[0].text == record["prompt"]
    assert load_prompts(write(b"\xef\xbb\xbf" + rows.encode(), "a.csv"))[0].answer == " x"


def test_known_1000_finds_its_subject_by_the_template_and_adds_the_blank(write):
    record = {
        "known_id": 7,
        "subject": "York",
        "attribute": "England",
        "template": "New Yorkers say {} is in",
        "prediction": " England.",
        "prompt": "New Yorkers say York is in",
        "relation_id": "P17",
    }

    (prompt,) = load_prompts(write(json.dumps([record]), "known.json"))

    assert (prompt.name, prompt.category, prompt.answer) == ("known-7", "P17", " England")
    assert prompt.subject == (16, 20)  # not the York of New Yorkers


def test_no_blank_is_added_after_a_prompt_that_ends_in_one(write):
    record = {"subject": "A", "attribute": "b", "prompt": "A is "}

    assert load_prompts(write(json.dumps([record]), "known.json"))[0].answer == "b"


def test_counterfact_puts_its_subject_into_the_template(write):
    rewrite = {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English"},
        "target_true": {"str": "French"},
        "subject": "Danielle Darrieux",
    }
    record = {"case_id": 0, "requested_rewrite": rewrite, "paraphrase_prompts": []}

    (prompt,) = load_prompts(write(json.dumps([record]), "counterfact.json"))

    assert prompt.text == "The mother tongue of Danielle Darrieux is"
    assert prompt.text[slice(*prompt.subject)] == "Danielle Darrieux"
    assert (prompt.name, prompt.category, prompt.answer) == ("case-0", "P103", " French")


def test_the_real_known_1000_is_read_whole(data):
    prompts = load_prompts(data / "facts" / "known_1000.json")

    assert len(prompts) == 1209
    assert prompts[0].text[slice(*prompts[0].subject)] == "Vinson Massif"
    assert prompts[0].answer == " Antarctica"


def test_a_starred_text_is_a_prompt_whose_own_top1_is_traced():
    (prompt,) = load_prompts("The *Eiffel* Tower is located in the city of")

    assert (prompt.text, prompt.subject) == ("The Eiffel Tower is located in the city of", (4, 10))
    assert prompt.answer == ""


@pytest.mark.parametrize("text", ["The *A/B* test is", "The *list* is in facts.jsonl"])
def test_a_starred_text_with_slashes_or_file_names_is_no_path(text):
    assert load_prompts(text)[0].text == text.replace("*", "")


def test_python_values_of_every_kind_are_read_in_their_order():
    whole = Prompt(name="whole", text="a b", subject=(0, 1), answer="")
    mixed = [whole, {"prompt": "c d e", "subject": "d"}, "f *g* h"]

    assert [p.text for p in load_prompts(iter(mixed))] == ["a b", "c d e", "f g h"]
    assert load_prompts(whole) == (whole,)
    assert load_prompts(mixed[1])[0].answer == ""


def test_a_subject_that_occurs_twice_is_its_first_and_says_so(write):
    record = EIFFEL | {"prompt": "Eiffel by Eiffel is"}

    first, second = load_prompts(write(lines(record, record | {"subject_start": 10})))

    assert first.subject == (0, 6)
    assert "2 times" in first.note
    assert (second.subject, second.note) == ((10, 16), "")


def test_stars_in_a_prompt_with_a_subject_field_are_stars():
    assert load_prompts({"prompt": "*a* b c", "subject": "b"})[0].text == "*a* b c"


def test_a_bundled_set_is_found_by_name(monkeypatch, tmp_path, write):
    write(lines(EIFFEL), "mine.jsonl")
    monkeypatch.setattr("layerscope.text.sources.bundled_folder", lambda kind: tmp_path)

    assert load_prompts("mine")[0].answer == " Paris"
    with pytest.raises(LayerscopeError, match="mine"):
        load_prompts("mime")


def test_a_prompt_survives_json():
    (prompt,) = load_prompts("The *Eiffel* Tower")

    assert Prompt.model_validate_json(prompt.model_dump_json()) == prompt


@pytest.mark.parametrize("subject", [(0, 0), (2, 1), (-1, 2), (0, 9), (1, 2)])
def test_a_prompt_refuses_a_span_that_is_no_subject(subject):
    with pytest.raises(ValueError, match="no span"):
        Prompt(name="x", text="a b", subject=subject, answer="")


def test_a_subject_is_found_as_whole_words_before_it_is_found_inside_one() -> None:
    (prompt,) = load_prompts([{"prompt": "The party of art is in", "subject": "art", "answer": ""}])

    assert prompt.text[prompt.subject[0] : prompt.subject[1]] == "art"
    assert prompt.subject == (13, 16)
    assert "the first whole word is corrupted" in prompt.note


def test_stars_beside_a_subject_are_read_as_they_stand_and_noted() -> None:
    (prompt,) = load_prompts([{"prompt": "The *Eiffel* Tower is in", "subject": "Tower", "answer": ""}])

    assert prompt.text == "The *Eiffel* Tower is in"
    assert "stars in the prompt are read as they stand" in prompt.note


def test_sets_joined_by_a_plus_are_read_one_after_another(write) -> None:
    """So that two sets stand in one run and their categories are compared with each other."""
    own = write('{"prompt": "The *Eiffel* Tower is in", "answer": " Paris", "id": "a"}\n', "own.jsonl")
    both = load_prompts(f"world-invented + {own}")
    assert both == (*load_prompts("world-invented"), *load_prompts(own))


def test_a_plus_in_a_starred_text_or_in_a_name_of_a_file_joins_nothing(write) -> None:
    assert load_prompts("one + *two* makes")[0].text == "one + two makes"
    path = write('{"prompt": "The *Eiffel* Tower is in", "answer": " Paris"}\n', "a+b.jsonl")
    assert len(load_prompts(str(path))) == 1
