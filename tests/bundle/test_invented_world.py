"""The invented world is the same every time, and what it says of itself is true."""

import random
import re
from itertools import pairwise

import pytest
from corpus import make_shard, windows
from world.documents import MIXTURE, Library
from world.facts import ANSWERS, LANDS, RELATIONS, TONGUES
from world.strings import WEIGHTS
from world.templates import ASIDES, TEMPLATES


@pytest.mark.parametrize("kind", MIXTURE)
def test_the_same_seed_writes_the_same_document(kind):
    once, again = (Library(3).document(kind, random.Random("same")) for _ in range(2))

    assert once == again
    assert once != Library(3).document(kind, random.Random("other"))


def test_every_fact_has_one_answer_of_the_right_kind(library):
    first_hop = [fact for fact in library.world.facts if fact.hop == 1 and fact.kind != "land"]

    assert len({(fact.subject, fact.relation) for fact in first_hop}) == len(first_hop)
    assert all(fact.answer in ANSWERS[RELATIONS[fact.kind][fact.relation]] for fact in first_hop)


def test_the_second_hop_follows_from_the_first(library):
    home = {fact.subject: fact.answer for fact in library.world.facts if fact.relation == "home"}
    second = [fact for fact in library.world.facts if fact.hop == 2]

    assert len(second) == len(home)
    assert all(TONGUES[LANDS.index(home[fact.subject])] == fact.answer for fact in second)


def test_answers_are_shared_by_many_subjects(library):
    trades = [fact.answer for fact in library.world.facts if fact.relation == "trade"]

    assert len(trades) > 3 * len(set(trades))


def test_every_template_names_its_subject_once_and_not_first():
    for template in (each for group in TEMPLATES.values() for each in group):
        start, end = template.split("{s}")
        assert len(start.split()) >= 1
        assert end.strip()


def _wordings(fact, templates):
    return [fact.prompt(template, aside=aside) for template in templates for aside in set(ASIDES)]


def test_facts_are_never_taught_in_the_words_held_out(library, training_text):
    facts = random.Random(0).sample([fact for fact in library.world.facts if fact.hop == 1], 120)
    held_out = [words for fact in facts for words in _wordings(fact, fact.held_out)]
    taught = [words for fact in facts for words in _wordings(fact, fact.taught)]

    assert not [words for words in held_out if words in training_text]
    assert sum(words in training_text for words in taught) > 300  # the same search does find what is there


def test_two_hop_facts_held_out_altogether_are_never_stated(library, training_text):
    unstated = [fact for fact in library.world.facts if not fact.taught]

    assert len(unstated) > 15
    assert all(fact.hop == 2 for fact in unstated)
    for fact in unstated:
        assert not [words for words in _wordings(fact, fact.held_out) if words in training_text]


def test_invented_subjects_are_never_mentioned(library, training_text):
    for names in library.world.invented.values():
        assert not [name for name in names if re.search(rf"\b{name}\b", training_text)]


def test_strings_are_met_as_often_as_their_rank_says(library, training_text):
    counts = {
        rank: sum(training_text.count(string.text) for string in library.strings if string.rank == rank)
        / sum(string.rank == rank for string in library.strings)
        for rank in WEIGHTS
    }

    assert min(counts.values()) > 1
    for more, less in pairwise(WEIGHTS):
        assert 1.5 < counts[more] / counts[less] < 2.7


def test_every_window_begins_with_the_end_of_text(library, tokenizer):
    tokens, kinds = windows(make_shard(library, tokenizer, 0, 0), 512)

    assert tokens.shape == kinds.shape
    assert (tokens[:, 0] == 0).all()
    assert (tokens < 4096).all()


def test_a_world_for_beginners_speaks_mostly_of_few_subjects(library):
    rng = random.Random(1)
    few = set(library._subjects[0])
    shares = [
        sum(each._a_subject(rng) in few for _ in range(2000)) / 2000
        for each in (library.favouring(0.8), library)
    ]

    assert shares == pytest.approx([0.8 + 0.2 * 0.2, 0.2], abs=0.04)
