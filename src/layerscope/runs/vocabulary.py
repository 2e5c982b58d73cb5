"""Which tokens does a direction of the residual stream point to? Its product with every token, in pieces.

No array of directions times vocabulary is ever held: pieces of the vocabulary are scored one after another
and only the strongest tokens at both ends are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import Norm, as_norm
from layerscope.models.structure import neighbours_of_blocks

Side = Literal["embedding", "unembedding"]
_BYTES = 4
_AT_ONCE = 512
"""Directions that are scored together; more would only take more memory."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """A vector for each token, and the way there from the residual stream.

    Attributes:
        rows: [token entry], the model's own weights, never copied whole.
        into: [width entry], where the stream passes a projection on its way; None where it does not.
        norm: the norm in front of the unembedding; None in front of nothing.
    """

    rows: Tensor
    into: Tensor | None
    norm: Norm | None


@dataclass(frozen=True, eq=False)
class Strongest:
    """The tokens at both ends of directions, strongest first; sign 0 is the positive end.

    Attributes:
        tokens: ids.
        scores: how many standard deviations of all tokens' scores they lie from the mean.
        largest, smallest: the extreme products themselves.
    """

    tokens: Int[Tensor, "direction sign place"]
    scores: Float[Tensor, "direction sign place"]
    largest: Float[Tensor, "direction"]
    smallest: Float[Tensor, "direction"]


def token_rows(model: LayeredModel, side: Side) -> TokenRows:
    """The embedding, by which tokens enter the stream, or the unembedding, by which it becomes logits.

    Raises:
        LayerscopeError: the rows do not fit the stream and no projection between them was found.
    """
    width = model.facts.width
    if side == "embedding":
        rows = model.module.get_input_embeddings().weight.detach()
        candidates = neighbours_of_blocks(model.module, model.structure.blocks_path)
    else:
        rows = model.module.get_output_embeddings().weight.detach()
        candidates = list(model.structure.after)
    norm = None
    if side == "unembedding":
        norm = next(filter(None, (as_norm(module, width) for module in model.structure.after[:1])), None)
    if rows.shape[1] == width:
        return TokenRows(rows, None, norm)
    for module in candidates:
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and sorted(weight.shape) == sorted((width, rows.shape[1])):
            into = weight.detach() if weight.shape[0] == width else weight.detach().T
            return TokenRows(rows, into, norm)
    raise LayerscopeError(
        f"the {side} of {model.facts.name} does not meet its residual stream",
        found=f"rows of {rows.shape[1]} entries beside states of {width}",
        expected="rows as wide as the stream, or one projection between them",
        hint="another model",
    )


def towards_tokens(
    directions: Float[Tensor, "direction width"], rows: TokenRows, *, fold: bool
) -> Float[Tensor, "direction entry"]:
    """Directions as tokens meet them: through the final norm's gain where that is folded in, and any projection."""
    if fold and rows.norm is not None:
        if rows.norm.centres:
            directions = directions - directions.mean(-1, keepdim=True)
        directions = directions * rows.norm.gain.to(directions)
    return directions if rows.into is None else directions @ rows.into.to(directions)


@torch.no_grad()
def strongest_tokens(
    directions: Float[Tensor, "direction entry"],
    rows: Tensor,
    *,
    allowed: Bool[Tensor, "token"],
    top: int,
    megabytes: float,
) -> Strongest:
    """The tokens with the largest and the smallest product with each direction.

    Args:
        directions: as tokens meet them; any number.
        rows: a vector for each token, in any floating type.
        allowed: which tokens count; the others are passed over.
        top: how many are kept at each end.
        megabytes: memory for pieces of rows and of scores, beside the weights themselves.

    Raises:
        LayerscopeError: that memory does not hold even one direction's scores of a handful of tokens.
    """
    allowed = allowed.to(rows.device)
    batch, piece = _pieces(len(directions), rows, top, megabytes)
    parts = [
        _strongest(some.to(rows.device), rows, allowed, top, piece)
        for some in torch.split(directions, max(1, batch))
    ]
    if not parts:
        empty = torch.zeros(0, 2, top)
        return Strongest(empty.long(), empty, torch.zeros(0), torch.zeros(0))
    joined = [
        torch.cat([getattr(part, name) for part in parts]).cpu() for name in Strongest.__dataclass_fields__
    ]
    return Strongest(*joined)


