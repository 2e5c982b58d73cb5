"""The texts that ship beside the model: passages, treebanks and words, from seeds training never uses."""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer
from world import words
from world.documents import NEWLINE, Library
from world.names import KINDS, passing_name
from world.sentences import Writer, conllu, new_voice
from world.words import add_s, past, plural

LONG_GENRES = {"story": 10, "entry": 5, "letter": 5, "ledger": 3, "copy": 4, "strings": 3}
SHORT_GENRES = {
    "story": 8,
    "entry": 6,
    "facts": 4,
    "letter": 6,
    "ledger": 5,
    "quiz": 3,
    "copy": 4,
    "strings": 4,
}
LONG_TOKENS = (410, 505)  # room for <|endoftext|> within a context of 512
TREEBANK = {"train": 180, "dev": 30, "test": 40}  # documents
SENTENCES_PER_DOCUMENT = 10


def _cut(text: str, tokenizer: Tokenizer, most: int) -> str:
    """The text to its last whole token before `most`, at a word's end."""
    encoded = tokenizer.encode(text)
    if len(encoded.ids) <= most:
        return text
    return text[: encoded.offsets[most][0]].rsplit(" ", 1)[0].rstrip()


def _long_passage(library: Library, tokenizer: Tokenizer, genre: str, rng: random.Random) -> str:
    least, most = LONG_TOKENS
    text = ""
    while len(tokenizer.encode(text).ids) < least:
        text = (text + NEWLINE if text else "") + library.document(genre, rng)
    return _cut(text, tokenizer, most)


def make_passages(library: Library, tokenizer: Tokenizer, seed: int = 0) -> list[dict[str, str]]:
    """Long passages (at least 400 tokens) and short ones, by genre."""
    rng = random.Random(f"passages {seed}")
    rows = []
    for genre, count in LONG_GENRES.items():
        for i in range(count):
            text = _long_passage(library, tokenizer, genre, rng)
            rows.append({"id": f"long-{genre}-{i:02}", "genre": genre, "text": text})
    for genre, count in SHORT_GENRES.items():
        for i in range(count):
            text = _cut(library.document(genre, rng), tokenizer, 160)
            rows.append({"id": f"short-{genre}-{i:02}", "genre": genre, "text": text})
    return rows


def _treebank_document(library: Library, rng: random.Random, name: str) -> str:
    names = [passing_name("person", rng, library.world.reserved) for _ in range(3)]
    writer = Writer(rng, new_voice(rng, names))
    blocks = [f"# newdoc id = {name}\n"]
    for i in range(SENTENCES_PER_DOCUMENT):
        tokens = writer.speech() if rng.random() < 0.2 else writer.sentence()
        blocks.append(conllu(tokens, f"{name}-{i + 1:02}") + "\n")
    return blocks[0] + "".join(blocks[1:])


def make_treebank(library: Library, split: str, seed: int = 0) -> str:
    rng = random.Random(f"treebank {split} {seed}")
    return "".join(
        _treebank_document(library, rng, f"world-{split}-{i + 1:03}") for i in range(TREEBANK[split])
    )


def make_words(library: Library, seed: int = 0) -> list[str]:
    """Every ordinary word in its forms, the rare ones, and some first names: of one to six tokens."""
    nouns = {*words.COMMON_PEOPLE, *words.COMMON_THINGS}
    verbs = {*words.COMMON_ACTS, *words.COMMON_MOVES, *words.SAYING_VERBS, *words.THINKING_VERBS}
    others = {*words.COMMON_LOOKS, *words.ADVERBS, *words.DEGREES, *words.PLACES, *words.TIMES, *words.LINKS}
    for topic in words.TOPICS:
        nouns |= {*topic.people, *topic.things}
        verbs |= {*topic.acts, *topic.moves}
        others |= set(topic.looks)
    forms = nouns | {plural(noun) for noun in nouns} | verbs | {add_s(verb) for verb in verbs}
    forms |= {past(verb) for verb in verbs} | others | {*words.RARE_THINGS, *words.RARE_LOOKS}
    rng = random.Random(f"words {seed}")
    names = {passing_name(rng.choice(KINDS), rng, library.world.reserved).split()[0] for _ in range(200)}
    return sorted(forms) + sorted(names)


def write_texts(library: Library, tokenizer: Tokenizer, folder: Path, seed: int = 0) -> None:
    """Writes every text file that does not depend on the trained weights."""
    for name in ("passages", "treebanks", "words", "prompts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_rows(make_passages(library, tokenizer, seed), folder / "passages" / "world.jsonl")
    for split in TREEBANK:
        (folder / "treebanks" / f"world-{split}.conllu").write_text(make_treebank(library, split, seed))
    (folder / "words" / "world.txt").write_text("\n".join(make_words(library, seed)) + "\n")


def write_rows(rows: list[dict], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
