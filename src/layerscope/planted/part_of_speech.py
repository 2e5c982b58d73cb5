"""A model whose states say, beyond one block, how a word is used: as a noun or as a verb.

Ten words may be either; the word before decides, `the` or `to`. In one block a head looks one token back
and brings which of the two stands there. So up to that block a state holds the word and its position, which
say nothing about its use; beyond it the state says noun or verb, and a linear probe decodes both without a
mistake. Every sentence has as many of the one as of the other, in any order, so that the word type alone is
right about half of them.

Strength is the factor on what the head brings. Without it no depth tells more than the word does.
"""

from __future__ import annotations

import random

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import Canvas, head_of, word_tokenizer

WORDS = ("walk", "run", "talk", "drink", "sleep", "dance", "look", "rest", "turn", "play")
MARKS = {"the": ("DET", "NOUN", "obj"), "to": ("PART", "VERB", "xcomp")}
POSITIONS = 32
_LAYER, _N_LAYERS = 1, 3


def part_of_speech(*, strength: float = 1.0) -> LayeredModel:
    """The model, whose block 1 (of 3) brings the mark before a word to the word."""
    tokenizer = word_tokenizer([*MARKS, *WORDS])
    stretches = {"word": len(tokenizer), "position": POSITIONS, "mark": len(tokenizer)}
    canvas = Canvas(tokenizer, stretches, n_layers=_N_LAYERS, positions=POSITIONS)
    canvas.embed_words("word")
    canvas.embed_positions("position")
    head = head_of(canvas.model, _LAYER, 1)
    canvas.look_back(head, "position", 1)
    canvas.copy(head, "word", "mark", len(tokenizer), weight=strength)
    canvas.read_out("mark", range(len(tokenizer)), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def treebank(*, documents: int = 60, sentences: int = 4, pairs: int = 4, seed: int = 0) -> str:
    """Sentences of marks and words, as CoNLL-U text: each has as many nouns as verbs."""
    chance = random.Random(seed)
    blocks = []
    for document in range(documents):
        for number in range(sentences):
            marks = [mark for mark in MARKS for _ in range(pairs // 2)]
            chance.shuffle(marks)
            rows = [row for mark in marks for row in _pair(mark, chance.choice(WORDS))]
            lines = [
                "\t".join((str(i), form, form, upos, "_", "_", "0" if i == 1 else "1", relation, "_", "_"))
                for i, (form, upos, relation) in enumerate(rows, start=1)
            ]
            begins = f"# newdoc id = d{document:03d}\n" if number == 0 else ""
            blocks.append(f"{begins}# sent_id = d{document:03d}-{number}\n" + "\n".join(lines) + "\n\n")
    return "".join(blocks)


def _pair(mark: str, word: str) -> list[tuple[str, str, str]]:
    of_mark, of_word, relation = MARKS[mark]
    return [(mark, of_mark, "mark"), (word, of_word, relation)]


def _answer(depth: int, gain: float) -> Answer:
    labels = {"task": "part of speech", "depth": depth}
    return Answer("gain", gain, 0.06, labels=labels, nothing=0.0, says="decodable")


TRIALS = (
    Trial(
        experiment="syntax_probe",
        plants="from depth 2 of 3 on, a state says whether its word is used as a noun or as a verb; the word "
        "alone is right about three words in four, marks included",
        model=lambda strength: part_of_speech(strength=strength),
        answers=(_answer(2, 0.25), _answer(3, 0.25)),
        texts=lambda: {"treebank": treebank()},
        strengths=(1.0, 0.1, 0.01),
        strength_is="factor on the mark that is brought to the word",
    ),
)
