"""How branches are laid out: in groups by first position, in the order in which they join.

All tokens of all branches under way form one long row; an edit finds its place in it by arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from layerscope.runs._edited_attention import HeadEdits
from layerscope.runs.edits import ADDITIONS, IN_ATTENTION, Branch, cuts, puts
from layerscope.runs.recordings import Recording


@dataclass
class Group:
    """Branches that start at one position.

    Attributes:
        start: their first position.
        members: their indices, in the order in which they join.
        joins: the block at which each joins.
        rows: the base row of each.
        states: residual stream of those under way [run token width].
        joined_now: how many of them joined at the present block, last.
        changed_now: edits of states of those (see `places_of_edits`).
    """

    start: int
    members: np.ndarray
    joins: np.ndarray
    rows: Tensor
    states: Tensor
    joined_now: int = 0
    changed_now: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), int))

    @property
    def active(self) -> int:
        """Number of branches under way."""
        return len(self.states)


class Packing:
    """A chunk of branches, and where everything of theirs lies.

    Args:
        branches: the chunk.
        starts: the first position of each.
        base, other: recordings that values come from.
    """

    def __init__(
        self, branches: Sequence[Branch], starts: Sequence[int], base: Recording, other: Recording | None
    ) -> None:
        self.branches, self.base, self.other = branches, base, other
        self.n_layers, self.tokens = len(base.states) - 1, base.run.tokens
        joins = np.array([branch.joins(self.n_layers) for branch in branches])
        self._start = np.array(starts)
        self._group, self._place = np.zeros(len(branches), int), np.zeros(len(branches), int)
        self.groups: list[Group] = []
        width = base.states[0].shape[-1]
        for start in sorted(set(starts)):
            members = np.flatnonzero(self._start == start)
            members = members[np.argsort(joins[members], kind="stable")]
            self._group[members], self._place[members] = len(self.groups), np.arange(len(members))
            rows = torch.tensor([branches[index].row for index in members.tolist()])
            states = base.states[0].new_empty((0, self.tokens - start, width))
            self.groups.append(Group(start, members, joins[members], rows, states))
        self._edits = places_of_edits(branches, base, other)
        self._cuts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._all_cuts = list(cuts(branches))
        for number, (branch, edit) in enumerate(self._all_cuts):
            for layer in edit.layers:
                self._cuts[layer].append((branch, number))

    def join(self, depth: int) -> None:
        """Let the branches that leave the base run at this depth set off, and put states in."""
        edits = self._edits.get(("state", depth))
        for number, group in enumerate(self.groups):
            before = group.active
            until = int(np.searchsorted(group.joins, depth, side="right"))
            new = self.base.states[depth][group.rows[before:until], group.start :]
            here = edits[self._group[edits[:, 0]] == number] if edits is not None else np.zeros((0, 5), int)
            if len(here):
                values = self._values("state", depth, here)
                places, tokens = self._place[here[:, 0]], here[:, 1] - group.start
                late = places >= before
                new[places[late] - before, tokens[late]] = values[torch.from_numpy(late)]
                if not late.all():
                    group.states = group.states.clone()
                    group.states[places[~late], tokens[~late]] = values[torch.from_numpy(~late)]
            if until > before:
                group.states = torch.cat([group.states, new]) if before else new
            group.joined_now = until - before
            group.changed_now = here[self._place[here[:, 0]] >= before] if len(here) else here

    @property
    def _device(self) -> torch.device:
        return self.base.states[0].device

    def like_the_base(
        self, spans: dict[int, tuple[int, int]], keep: int
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Tokens that enter the present block as they did in the base run.

        Args:
            spans: where each group's tokens begin in the row, and how many tokens each branch has there.
            keep: how many last positions of each branch the row holds; 0 for all but those.

        Returns:
            Whether each token of the row must be computed, and for the others the base run's row and
            position.
        """
        needed, rows, positions = [], [], []
        for number, (_, length) in spans.items():
            group = self.groups[number]
            first = self.tokens - length if keep else group.start
            must = np.ones((group.active, length), bool)
            old = group.active - group.joined_now
            must[old:] = False
            changed = group.changed_now
            column = changed[:, 1] - first
            inside = (column >= 0) & (column < length)
            must[self._place[changed[inside, 0]], column[inside]] = True
            needed.append(must.reshape(-1))
            spared = np.argwhere(~must)
            rows.append(group.rows.numpy()[spared[:, 0]])
            positions.append(spared[:, 1] + first)
        return torch.from_numpy(np.concatenate(needed)), np.concatenate(rows), np.concatenate(positions)

    def under_way(self) -> list[tuple[int, Group]]:
        """Groups with branches under way, with their numbers."""
        return [(number, group) for number, group in enumerate(self.groups) if group.active]

    def layers_of(self, site: str) -> list[int]:
        """Blocks in which some branch puts something into a site."""
        return sorted(layer for kind, layer in self._edits if kind == site)

    def added_edits(
        self, site: str, layer: int, spans: dict[int, tuple[int, int]], keep: int
    ) -> tuple[Tensor, Tensor] | None:
        """Places in the long row, and the vectors to be put there, for attn_out or mlp_out; None for none.

        Args:
            site: "attn_out" or "mlp_out".
            layer: the block.
            spans: where each group's tokens begin in the row, and how many tokens each branch has there.
            keep: how many last positions of each branch the row holds at most.
        """
        edits = self._edits[site, layer]
        groups = self._group[edits[:, 0]]
        offsets = np.array([spans.get(number, (0, 0))[0] for number in range(len(self.groups))])
        lengths = np.array([spans.get(number, (0, 0))[1] for number in range(len(self.groups))])
        place = edits[:, 1] - (self.tokens - lengths[groups])
        inside = (place >= 0) & (edits[:, 1] >= self.tokens - keep)
        if not inside.any():
            return None
        flat = offsets[groups] + self._place[edits[:, 0]] * lengths[groups] + place
        values = self._values(site, layer, edits[inside])
        return torch.from_numpy(flat[inside]).to(values.device), values

    def head_edits(
        self, layer: int, number: int, queries: int, heads: int, mean_values: Tensor | None
    ) -> HeadEdits:
        """What is changed inside this block's attention, in one group."""
        found = HeadEdits(mean_values=mean_values)
        group = self.groups[number]
        for site in IN_ATTENTION:
            edits = self._edits.get((site, layer))
            if edits is None:
                continue
            here = edits[self._group[edits[:, 0]] == number]
            if len(here):
                runs, head, token = self._place[here[:, 0]], here[:, 4], here[:, 1] - group.start
                values = self._values(site, layer, here)
                indices = [torch.from_numpy(index).to(values.device) for index in (runs, head, token)]
                found.puts[site] = (indices[0], indices[1], indices[2], values)
        here = [(branch, cut) for branch, cut in self._cuts.get(layer, ()) if self._group[branch] == number]
        alike = all(self._all_cuts[cut][1].heads is None for _, cut in here)
        for branch, cut in here:
            self._add_cut(found, group, branch, cut, queries, 1 if alike else heads)
        return found

    def _add_cut(
        self, found: HeadEdits, group: Group, branch: int, number: int, queries: int, heads: int
    ) -> None:
        cut = self._all_cuts[number][1]
        if cut.lost not in found.cuts:
            found.cuts[cut.lost] = torch.zeros(
                group.active, heads, queries, self.tokens, dtype=torch.bool, device=self._device
            )
        first = self.tokens - queries
        rows = [query - first for query in cut.queries if query >= first]
        of_heads = range(heads) if cut.heads is None else cut.heads
        if rows:
            mark_cut(found.cuts[cut.lost], int(self._place[branch]), of_heads, rows, cut.keys)

    def _values(self, site: str, layer: int, edits: np.ndarray) -> Tensor:
        return values_of_edits(site, layer, edits, self.base, self.other)


