"""What is asked of attention on a batch of texts of one length: which queries count, and which pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from layerscope.maths.attention import (
    DISTANCE_BINS,
    OFFSETS,
    band_name,
    pairs_after_same_token,
    pairs_with_same_token,
)
from layerscope.runs.attention_columns import Asked, Band

TOTALS = (
    "every", "query position", "fixed", "query position, fixed", "with duplicate", "with induction",
)  # fmt: skip
PAIRS = ("self", "previous token", "duplicate token", "induction", "dependency", "to head", "to dependent")


def asked_of(
    ids: Sequence[Sequence[int]],
    *,
    fixed: tuple[int, int] | None = None,
    relations: Sequence[Mapping[str, Sequence[tuple[int, int]]]] | None = None,
    tags: Tensor | None = None,
    least_kept: float = 0.1,
    device: torch.device | str = "cpu",
) -> Asked:
    """The usual questions.

    Args:
        ids: texts of one length.
        fixed: queries first .. last + 1 at which distances are read; None where the texts are too short.
        relations: of each text, further (query, key) pairs by kind, one of PAIRS.
        tags: whether each key has a tag [text tag token].
        least_kept: see `Asked`.
        device: where the sums are made.
    """
    rows = [list(row) for row in ids]
    tokens = len(rows[0])
    found = [_pairs_of(row, fixed, relations[i] if relations else {}) for i, row in enumerate(rows)]
    flat = [(i, *pair) for i, pairs in enumerate(found) for pair in pairs]
    pairs = torch.tensor(sorted(flat, key=lambda pair: pair[1]), dtype=torch.long).reshape(-1, 4).T
    # Nearer bins are sums of offsets; the last is what is left of the total.
    bins = [(first, last) for first, last in DISTANCE_BINS if last is not None and last >= OFFSETS]
    return Asked(
        ids=torch.tensor(rows),
        totals=TOTALS,
        queries=torch.stack([_totals(pairs, i, tokens, fixed) for i in range(len(rows))]).to(device),
        bands=tuple(Band(band_name(first), "fixed", first, last) for first, last in bins),
        kinds=KINDS,
        pairs=pairs.contiguous().to(device),
        tags=None if tags is None else tags.float().to(device),
        least_kept=least_kept,
    )


KINDS = (*PAIRS, *(f"offset {offset}" for offset in range(OFFSETS)))


def _pairs_of(
    ids: Sequence[int], fixed: tuple[int, int] | None, relations: Mapping[str, Sequence[tuple[int, int]]]
) -> list[tuple[int, int, int]]:
    chosen = {
        "self": [(query, query) for query in range(1, len(ids))],
        "previous token": [(query, query - 1) for query in range(1, len(ids))],
        "duplicate token": pairs_with_same_token(ids),
        "induction": pairs_after_same_token(ids),
    } | {kind: list(pairs) for kind, pairs in relations.items()}
    if fixed is not None:
        for offset in range(OFFSETS):
            chosen[f"offset {offset}"] = [(q, q - offset) for q in range(*fixed) if q >= offset]
    return [(query, key, KINDS.index(kind)) for kind, pairs in chosen.items() for query, key in pairs]


def _totals(pairs: Tensor, text: int, tokens: int, fixed: tuple[int, int] | None) -> Tensor:
    """Weight of each query in each total [total token]."""
    position = torch.arange(tokens).float()
    every = (position > 0).float()
    at_fixed = torch.zeros(tokens)
    if fixed is not None:
        at_fixed[fixed[0] : fixed[1]] = 1
    return torch.stack(
        [
            every,
            every * position,
            at_fixed,
            at_fixed * position,
            *(_with(pairs, text, tokens, kind) for kind in ("duplicate token", "induction")),
        ]
    )


def _with(pairs: Tensor, text: int, tokens: int, kind: str) -> Tensor:
    """1 at queries that have a pair of a kind."""
    here = (pairs[0] == text) & (pairs[3] == KINDS.index(kind))
    having = torch.zeros(tokens)
    having[pairs[1, here]] = 1
    return having
