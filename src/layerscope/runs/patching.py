"""Patched runs by the fastest path that is exact on the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.models.memory import within_memory
from layerscope.runs.branch_check import check_branches_of
from layerscope.runs.branches import run_branches
from layerscope.runs.edits import Branch, Cut, check_edits
from layerscope.runs.plain import run_plainly
from layerscope.runs.predictions import Predictions, Read
from layerscope.runs.recordings import BaseRun, Recording, record

BASE_FOR_BRANCHES = ("k", "v", "calls")
RECORDING_BYTES = 2**30
"""Bound on what one recording of a base run holds; more rows are taken in turns."""


def run_patched(
    model: LayeredModel,
    branches: Sequence[Branch],
    *,
    base: BaseRun | Recording,
    other: BaseRun | Recording | None = None,
    read: Read,
    read_last: int = 1,
    tokens_per_pass: int = 2048,
    mean_values: Sequence[Tensor] | None = None,
    plain: bool = False,
) -> Tensor:
    """What is read from every branch.

    Args:
        model: the model.
        branches: the runs wanted.
        base: the run that they leave; a recording by `record_base`, or its beginning, where many calls share it.
        other: the run that activations are taken from; a recording where they are at hand already, or never
            were any run's own.
        read: reduces predictions [run read] of the runs with the given indices (`runs.Predictions`): what it
            asks of them is taken from blocks of the vocabulary, and whole logits are there for those who want them.
        read_last: how many of the last positions are read.
        tokens_per_pass: bound on the tokens of one pass through a block. Where the device's memory does not
            hold so many, it is halved until it does, and that is kept in `model.halvings`.
        mean_values: for cuts with lost="mean": of each block, a mean value for every query head.
        plain: take whole forward passes, whatever the model allows.

    Returns:
        One row for each branch, in their order, on the CPU.

    Raises:
        LayerscopeError: an edit that this model does not allow, or that lies outside of it.
    """
    base_run, other_run = _run_of(base), None if other is None else _run_of(other)
    other_rows = 0 if other_run is None else other_run.rows
    check_edits(model, branches, tokens=base_run.tokens, rows=base_run.rows, other_rows=other_rows)
    if not branches:
        return torch.empty(0)
    check_branches_of(model, base_run.tokens)
    plain = plain or "branches" in model.refused
    left, taken = _sources(model, branches, base, other, plain)
    pieces: list[tuple[Sequence[int], Tensor]] = []
    for indices in _by_rows(branches, left, taken):
        here = [branches[index] for index in indices]
        base_recording, here = left.recorded(model, here)
        other_recording = None
        if taken is not None:
            other_recording, here = taken.recorded(model, here)
        values = _run(
            model,
            here,
            plain,
            base=base_recording,
            other=other_recording,
            read=_renamed(read, indices),
            read_last=read_last,
            tokens_per_pass=tokens_per_pass,
            mean_values=mean_values,
        )
        pieces.append((indices, values.cpu()))
    order = torch.tensor([index for indices, _ in pieces for index in indices])
    return torch.cat([values for _, values in pieces])[order.argsort()]


def _sources(
    model: LayeredModel,
    branches: Sequence[Branch],
    base: BaseRun | Recording,
    other: BaseRun | Recording | None,
    plain: bool,
) -> tuple[_Source, _Source | None]:
    """What branches leave, and what they take from where any does."""
    keep_base = _sites(branches, "base") | (set() if plain else set(BASE_FOR_BRANCHES))
    keep_other = _sites(branches, "other")
    at_once = _rows_at_once(model, _run_of(base).tokens, len(keep_base | keep_other))
    left = _Source(base, "row", frozenset(keep_base), at_once)
    if other is None or not _takes(branches, "other"):
        return left, None
    return left, _Source(other, "other_row", frozenset(keep_other), at_once)


def _run_of(source: BaseRun | Recording) -> BaseRun:
    return source.run if isinstance(source, Recording) else source


@dataclass(frozen=True, eq=False)
class _Source:
    """A run that branches leave or take from: recorded some rows at a time, or a recording that is at hand.

    Attributes:
        given: the run or the recording.
        field: what a branch calls its row of it.
        keep: sites to be recorded.
        most_rows: how many rows are recorded together; of a recording at hand, all are there.
    """

    given: BaseRun | Recording
    field: str
    keep: frozenset[str]
    most_rows: int

    @property
    def at_once(self) -> int:
        """How many rows lie in one recording."""
        return self.given.run.rows if isinstance(self.given, Recording) else self.most_rows

    def turn(self, branch: Branch) -> int:
        """Number of the recording in which a branch's row lies."""
        return int(getattr(branch, self.field)) // self.at_once

    def recorded(self, model: LayeredModel, branches: Sequence[Branch]) -> tuple[Recording, list[Branch]]:
        """The recording of branches of one turn, and these branches, counting rows from its first."""
        if isinstance(self.given, Recording):
            return self.given, list(branches)
        part, counted = _narrow(self.given, branches, self.field, self.at_once)
        return record(model, part, keep=self.keep), counted