def places_of_edits(
    branches: Sequence[Branch], base: Recording, other: Recording | None
) -> dict[tuple[str, int], np.ndarray]:
    """By site and layer: branch, token, whether from the base run, source row and head, of every edit."""
    found: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = defaultdict(list)
    for index, edit in puts(branches, "state", *ADDITIONS, *IN_ATTENTION):
        branch = branches[index]
        of_base = edit.source == "base"
        row = branch.row if of_base else branch.other_row
        source = base if of_base or other is None else other
        for layer in edit.layers:
            places = found[edit.site, layer]
            for head in _heads_of(edit.site, layer, edit.heads, source):
                places.extend((index, token, int(of_base), row, head) for token in edit.tokens)
    return {key: np.array(rows) for key, rows in found.items()}


def _heads_of(site: str, layer: int, heads: tuple[int, ...] | None, source: Recording) -> Sequence[int]:
    if site not in IN_ATTENTION:
        return (0,)
    return range(source.inside[site][layer].shape[1]) if heads is None else heads


def values_of_edits(
    site: str, layer: int, edits: np.ndarray, base: Recording, other: Recording | None
) -> Tensor:
    """The activations that edits put in [edit width]."""
    picked: list[Tensor] = []
    order: list[np.ndarray] = []
    for recording, of_base in ((base, 1), (other, 0)):
        where = np.flatnonzero(edits[:, 2] == of_base)
        if not len(where) or recording is None:
            continue
        rows, tokens, heads = edits[where, 3], edits[where, 1], edits[where, 4]
        values = recording.values(site, layer)
        picked.append(values[rows, tokens] if values.dim() == 3 else values[rows, heads, tokens])
        order.append(where)
    return torch.cat(picked)[torch.from_numpy(np.concatenate(order).argsort())]


