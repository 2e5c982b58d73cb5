"""Trains the byte-level BPE tokenizer on the world's text, names of subjects left out.

A subject's name is therefore spelt with pieces learnt from other names: one to four or so tokens, and
the model must put them together before it can know whom it is reading about. A few are shown on
purpose, as are all answers, which have to be single tokens.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from world import words
from world.documents import Library
from world.facts import ANSWERS

END = "<|endoftext|>"
SIZE = 4096
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END,
    "eos_token": END,
    "unk_token": END,
    "model_max_length": 512,
    "clean_up_tokenization_spaces": False,
    "add_prefix_space": False,
}


def _texts(library: Library, rng: random.Random) -> Iterator[str]:
    for kind, count in (("story", 1200), ("letter", 300), ("ledger", 400), ("copy", 500), ("strings", 250)):
        for _ in range(count):
            yield _without_withheld(library.document(kind, rng), library)
    for fact in library.world.facts:
        for template in fact.templates:
            if rng.random() < 0.3:
                yield template.replace("{s}", "")
    answers = [answer for group in ANSWERS.values() for answer in group]
    chosen = [
        *answers,
        *library.world.shown,
        *words.ORDINALS,
        *words.SMALL_NUMBERS,
        *(f"{number}" for number in range(11, 100)),
    ]
    for word in chosen:
        yield f" {word}" * 60


def _without_withheld(text: str, library: Library) -> str:
    for name in _withheld_in(text, library):
        text = text.replace(name, "")
    return text


def _withheld_in(text: str, library: Library) -> list[str]:
    """Subjects, and rare words with them: those are to be of several tokens too."""
    withheld = (*library.world.facts_of, *words.RARE_THINGS, *words.RARE_LOOKS)
    return [name for name in withheld if name in text]


def train_tokenizer(library: Library, seed: int = 0) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[END],
        min_frequency=12,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_texts(library, random.Random(f"tokenizer {seed}")), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS, indent=2) + "\n")


def name_lengths(tokenizer: Tokenizer, names: list[str]) -> dict[int, int]:
    """How many names are one token long, two, ...: with the space that always comes before them."""
    lengths = [len(tokenizer.encode(" " + name).ids) for name in names]
    return {n: lengths.count(n) for n in sorted(set(lengths))}


def check_answers(tokenizer: Tokenizer) -> None:
    for group in ANSWERS.values():
        for answer in group:
            ids = tokenizer.encode(" " + answer).ids
            if len(ids) != 1:
                raise ValueError(f"the answer {answer!r} is {len(ids)} tokens, and has to be one")