def record_base(model: LayeredModel, run: BaseRun) -> Recording:
    """A base run as `run_patched` needs it, where its branches put nothing of the base run's own in."""
    check_branches_of(model, run.tokens)
    return record(model, run, keep=() if "branches" in model.refused else BASE_FOR_BRANCHES)


def _renamed(read: Read, indices: Sequence[int]) -> Read:
    def reading(said: Predictions, part: Sequence[int]) -> Tensor:
        return read(said, [indices[place] for place in part])

    return reading


def _run(
    model: LayeredModel,
    branches: Sequence[Branch],
    plain: bool,
    *,
    base: Recording,
    other: Recording | None,
    read: Read,
    read_last: int,
    tokens_per_pass: int,
    mean_values: Sequence[Tensor] | None,
) -> Tensor:
    path = run_plainly if plain else run_branches

    def attempt(tokens: int) -> Tensor:
        return path(
            model,
            branches,
            base=base,
            other=other,
            read=read,
            read_last=read_last,
            tokens_per_pass=tokens,
            mean_values=mean_values,
        )

    return within_memory(model, attempt, tokens_per_pass, least=base.run.tokens)


def _sites(branches: Sequence[Branch], source: str) -> set[str]:
    return _takes(branches, source) - {"state"}


def _takes(branches: Sequence[Branch], source: str) -> set[str]:
    """Sites that some branch takes from this run."""
    edits = {edit for branch in branches for edit in branch.edits}
    return {edit.site for edit in edits if not isinstance(edit, Cut) and edit.source == source}


def _rows_at_once(model: LayeredModel, tokens: int, sites: int) -> int:
    facts = model.facts
    one_row = (facts.n_layers + 1) * tokens * facts.width * (1 + sites) * 4
    return max(1, RECORDING_BYTES // one_row)


def _by_rows(branches: Sequence[Branch], left: _Source, taken: _Source | None) -> list[list[int]]:
    """Indices of branches, together where their rows are recorded together."""

    def turn(index: int) -> tuple[int, int]:
        branch = branches[index]
        return left.turn(branch), 0 if taken is None else taken.turn(branch)

    return [list(part) for _, part in groupby(sorted(range(len(branches)), key=turn), key=turn)]


def _narrow(
    run: BaseRun, branches: Sequence[Branch], field: str, at_once: int
) -> tuple[BaseRun, list[Branch]]:
    """A run with only the rows that these branches need, and the branches counting from its first."""
    first = getattr(branches[0], field) // at_once * at_once
    if run.rows <= at_once:
        return run, list(branches)
    part = run.part(first, first + at_once)
    return part, [replace(branch, **{field: getattr(branch, field) - first}) for branch in branches]
