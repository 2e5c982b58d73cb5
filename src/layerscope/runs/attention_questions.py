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
    found = [_pairs_of(row, i, fixed, relations[i] if relations else {}) for i, row in enumerate(rows)]
    pairs = torch.cat(found, dim=1)
    pairs = pairs[:, pairs[1].argsort(stable=True)]
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
    ids: Sequence[int],
    text: int,
    fixed: tuple[int, int] | None,
    relations: Mapping[str, Sequence[tuple[int, int]]],
) -> Tensor:
    """Text, query, key and kind of each pair of one text [4 pair]."""
    later = torch.arange(1, len(ids))
    chosen = {
        "self": torch.stack([later, later]),
        "previous token": torch.stack([later, later - 1]),
        "duplicate token": _listed(pairs_with_same_token(ids)),
        "induction": _listed(pairs_after_same_token(ids)),
    } | {kind: _listed(pairs) for kind, pairs in relations.items()}
    if fixed is not None:
        for offset in range(OFFSETS):
            queries = torch.arange(min(max(fixed[0], offset), fixed[1]), fixed[1])
            chosen[f"offset {offset}"] = torch.stack([queries, queries - offset])
    return torch.cat([_of_kind(kind, text, pairs) for kind, pairs in chosen.items()], dim=1)


def _listed(pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Queries and keys [2 pair]."""
    return torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2).T


def _of_kind(kind: str, text: int, pairs: Tensor) -> Tensor:
    here, which = pairs.new_full(pairs.shape[1:], text), pairs.new_full(pairs.shape[1:], KINDS.index(kind))
    return torch.stack([here, pairs[0], pairs[1], which])


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
