"""A small treebank as CoNLL-U text, of words that the zoo's tokenizer has met."""

from __future__ import annotations

import random

NOUNS = ("fox", "dog", "bird", "town", "stone")
VERBS = ("met", "sang", "ran")
ADJECTIVES = ("red", "old", "small")
GENRES = ("tale", "report")


def small(*, documents: int = 12, sentences: int = 4, seed: int = 0) -> str:
    """Documents of two genres; sentences such as `the red fox met the dog in the town`."""
    chance = random.Random(seed)
    blocks = []
    for document in range(documents):
        name = f"{GENRES[document % 2]}-{document:02d}"
        for number in range(sentences):
            head = f"# newdoc id = {name}\n" if number == 0 else ""
            rows = _sentence(chance)
            text = " ".join(row[0] for row in rows)
            lines = [
                "\t".join((str(i), form, form, upos, xpos, "_", str(head_), deprel, "_", "_"))
                for i, (form, upos, xpos, head_, deprel) in enumerate(rows, start=1)
            ]
            blocks.append(f"{head}# sent_id = {name}-{number}\n# text = {text}\n" + "\n".join(lines) + "\n\n")
    return "".join(blocks)


def _sentence(chance: random.Random) -> list[tuple[str, str, str, int, str]]:
    subject = _phrase(chance)
    verb = len(subject) + 1
    rows = [*_placed(subject, 0, verb, "nsubj"), (chance.choice(VERBS), "VERB", "VBD", 0, "root")]
    rows += _placed(_phrase(chance), verb, verb, "obj")
    if chance.random() < 0.5:
        phrase = _phrase(chance)
        at = len(rows) + 1
        rows.append(("in", "ADP", "IN", at + len(phrase), "case"))
        rows += _placed(phrase, at, verb, "obl")
    return rows


def _phrase(chance: random.Random) -> list[tuple[str, str, str, str]]:
    words = [("the", "DET", "DT", "det")]
    if chance.random() < 0.5:
        words.append((chance.choice(ADJECTIVES), "ADJ", "JJ", "amod"))
    return [*words, (chance.choice(NOUNS), "NOUN", "NN", "")]


def _placed(
    phrase: list[tuple[str, str, str, str]], before: int, head: int, relation: str
) -> list[tuple[str, str, str, int, str]]:
    noun = before + len(phrase)
    return [
        (form, upos, xpos, head if not own else noun, own or relation) for form, upos, xpos, own in phrase
    ]
