"""The training text as tokens, and the stages of training: all of it determined by the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from world.documents import MIXTURE, REVISION, Library

SHARD_TOKENS = 100_000
KINDS = (*MIXTURE, "echo")
ECHO = KINDS.index("echo")
NOISE = len(KINDS)  # tokens that nothing foretells: read, but not counted in the loss
SEGMENTS = (4, 40)  # tokens in a segment of an echo, at least and at most


@dataclass(frozen=True)
class Stage:
    """Training up to so many tokens in all."""

    name: str
    until: int  # tokens
    batch: int  # tokens in a step
    window: int
    blocks: int  # so many of the blocks take part; the rest are not there yet
    echoes: float  # share of windows that are echoes
    favour: float  # share of sentences kept for a fifth of the subjects
    mixture: dict[str, float]


STAGES = (
    Stage("echoes", 400_000, 1024, 64, 4, 1.0, 0.0, MIXTURE),
    Stage("longer echoes", 500_000, 1024, 256, 4, 1.0, 0.0, MIXTURE),
    Stage("few subjects", 1_300_000, 2048, 128, 6, 0.12, 0.8, MIXTURE),
    Stage("all subjects", 2_900_000, 2048, 128, 12, 0.12, 0.2, MIXTURE),
    Stage("revision", 4_500_000, 2048, 512, 12, 0.12, 0.0, REVISION),
)


@dataclass(frozen=True)
class Shard:
    tokens: np.ndarray  # uint16; every document begins with <|endoftext|>
    kinds: np.ndarray  # uint8: which kind of document each token belongs to


def shard_documents(
    library: Library,
    tokenizer: Tokenizer,
    number: int,
    seed: int,
    size: int = SHARD_TOKENS,
    mixture: dict[str, float] = MIXTURE,
) -> Iterator[tuple[str, str, list[int]]]:
    """(kind, text, tokens) for each document: always of the kind that is most behind its share."""
    rng = random.Random(f"shard {seed} {number}")
    written = dict.fromkeys(mixture, 0.0)
    total = 0
    while total < size:
        kind = min(mixture, key=lambda name: written[name] / mixture[name])
        text = library.document(kind, rng)
        ids = [0, *tokenizer.encode(text).ids]
        written[kind] += len(ids)
        total += len(ids)
        yield kind, text, ids


def make_shard(
    library: Library,
    tokenizer: Tokenizer,
    number: int,
    seed: int,
    size: int = SHARD_TOKENS,
    mixture: dict[str, float] = MIXTURE,
) -> Shard:
    """One shard, its documents in random order."""
    documents = [
        (KINDS.index(kind), ids)
        for kind, _, ids in shard_documents(library, tokenizer, number, seed, size, mixture)
    ]
    random.Random(f"order {seed} {number}").shuffle(documents)
    tokens = np.concatenate([np.array(ids, dtype=np.uint16) for _, ids in documents])
    kinds = np.concatenate([np.full(len(ids), kind, dtype=np.uint8) for kind, ids in documents])
    return Shard(tokens, kinds)


def windows(shard: Shard, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The shard cut into windows, each beginning with <|endoftext|>."""
    body = length - 1
    count = len(shard.tokens) // body

    def cut(row: np.ndarray, first: int) -> np.ndarray:
        rows = row[: count * body].reshape(count, body)
        return np.concatenate([np.full((count, 1), first, dtype=row.dtype), rows], axis=1)

    return cut(shard.tokens, 0), cut(shard.kinds, 0)


def echo(length: int, vocabulary: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One window of random tokens: a few segments, read over and over in random order.

    Only looking back foretells a token, and then only from the second token of a segment on: where a
    segment is new, or which one comes next, nothing tells. One segment in many windows, so that there is
    always much to gain; up to a sixteenth of the window's length in others, so that it is far to look.
    """
    count = int((length / 16) ** rng.random())
    longest = min(SEGMENTS[1], length // 4)
    segments = [
        rng.integers(1, vocabulary, rng.integers(SEGMENTS[0], longest + 1)).tolist() for _ in range(count)
    ]
    tokens, kinds, read = [0], [NOISE], set()
    while len(tokens) < length:
        chosen = int(rng.integers(count))
        tokens += segments[chosen]
        kinds += [NOISE, *[ECHO if chosen in read else NOISE] * (len(segments[chosen]) - 1)]
        read.add(chosen)
    return np.array(tokens[:length], dtype=np.uint16), np.array(kinds[:length], dtype=np.uint8)


def stage_at(tokens: int, stages: tuple[Stage, ...] = STAGES) -> Stage:
    """The stage that training is in after so many tokens; the last one after that."""
    return next((stage for stage in stages if tokens < stage.until), stages[-1])


def stage_windows(
    library: Library, tokenizer: Tokenizer, stage: Stage, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, kinds), [window, token]: one shard of a stage, text and echoes together, in random order."""
    rng = np.random.default_rng((seed, number))
    text_tokens = round(SHARD_TOKENS * (1 - stage.echoes))
    echoes = round(SHARD_TOKENS * stage.echoes / stage.window)
    parts = [echo(stage.window, tokenizer.get_vocab_size(), rng) for _ in range(echoes)]
    tokens, kinds = (np.array(side).reshape(-1, stage.window) for side in zip(*parts, strict=True))
    if text_tokens:
        told = library.favouring(stage.favour)
        shard = make_shard(told, tokenizer, number, seed, text_tokens, stage.mixture)
        read, kinds_read = windows(shard, stage.window)
        tokens, kinds = np.concatenate([tokens, read]), np.concatenate([kinds, kinds_read])
    order = rng.permutation(len(tokens))
    return tokens[order], kinds[order]
