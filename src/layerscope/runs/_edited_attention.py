"""Attention of runs that differ from a base run only from some position on.

Queries, keys and values of the positions before that one are the base run's, so they are read from its
recording and shared by all runs that leave the same row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from layerscope.models.attention import AttentionCall, by_group


@dataclass
class HeadEdits:
    """What is changed inside one block's attention, in the runs of one group.

    Attributes:
        puts: by site, places and values: run, head and position (from the group's first one on) as index
            tensors, and values [place head_width].
        cuts: by what happens to the lost share: cut edges [run head query key], with one head where all
            heads are cut alike.
        mean_values: a value for each query head [head head_width], where lost shares fall on it.
    """

    puts: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=dict)
    cuts: dict[str, Tensor] = field(default_factory=dict)
    mean_values: Tensor | None = None


NOTHING = HeadEdits()


@dataclass
class Prefix:
    """The base run's keys and values before a group's first position.

    Attributes:
        k, v: [base_row kv_head position head_width]
        rows: the base row of each run of the group.
    """

    k: Tensor
    v: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        cycle = _cycle(self.rows)
        if not torch.equal(self.rows[:cycle], torch.arange(len(self.k))):
            self.k, self.v = self.k[self.rows[:cycle]], self.v[self.rows[:cycle]]
        self._turns = len(self.rows) // cycle

    def times_keys(self, call: AttentionCall, q: Tensor) -> Tensor:
        """Scores of queries [run kv_head heads_of_group query head_width] on the prefix."""
        scores = call.scores(self._gathered(q), self.k)
        return self._spread(scores, q.shape[:4])

    def average(self, pattern: Tensor) -> Tensor:
        """The prefix's values, averaged by shares [run kv_head heads_of_group query position]."""
        return self._spread(torch.matmul(self._gathered(pattern), self.v), pattern.shape[:4])

    def _gathered(self, x: Tensor) -> Tensor:
        """All runs of one base row side by side: one large product in the place of many small ones."""
        runs, groups, heads, queries, width = x.shape
        x = x.reshape(self._turns, runs // self._turns, groups, heads, queries, width)
        return x.permute(1, 2, 0, 3, 4, 5).reshape(runs // self._turns, groups, -1, width)

    def _spread(self, x: Tensor, shape: torch.Size) -> Tensor:
        runs, groups, heads, queries = shape
        x = x.reshape(runs // self._turns, groups, self._turns, heads, queries, -1)
        return x.permute(2, 0, 1, 3, 4, 5).reshape(runs, groups, heads, queries, -1)


def _cycle(rows: Tensor) -> int:
    """Length of the shortest sequence of rows that is repeated again and again, or all of them."""
    again = (rows == rows[0]).nonzero()[1:2, 0]
    cycle = int(again) if len(again) else len(rows)
    if len(rows) % cycle == 0 and bool((rows.reshape(-1, cycle) == rows[:cycle]).all()):
        return cycle
    return len(rows)


def attend_from(
    call: AttentionCall,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    prefix: Prefix | None,
    mask: Tensor | None,
    edits: HeadEdits = NOTHING,
) -> Tensor:
    """Head outputs of runs over their own positions and the base run's before them.

    Args:
        call: scale, soft cap and sinks of the block.
        q: [run head query head_width], queries of the last positions.
        k, v: [run kv_head position head_width], from the group's first position on.
        prefix: what stands before.
        mask: added to the scores [run or 1, head or 1, query, key], over prefix and own positions.
        edits: what is changed here.

    Returns:
        [run head query head_width]
    """
    q, k, v = _put(q, "q", edits, k.shape[2]), _put(k, "k", edits), _put(v, "v", edits)
    runs, heads, queries, width = q.shape
    groups = k.shape[1]
    grouped = q.reshape(runs, groups, heads // groups, queries, width)
    scores = call.scores(grouped.reshape(runs, groups, -1, width), k).reshape(*grouped.shape[:4], -1)
    if prefix is not None:
        scores = torch.cat([prefix.times_keys(call, grouped), scores], dim=-1)
    if mask is not None:
        scores = scores + by_group(mask, groups)
    if "renormalise" in edits.cuts:
        cut = by_group(edits.cuts["renormalise"], groups)
        scores = scores.masked_fill(cut, -torch.inf)
    pattern, _sink = call.shares(scores)
    pattern, lost = _move_shares(pattern, edits, groups)
    pattern = pattern.to(v.dtype)
    before = 0 if prefix is None else prefix.k.shape[2]
    own = pattern[..., before:].reshape(runs, groups, -1, k.shape[2])
    head_out = torch.matmul(own, v).reshape(*grouped.shape)
    if prefix is not None:
        head_out = head_out + prefix.average(pattern[..., :before])
    head_out = head_out.reshape(runs, heads, queries, width)
    if lost is not None and edits.mean_values is not None:
        head_out = head_out + lost.reshape(runs, heads, queries, 1).to(v.dtype) * edits.mean_values[:, None]
    return _put(head_out, "head_out", edits, k.shape[2])


def _put(x: Tensor, site: str, edits: HeadEdits, positions: int | None = None) -> Tensor:
    if site not in edits.puts:
        return x
    runs, heads, places, values = edits.puts[site]
    # Queries are those of the last positions only.
    places = places - (0 if positions is None else positions - x.shape[2])
    kept = places >= 0
    x = x.clone()
    x[runs[kept], heads[kept], places[kept]] = values[kept].to(x)
    return x


def _move_shares(pattern: Tensor, edits: HeadEdits, groups: int) -> tuple[Tensor, Tensor | None]:
    lost = None
    for kind in ("first", "mean"):
        if kind not in edits.cuts:
            continue
        cut = by_group(edits.cuts[kind], groups)
        share = (pattern * cut).sum(-1)
        pattern = pattern.masked_fill(cut, 0)
        if kind == "first":
            pattern[..., 0] += share
        else:
            lost = share
    return pattern, lost
