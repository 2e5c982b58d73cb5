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
from layerscope.maths.frozen_norm import scaled_by_gain
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
        together: ids of the tokens with the longest projection onto each subspace, whatever basis its
            directions are.
        lengths: of those projections.
    """

    tokens: Int[Tensor, "direction sign place"]
    scores: Float[Tensor, "direction sign place"]
    largest: Float[Tensor, "direction"]
    smallest: Float[Tensor, "direction"]
    together: Int[Tensor, "subspace place"]
    lengths: Float[Tensor, "subspace place"]


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


def from_tokens(
    vectors: Float[Tensor, "direction entry"], rows: TokenRows, *, fold: bool
) -> Float[Tensor, "direction width"]:
    """Directions of the stream that meet tokens as these vectors do: back through what `towards_tokens` goes through.

    Where the way there loses dimensions, the part that it keeps.
    """
    if rows.into is not None:
        vectors = vectors @ torch.linalg.pinv(rows.into.to(vectors))
    if fold and rows.norm is not None:
        gain = rows.norm.gain.to(vectors)
        vectors = torch.where(gain.abs() > 1e-6, vectors / gain, torch.zeros_like(vectors))
    return vectors


def towards_tokens(
    directions: Float[Tensor, "*direction width"], rows: TokenRows, *, fold: bool
) -> Float[Tensor, "*direction entry"]:
    """Directions as tokens meet them: through the final norm's gain where that is folded in, and any projection."""
    if fold and rows.norm is not None:
        directions = scaled_by_gain(directions, rows.norm.gain.to(directions), centres=rows.norm.centres)
    return directions if rows.into is None else directions @ rows.into.to(directions)


@torch.no_grad()
def strongest_tokens(
    directions: Float[Tensor, "direction entry"],
    rows: Tensor,
    *,
    allowed: Bool[Tensor, "token"],
    top: int,
    megabytes: float,
    groups: Int[Tensor, "direction"] | None = None,
    centre: Float[Tensor, "entry"] | None = None,
) -> Strongest:
    """The tokens with the largest and the smallest product (or cosine) with each direction.

    Args:
        directions: as tokens meet them; any number.
        rows: a vector for each token, in any floating type.
        allowed: which tokens count; the others are passed over. At least `top`.
        top: how many are kept at each end.
        megabytes: memory for pieces of rows and of scores, beside the weights themselves.
        groups: the subspace that each direction belongs to, from 0, or -1; directions of one subspace are
            orthonormal. Without it there are no subspaces.
        centre: where it is given, tokens are taken less this vector and at length 1, so that products with
            directions of length 1 are cosines.

    Raises:
        LayerscopeError: that memory does not hold even one direction's scores of a handful of tokens.
    """
    if groups is None:
        groups = torch.full((len(directions),), -1)
    allowed = allowed.to(rows.device)
    directions, groups = directions.to(rows.device).float(), groups.to(rows.device)
    number = int(groups.max()) + 1 if len(groups) else 0
    batch, piece = _pieces(len(directions), number, rows, top, megabytes)
    ends = [_Kept(len(directions), top, rows.device, largest=largest) for largest in (True, False)]
    spans = _Kept(number, top, rows.device)
    total, squares = torch.zeros(2, len(directions), dtype=torch.float64, device=rows.device)
    for first in range(0, len(rows) if len(directions) else 0, piece):
        part = _part(rows[first : first + piece].float(), centre).T
        passed_over = (~allowed[first : first + piece]).nonzero()[:, 0]
        lengths = part.new_zeros(number, part.shape[1])
        for start in range(0, len(directions), batch):
            at = slice(start, start + batch)
            scores = (directions[at] @ part).index_fill_(1, passed_over, 0.0)
            total[at] += scores.sum(1).double()
            squares[at] += torch.linalg.vector_norm(scores, dim=1).double().square()
            theirs = groups[at] >= 0
            if theirs.any():
                lengths.index_add_(0, groups[at][theirs], scores[theirs].square_())
            for end in ends:
                end.take(at, scores, passed_over, first)
        spans.take(slice(None), lengths.sqrt_(), passed_over, first)
    number_of_tokens = max(1, int(allowed.sum()))
    mean = total / number_of_tokens
    spread = (squares / number_of_tokens - mean.square()).clamp_min(1e-30).sqrt()
    raw = torch.stack([end.values for end in ends], dim=1)
    standard = ((raw.double() - mean[:, None, None]) / spread[:, None, None]).float()
    found = (torch.stack([end.ids for end in ends], dim=1), standard, raw[:, 0, 0], raw[:, 1, 0])
    return Strongest(*(one.cpu() for one in (*found, spans.ids, spans.values)))


def _part(rows: Tensor, centre: Tensor | None) -> Tensor:
    if centre is None:
        return rows
    return torch.nn.functional.normalize(rows - centre.to(rows), dim=-1)


def _pieces(directions: int, subspaces: int, rows: Tensor, top: int, megabytes: float) -> tuple[int, int]:
    """How many directions and how many tokens are scored at a time."""
    budget = megabytes * 1e6 / _BYTES
    for batch in (_AT_ONCE, 64, 8, 1):
        # Rows in float32 and their scores twice, and once more where sorted, for each token of a piece.
        piece = int(budget // (rows.shape[1] + 3 * batch + subspaces))
        if piece >= max(4 * top, 64) or piece >= len(rows):
            return min(batch, max(1, directions)), min(piece, len(rows))
    raise LayerscopeError(
        "the vocabulary cannot be scored in so little memory",
        found=f"{megabytes:g} MB for {len(rows):,} tokens of {rows.shape[1]} entries, {top} kept",
        expected=f"at least {max(4 * top, 64) * (rows.shape[1] + 3 + subspaces) * _BYTES / 1e6:.2g} MB",
        hint="--set megabytes=256",
    )


class _Kept:
    """The largest (or smallest) values of each row so far, and the tokens they belong to."""

    def __init__(self, number: int, top: int, device: torch.device, *, largest: bool = True) -> None:
        self.largest, self.nothing = largest, -torch.inf if largest else torch.inf
        self.values = torch.full((number, top), self.nothing, device=device)
        self.ids = torch.zeros((number, top), dtype=torch.long, device=device)

    def take(self, at: slice, scores: Tensor, passed_over: Tensor, first: int) -> None:
        """Take a piece's best among the best so far, in place; of equals the first stays.

        Args:
            at: which rows.
            scores: of these rows, of the tokens from `first` on; overwritten where tokens are passed over.
            passed_over: tokens of the piece that do not count.
            first: the piece's first token.
        """
        scores.index_fill_(1, passed_over, self.nothing)
        top = self.values.shape[1]
        values, places = scores.topk(min(top, scores.shape[1]), dim=1, largest=self.largest)
        both = torch.cat([self.values[at], values], dim=1)
        order = both.argsort(dim=1, descending=self.largest, stable=True)[:, :top]
        merged = torch.cat([self.ids[at], places + first], dim=1)
        self.values[at], self.ids[at] = both.gather(1, order), merged.gather(1, order)
