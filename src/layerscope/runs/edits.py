"""What can be changed in a run: activations put in from another run, and attention edges cut.

A branch is a run that leaves a base run by some edits. The plain path and the branches compute the
same branches; nothing here computes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel

PutSite = Literal["state", "attn_out", "mlp_out", "head_out", "q", "k", "v"]
LostMass = Literal["renormalise", "first", "mean"]
ADDITIONS = ("attn_out", "mlp_out")
IN_ATTENTION = ("head_out", "q", "k", "v")
SEEN_BY_LATER_TOKENS = ("state", "k", "v")
"""Sites that other tokens read in the same block."""


@dataclass(frozen=True, slots=True)
class Put:
    """Another run's activations in the place of this run's own.

    Attributes:
        site: "state" (the residual stream), "attn_out" and "mlp_out" (vectors added to it), or, as they
            stand in the attention function, "q", "k", "v" and "head_out".
        layers: blocks; for "state", depths 0 .. n_layers.
        tokens: positions.
        source: "other" takes them from the branch's row of the other run; "base" keeps them as they are
            in the base run (frozen, the severed variants).
        heads: which heads of q and head_out, or key-value heads of k and v; None means all.
    """

    site: PutSite
    layers: tuple[int, ...]
    tokens: tuple[int, ...]
    source: Literal["other", "base"] = "other"
    heads: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Attention edges that carry nothing.

    Attributes:
        layers: blocks.
        queries: tokens that must not read ...
        keys: ... these tokens.
        heads: which heads; None means all.
        lost: where the attention goes that lay on the cut edges: spread over the other keys in proportion
            ("renormalise"), to the first token ("first"), or nowhere, with the head's mean value in the place
            of the values cut off ("mean").
    """

    layers: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    lost: LostMass = "renormalise"


Edit = Put | Cut


@dataclass(frozen=True, slots=True)
class Branch:
    """One run that leaves the base run.

    Attributes:
        edits: what is changed; without any, the base run itself.
        row: the row of the base run that it leaves.
        other_row: the row of the other run that activations come from.
    """

    edits: tuple[Edit, ...]
    row: int = 0
    other_row: int = 0

    def joins(self, n_layers: int) -> int:
        """The first block that computes something else than in the base run; n_layers where none does."""
        return min((layer for edit in self.edits for layer in edit.layers), default=n_layers)

    def starts(self, tokens: int) -> int:
        """The first position that differs from the base run; the last one where none does."""
        return min((position for edit in self.edits for position in changed_tokens(edit)), default=tokens - 1)


def changed_tokens(edit: Edit) -> tuple[int, ...]:
    """The tokens whose own computation an edit changes."""
    return edit.tokens if isinstance(edit, Put) else edit.queries


def check_edits(
    model: LayeredModel, branches: Sequence[Branch], *, tokens: int, rows: int, other_rows: int
) -> None:
    """Refuse what this model does not allow, and what lies outside of it.

    Raises:
        LayerscopeError: a site that the load check refused; a layer, token, head or row that is not there;
            a token that would be left with nothing to read.
    """
    for needed in sorted(_sites(branches)):
        model.need(needed)
    for branch in branches:
        _check_range("row of the base run", (branch.row,), rows)
        if any(isinstance(edit, Put) and edit.source == "other" for edit in branch.edits):
            _check_range("row of the other run", (branch.other_row,), other_rows)
    for edit in dict.fromkeys(edit for branch in branches for edit in branch.edits):
        _check_edit(model, edit, tokens)


def _sites(branches: Sequence[Branch]) -> set[str]:
    edits = {edit for branch in branches for edit in branch.edits}
    return {
        "pattern" if isinstance(edit, Cut) else edit.site
        for edit in edits
        if isinstance(edit, Cut) or edit.site != "state"
    }


def _check_edit(model: LayeredModel, edit: Edit, tokens: int) -> None:
    depths = isinstance(edit, Put) and edit.site == "state"
    _check_range("depth" if depths else "layer", edit.layers, model.n_layers + depths)
    _check_range("token", changed_tokens(edit), tokens)
    if not edit.layers or not changed_tokens(edit):
        raise LayerscopeError(
            "an edit that changes nothing",
            found=edit,
            expected="at least one layer and one token",
            hint="a branch without edits is the base run",
        )
    if isinstance(edit, Put):
        if edit.site in (*ADDITIONS, "state") and edit.heads is not None:
            raise LayerscopeError(
                f"{edit.site} has no heads",
                found=f"heads {edit.heads}",
                expected="heads only with q, k, v and head_out",
                hint="site='head_out' edits single heads",
            )
        return
    _check_range("key", edit.keys, tokens)
    for query in edit.queries:
        if edit.lost != "mean" and set(edit.keys) >= set(range(query + 1)):
            raise LayerscopeError(
                "a token would be left with nothing to read",
                found=f"all keys of token {query} cut",
                expected="at least one key that remains",
                hint="lost='mean' puts the mean value in the place of what is cut off",
            )
        if edit.lost == "first" and 0 in edit.keys:
            raise LayerscopeError(
                "the first token cannot take what is cut from itself",
                found="key 0 among the cut keys, with lost='first'",
                expected="cut keys other than the first token",
                hint="lost='renormalise' or lost='mean'",
            )


def _check_range(what: str, values: Sequence[int], size: int) -> None:
    outside = [value for value in values if not 0 <= value < size]
    if outside:
        raise LayerscopeError(
            f"no such {what}",
            found=outside[0],
            expected=f"0 to {size - 1}",
            hint="layers, depths and tokens count from zero",
        )


def puts(branches: Sequence[Branch], *sites: str) -> Iterator[tuple[int, Put]]:
    """Index of the branch and edit, for every edit that puts in one of these sites."""
    for index, branch in enumerate(branches):
        for edit in branch.edits:
            if isinstance(edit, Put) and edit.site in sites:
                yield index, edit


def cuts(branches: Sequence[Branch]) -> Iterator[tuple[int, Cut]]:
    """Index of the branch and edit, for every edge cut."""
    for index, branch in enumerate(branches):
        for edit in branch.edits:
            if isinstance(edit, Cut):
                yield index, edit