def _pieces(directions: int, rows: Tensor, top: int, megabytes: float) -> tuple[int, int]:
    """How many directions and how many tokens are scored at a time."""
    budget = megabytes * 1e6 / _BYTES
    for batch in (_AT_ONCE, 64, 8, 1):
        # Rows in float32, their scores twice (the sorted ones), for each token of a piece.
        piece = int(budget // (rows.shape[1] + 3 * batch))
        if piece >= max(4 * top, 64) or piece >= len(rows):
            return min(batch, max(1, directions)), min(piece, len(rows))
    raise LayerscopeError(
        "the vocabulary cannot be scored in so little memory",
        found=f"{megabytes:g} MB for {len(rows):,} tokens of {rows.shape[1]} entries, {top} kept",
        expected=f"at least {max(4 * top, 64) * (rows.shape[1] + 3) * _BYTES / 1e6:.2g} MB",
        hint="--set megabytes=256",
    )


def _strongest(directions: Tensor, rows: Tensor, allowed: Tensor, top: int, piece: int) -> Strongest:
    n = len(directions)
    directions = directions.float()
    best = [directions.new_full((n, top), -torch.inf) for _ in range(2)]
    ids = [torch.zeros((n, top), dtype=torch.long, device=rows.device) for _ in range(2)]
    total, squares = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for start in range(0, len(rows), piece):
        there = allowed[start : start + piece]
        scores = directions @ rows[start : start + piece].float().T
        known = scores * there
        total += known.sum(1).double().cpu()
        squares += (
            known.double().square().sum(1).cpu() if piece < 256 else known.square().sum(1).double().cpu()
        )
        for end, sign in enumerate((1.0, -1.0)):
            _merge(best[end], ids[end], (sign * scores).masked_fill(~there, -torch.inf), start)
    number = max(1, int(allowed.sum()))
    mean = total / number
    spread = (squares / number - mean.square()).clamp_min(1e-30).sqrt()
    raw = torch.stack([best[0], -best[1]], dim=1).cpu()
    scores = (raw.double() - mean[:, None, None]) / spread[:, None, None]
    return Strongest(torch.stack(ids, dim=1), scores.float(), raw[:, 0, 0], raw[:, 1, 0])


def _merge(best: Tensor, ids: Tensor, scores: Tensor, start: int) -> None:
    """Take a piece's strongest tokens among the best so far, in place; of equals the first stays."""
    values, places = scores.topk(min(best.shape[1], scores.shape[1]), dim=1)
    both = torch.cat([best, values], dim=1)
    order = both.argsort(dim=1, descending=True, stable=True)[:, : best.shape[1]]
    merged = torch.cat([ids, places + start], dim=1).gather(1, order)
    best.copy_(both.gather(1, order))
    ids.copy_(merged)


@torch.no_grad()
def strongest_in_subspaces(
    directions: Float[Tensor, "direction entry"],
    groups: Int[Tensor, "direction"],
    rows: Tensor,
    *,
    allowed: Bool[Tensor, "token"],
    top: int,
    megabytes: float,
) -> tuple[Int[Tensor, "subspace place"], Float[Tensor, "subspace place"]]:
    """The tokens with the longest projection onto each subspace, whatever basis its directions are.

    Args:
        directions: orthonormal within a group; those of a group lie one after another.
        groups: the subspace of each direction, from 0.
        rows, allowed, top, megabytes: as in `strongest_tokens`.

    Returns:
        Token ids and lengths of their projections, longest first.
    """
    number = int(groups.max()) + 1 if len(groups) else 0
    _, piece = _pieces(len(directions), rows, top, megabytes)
    best = torch.full((number, top), -torch.inf, device=rows.device)
    ids = torch.zeros((number, top), dtype=torch.long, device=rows.device)
    directions, groups = directions.float().to(rows.device), groups.to(rows.device)
    for start in range(0, len(rows) if number else 0, piece):
        lengths = torch.zeros(number, min(piece, len(rows) - start), device=rows.device)
        part = rows[start : start + piece].float().T
        for some, theirs in zip(
            torch.split(directions, _AT_ONCE), torch.split(groups, _AT_ONCE), strict=True
        ):
            lengths.index_add_(0, theirs, (some @ part).square())
        there = allowed.to(rows.device)[start : start + piece]
        _merge(best, ids, lengths.sqrt().masked_fill(~there, -torch.inf), start)
    return ids.cpu(), best.cpu()
