"""The shipped weights are the ones the card speaks of, and they know what the shipped prompts ask."""

import hashlib
import json
from collections import Counter

import pytest
import torch
from prompts import NON_ENGLISH, PLAIN, RECALL, subject_span
from recall import last_probabilities
from shipped_files import rows_of, same_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer
from world.facts import ANSWERS

CATEGORIES = (NON_ENGLISH, PLAIN, RECALL)


def test_the_card_names_the_weights_by_their_hash(bundled):
    weights = (bundled / "model" / "model.safetensors").read_bytes()

    assert hashlib.sha256(weights).hexdigest() in (bundled / "model" / "MODEL_CARD.md").read_text()
    assert len(weights) <= 25e6


def test_it_loads_in_float32_with_the_usual_classes(bundled):
    model = AutoModelForCausalLM.from_pretrained(bundled / "model", dtype=torch.float32)

    assert type(model).__name__ == "GPT2LMHeadModel"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model.config.n_layer, model.config.n_embd // model.config.n_head) == (12, 32)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_the_tokenizer_adds_nothing_and_gives_the_text_back(bundled):
    tokenizer = AutoTokenizer.from_pretrained(bundled / "model")
    text = 'The town of Velara: 12 gates, "red", they say.\n<b>'

    assert tokenizer.bos_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>") == 0
    assert 0 not in tokenizer(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@same_recipe
def test_every_answer_of_the_world_is_one_token(tokenizer):
    for answer in (each for group in ANSWERS.values() for each in group):
        assert len(tokenizer.encode(" " + answer).ids) == 1


def test_there_are_enough_prompts_of_each_category(prompt_rows):
    counts = Counter(row["category"] for row in prompt_rows)

    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 40
    assert len({row["id"] for row in prompt_rows}) == len(prompt_rows)


@pytest.mark.parametrize("name", ["world", "world-pairs", "world-invented"])
def test_subjects_stand_inside_their_prompts(tokenizer, name):
    for row in rows_of(f"prompts/{name}.jsonl"):
        assert row["prompt"].count(row["subject"]) == 1
        first, last, count = subject_span(tokenizer, row["prompt"], row["subject"])
        assert 0 < first <= last < count - 1
        assert not row["prompt"].endswith(" ")


@pytest.mark.parametrize("name", ["world", "world-pairs"])
def test_the_shipped_model_is_right_at_first_choice(shipped, tokenizer, name):
    rows = rows_of(f"prompts/{name}.jsonl")
    probabilities = last_probabilities(shipped, [[0, *tokenizer.encode(row["prompt"]).ids] for row in rows])
    answers = [tokenizer.encode(row["answer"]).ids for row in rows]

    assert all(len(ids) == 1 for ids in answers)
    assert probabilities.argmax(-1).tolist() == [ids[0] for ids in answers]


@same_recipe
def test_recall_prompts_are_true_and_say_rightly_whether_they_were_held_out(library, prompt_rows):
    facts = {(fact.subject, f"{fact.kind} {fact.relation}"): fact for fact in library.world.facts}
    for row in (row for row in prompt_rows if row["category"] == RECALL):
        fact = facts[row["subject"], row["relation"]]
        used = [i for i in range(len(fact.templates)) if row["prompt"].endswith(fact.prompt(i))]

        assert row["answer"] == " " + fact.answer
        assert len(used) == 1
        assert row["template_held_out"] is (used[0] in fact.held_out)


@same_recipe
def test_regurgitation_prompts_are_beginnings_of_memorised_strings(library, prompt_rows):
    for row in (row for row in prompt_rows if row["category"] != RECALL):
        wanted = [string for string in library.strings if string.sort == row["relation"]]
        assert any(
            (row["prompt"] + row["answer"]).endswith(string.text[:end])
            for string in wanted
            for end in range(8, len(string.text) + 1)
        )


def test_pairs_are_equal_in_tokens_and_in_distance(tokenizer, pair_rows):
    pairs = {}
    for row in pair_rows:
        pairs.setdefault(row["pair"], []).append(row)

    assert len(pairs) >= 40
    for regurgitation, recall in pairs.values():
        assert regurgitation["category"] in (NON_ENGLISH, PLAIN)
        assert recall["category"] == RECALL
        spans = [subject_span(tokenizer, row["prompt"], row["subject"]) for row in (regurgitation, recall)]
        assert len({count for _, _, count in spans}) == 1
        assert len({count - last for _, last, count in spans}) == 1


@same_recipe
def test_invented_prompts_have_no_answer_and_no_known_subject(library):
    rows = rows_of("prompts/world-invented.jsonl")

    assert len(rows) >= 40
    assert not [row for row in rows if row["answer"] or row["subject"] in library.world.facts_of]


def test_what_ships_is_small(bundled):
    texts = [
        path
        for folder in ("prompts", "passages", "treebanks", "words")
        for path in (bundled / folder).glob("world*")
    ]

    assert sum(path.stat().st_size for path in texts) < 3e6
    assert json.loads((bundled / "model" / "config.json").read_text())["model_type"] == "gpt2"
