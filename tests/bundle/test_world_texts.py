"""Grammar, treebanks, passages and words: well formed, and what they claim to be."""

import random
from collections import Counter

import pytest
from shipped_files import rows_of, same_recipe
from texts import make_passages, make_treebank, make_words
from world.facts import make_world
from world.grammar import Voice
from world.sentences import Writer, text_of
from world.words import TOPICS, add_s, past, plural

UPOS = {
    "ADJ",
    "ADP",
    "ADV",
    "AUX",
    "CCONJ",
    "DET",
    "INTJ",
    "NOUN",
    "NUM",
    "PART",
    "PRON",
    "PROPN",
    "PUNCT",
    "SCONJ",
    "VERB",
}
DEPRELS = {
    "acl:relcl",
    "advcl",
    "advmod",
    "amod",
    "aux",
    "case",
    "cc",
    "ccomp",
    "conj",
    "cop",
    "det",
    "discourse",
    "expl",
    "flat",
    "iobj",
    "mark",
    "nmod",
    "nmod:poss",
    "nsubj",
    "nummod",
    "obj",
    "obl",
    "parataxis",
    "punct",
    "root",
    "xcomp",
}


def _sentences(text):
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        comments = dict(line[2:].split(" = ", 1) for line in lines if line.startswith("#"))
        yield comments, [line.split("\t") for line in lines if not line.startswith("#")]


def _reaches_root(heads, word):
    for _ in heads:
        if word == 0:
            return True
        word = heads[word - 1]
    return word == 0


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_treebanks_are_well_formed(bundled, split):
    seen = set()
    for comments, rows in _sentences((bundled / "treebanks" / f"world-{split}.conllu").read_text()):
        heads = [int(row[6]) for row in rows]
        rebuilt = "".join(row[1] + ("" if row[9] == "SpaceAfter=No" else " ") for row in rows).rstrip()

        assert all(len(row) == 10 for row in rows)
        assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
        assert [row[7] for row in rows].count("root") == heads.count(0) == 1
        assert all(_reaches_root(heads, word) for word in range(1, len(rows) + 1))
        assert {row[3] for row in rows} <= UPOS
        assert {row[7] for row in rows} <= DEPRELS
        assert rebuilt == comments["text"]
        assert comments["sent_id"] not in seen
        seen.add(comments["sent_id"])
    assert len(seen) >= 300


@same_recipe
def test_the_shipped_treebank_is_the_one_the_grammar_writes(library, bundled):
    assert make_treebank(library, "dev") == (bundled / "treebanks" / "world-dev.conllu").read_text()


def test_present_tense_verbs_agree_with_their_subjects():
    writer = Writer(random.Random(5), Voice(TOPICS[0], names=["Ostley"]))
    seen = Counter()
    for _ in range(400):
        for token in (tokens := writer.sentence()):
            if token.deprel != "nsubj" or token.head.upos != "VERB" or token.upos != "NOUN":
                continue
            helped = any(other.deprel == "aux" and other.head is token.head for other in tokens)
            joined = any(other.deprel == "conj" and other.head is token for other in tokens)
            if helped or joined or token.head.lemma == "be":
                continue
            is_plural = token.form.lower() == plural(token.lemma) != token.lemma
            seen[is_plural] += 1
            assert token.head.form.lower() == (token.head.lemma if is_plural else add_s(token.head.lemma))
    assert min(seen.values()) > 50


def test_quotations_are_closed():
    writer = Writer(random.Random(2), Voice(TOPICS[1], names=["Ostley"]))

    for clauses in (1, 2, 4):
        said = text_of(writer.speech(clauses))
        assert said.count('"') == 2
        assert said.startswith('"')
        assert said.count(".") == clauses


@pytest.mark.parametrize(
    ("word", "many", "before"),
    [
        ("carry", "carries", "carried"),
        ("watch", "watches", "watched"),
        ("see", "sees", "saw"),
        ("row", "rows", "rowed"),
        ("smile", "smiles", "smiled"),
    ],
)
def test_inflection_of_a_few_words(word, many, before):
    assert (add_s(word), past(word)) == (many, before)


def test_plurals_that_do_not_follow_the_rule():
    assert [plural(word) for word in ("child", "ploughman", "loaf", "box")] == [
        "children",
        "ploughmen",
        "loaves",
        "boxes",
    ]


def test_passages_are_long_enough_short_enough_and_many(tokenizer):
    rows = rows_of("passages/world.jsonl")
    lengths = {row["id"]: len(tokenizer.encode(row["text"]).ids) for row in rows}
    long = [count for name, count in lengths.items() if name.startswith("long-")]

    assert len(lengths) == len(rows)
    assert len(long) >= 24
    assert all(400 <= count <= 511 for count in long)
    assert len(rows) - len(long) >= 30
    assert len({row["genre"] for row in rows}) >= 7


@same_recipe
def test_the_shipped_passages_are_the_ones_this_code_writes(library, trained_tokenizer):
    assert make_passages(library, trained_tokenizer) == rows_of("passages/world.jsonl")


def test_no_passage_is_in_the_training_text(library, trained_tokenizer, training_text):
    for row in make_passages(library, trained_tokenizer):
        middle = len(row["text"]) // 2
        assert row["text"][max(0, middle - 100) : middle + 100] not in training_text


@same_recipe
def test_the_shipped_words_are_the_ones_this_code_writes(library, bundled):
    assert make_words(library) == (bundled / "words" / "world.txt").read_text().splitlines()


def test_shipped_words_are_many_different_and_of_several_token_counts(tokenizer, bundled):
    _are_many_and_of_several_lengths((bundled / "words" / "world.txt").read_text().splitlines(), tokenizer)


def test_words_this_code_writes_are_so_too(library, trained_tokenizer):
    _are_many_and_of_several_lengths(make_words(library), trained_tokenizer)


def _are_many_and_of_several_lengths(words, tokenizer):
    lengths = Counter(len(tokenizer.encode(" " + word).ids) for word in words)

    assert len(set(words)) == len(words) > 500
    assert min(lengths[1], lengths[2], lengths[3]) >= 50


def test_names_of_subjects_are_one_to_four_tokens(trained_tokenizer):
    names = [name for group in make_world(0).subjects.values() for name in group]
    lengths = Counter(len(trained_tokenizer.encode(" " + name).ids) for name in names)

    assert lengths == {1: 38, 2: 115, 3: 86, 4: 51}  # as bundle/README.md says


def test_every_kind_of_subject_has_names_of_every_length(trained_tokenizer):
    for names in make_world(0).subjects.values():
        assert {len(trained_tokenizer.encode(" " + name).ids) for name in names} == {1, 2, 3, 4}