def mark_cut(cuts: Tensor, run: int, heads: Sequence[int], rows: Sequence[int], keys: Sequence[int]) -> None:
    """Set one cut's edges in [run head query key]."""
    of_run = cuts[run]
    at = _as_index(keys)
    if len(heads) == of_run.shape[0] and len(rows) == 1:
        of_run[:, rows[0], at] = True
        return
    index = np.ix_(list(heads), list(rows), list(keys))
    of_run[tuple(torch.from_numpy(axis) for axis in index)] = True


def _as_index(keys: Sequence[int]) -> slice | Tensor:
    """A slice where keys follow one another, which is set without gathering."""
    if keys and keys[-1] - keys[0] + 1 == len(keys) and tuple(keys) == tuple(range(keys[0], keys[-1] + 1)):
        return slice(keys[0], keys[-1] + 1)
    return torch.tensor(keys, dtype=torch.long)


def chunks(
    branches: Sequence[Branch], n_layers: int, starts: Sequence[int], tokens: int, most: int
) -> Iterator[list[int]]:
    """Indices of branches, cut into chunks that hold at most so many tokens.

    Branches that join at the same block stand together, so that every chunk is full from its first block
    on; runs that differ in their row alone are kept together, so that they share the base run's keys.
    """
    units: list[list[int]] = []
    for index, branch in enumerate(branches):
        if (
            units
            and branches[units[-1][0]].edits == branch.edits
            and branch.row != branches[units[-1][0]].row
        ):
            units[-1].append(index)
        else:
            units.append([index])
    order = sorted(
        range(len(units)), key=lambda u: (branches[units[u][0]].joins(n_layers), starts[units[u][0]])
    )
    chunk: list[int] = []
    held = 0
    for unit in order:
        for index in units[unit]:
            size = tokens - starts[index]
            if chunk and held + size > most:
                yield chunk
                chunk, held = [], 0
            chunk.append(index)
            held += size
    if chunk:
        yield chunk
