"""The training text as tokens: endless shards, each fully determined by the seed and its number."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from world.documents import COPYING, MIXTURE, REVISION, Library

SHARD_TOKENS = 400_000
BEGINNERS = 6  # so many shards, at first, tell mostly of few subjects
KINDS = tuple(MIXTURE)
STAGES = {0: MIXTURE, 8: COPYING, 11: REVISION}  # from which shard on texts are so mixed

WINDOWS = {0: 512, 4: 64, 6: 128, 8: 64, 10: 128, 13: 512}  # from which shard on windows are so long


def window_of(shard: int) -> int:
    """Short windows in the middle: among few tokens a head soon finds out which of them is worth reading."""
    return WINDOWS[max(first for first in WINDOWS if first <= shard)]


@dataclass(frozen=True)
class Shard:
    tokens: np.ndarray  # uint16; every document begins with <|endoftext|>
    kinds: np.ndarray  # uint8: which kind of document each token belongs to


def shard_documents(
    library: Library, tokenizer: Tokenizer, number: int, seed: int, size: int = SHARD_TOKENS
) -> Iterator[tuple[str, str, list[int]]]:
    """(kind, text, tokens) for each document: always of the kind that is most behind its share."""
    rng = random.Random(f"shard {seed} {number}")
    library = library.for_beginners if number < BEGINNERS else library
    mixture = STAGES[max(first for first in STAGES if first <= number)]
    written = dict.fromkeys(KINDS, 0.0)
    total = 0
    while total < size:
        kind = min(KINDS, key=lambda name: written[name] / mixture[name])
        text = library.document(kind, rng)
        ids = [0, *tokenizer.encode(text).ids]
        written[kind] += len(ids)
        total += len(ids)
        yield kind, text, ids


def make_shard(library: Library, tokenizer: Tokenizer, number: int, seed: int) -> Shard:
    """One shard, its documents in random order."""
    documents = [
        (KINDS.index(kind), ids) for kind, _, ids in shard_documents(library, tokenizer, number, seed)
    ]
    random.Random(f"order {seed} {number}").shuffle(documents)
    tokens = np.concatenate([np.array(ids, dtype=np.uint16) for _, ids in documents])
    kinds = np.concatenate([np.full(len(ids), kind, dtype=np.uint8) for kind, ids in documents])
    return Shard(tokens, kinds)


def windows(shard: Shard, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The shard cut into windows, each beginning with <|endoftext|>, in random order."""
    body = length - 1
    count = len(shard.tokens) // body
    order = np.random.default_rng(seed).permutation(count)

    def cut(row: np.ndarray, first: int) -> np.ndarray:
        rows = row[: count * body].reshape(count, body)[order]
        return np.concatenate([np.full((count, 1), first, dtype=row.dtype), rows], axis=1)

    return cut(shard.tokens, 0), cut(shard.kinds, 0)
