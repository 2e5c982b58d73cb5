"""What is asked of logits that go by in blocks of the vocabulary, and the distributions that they are compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.maths.arrays import at_least, count
from layerscope.maths.distributions import Distribution, Normaliser, distribution, joined, normaliser
from layerscope.models.layered import LayeredModel
from layerscope.models.wide_linear import is_plain_linear

_MOST_PROBABLE = 8


class Reference:
    """Distributions that predictions are compared with.

    Where logits are linear in normed states h, and no coarser than float32, Σ p z is Σ w z over the most probable
    tokens, the first of which stands for all others, plus (Σ p (W − W of the first) over the others) · h. So what
    rounding does to the logits that matter is the same in Σ p z as in the log-sum-exp, and cancels.

    Attributes:
        own: probabilities and negative entropy of each.
        tokens: the most probable tokens [row place]; None where Σ p z is summed over blocks.
        weights: theirs, w [row place].
        rest: what the others add, for each entry of h [row width].
        offset: what their biases add [row].
    """

    @torch.no_grad()
    def __init__(self, model: LayeredModel, logits: Float[Tensor, "row vocabulary"]) -> None:
        """Of these logits."""
        self.own: Distribution = distribution(logits.to(model.device))
        self.tokens: Tensor | None = None
        head = model.structure.after[-1]
        capped = any(kind == "soft cap" for kind, _ in model.structure.logit_map)
        if "unembed" not in model.refused and is_plain_linear(head) and not capped:
            assert isinstance(head, nn.Linear)
            if head.weight.dtype in (torch.float32, torch.float64):
                self._of_others(head)

    def _of_others(self, head: nn.Linear) -> None:
        p = self.own.probabilities.to(head.weight)
        top = p.topk(min(_MOST_PROBABLE, p.shape[-1]), dim=-1)
        self.tokens, self.weights, first = top.indices, top.values, top.indices[:, 0]
        others = p.scatter(1, self.tokens, 0.0)
        mass = others.sum(-1)
        self.weights[:, 0] += mass
        self.rest = others @ head.weight - mass[:, None] * head.weight[first]
        self.offset = (
            torch.zeros_like(mass) if head.bias is None else others @ head.bias - mass * head.bias[first]
        )


class Seen:
    """What is kept of the blocks that have gone by.

    Args:
        tokens: ids whose logits are wanted [row token].
        top: whether the most probable token is wanted.
        against: distributions whose Σ p z is wanted, block by block.
        rows_of: which of them belongs to each row.
        own: the logit of each row's first token, where its rank is wanted [row one].
        overwrite: whether blocks may be used up.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        top: bool,
        against: Reference | None,
        rows_of: Tensor | None,
        own: Tensor | None,
        overwrite: bool,
    ) -> None:
        self._tokens, self._want_top, self._against, self._rows_of = tokens, top, against, rows_of
        self._own, self._overwrite = own, overwrite
        self._as_high = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        self._parts: list[tuple[slice, list[tuple[Tensor, Tensor]]]] = []
        self._logits = torch.full(tokens.shape, torch.nan, device=tokens.device)
        self._crossed: list[Tensor] = []
        self._best: list[tuple[Tensor, Tensor]] = []

    def take(self, rows: slice, first: int, logits: Tensor) -> None:
        """Take what is asked for from the logits of some rows and the tokens from `first` on."""
        new = first == 0
        if new:
            self._parts.append((rows, []))
        part = normaliser(logits)
        self._parts[-1][1].append((part.highest, part.excess))
        self._pick(rows, first, logits)
        if self._want_top:
            ids = logits.argmax(-1) + first
            if new:
                self._best.append((part.highest, ids))
            else:
                highest, best = self._best[-1]
                more = part.highest > highest  # of equals the first stays
                self._best[-1] = torch.where(more, part.highest, highest), torch.where(more, ids, best)
        if self._against is not None and self._rows_of is not None:
            share = self._against.own.probabilities[:, first : first + logits.shape[1]]
            crossed = (share[self._rows_of.to(share.device)[rows]] * logits).sum(-1)
            self._crossed = (
                [*self._crossed, crossed] if new else [*self._crossed[:-1], self._crossed[-1] + crossed]
            )

        if self._own is not None:
            # Last, since it uses the logits up.
            self._as_high[rows] += count(at_least(logits, self._own[rows], overwrite=self._overwrite))

    def _pick(self, rows: slice, first: int, logits: Tensor) -> None:
        if not self._tokens.shape[1]:
            return
        place = self._tokens[rows] - first
        here = (place >= 0) & (place < logits.shape[1])
        if bool(here.any()):
            found = logits.gather(1, place.clamp(0, logits.shape[1] - 1))
            kept = self._logits.clone() if logits.requires_grad else self._logits
            kept[rows] = torch.where(here, found, kept[rows])
            self._logits = kept

    def normaliser(self) -> Normaliser:
        """Of all rows, over the whole vocabulary."""
        found = [
            joined(*(torch.stack(column, -1) for column in zip(*parts, strict=True)))
            for _, parts in self._parts
        ]
        return Normaliser(
            *(torch.cat([getattr(one, name) for one in found]) for name in ("highest", "excess"))
        )

    def logits(self) -> Tensor:
        """Of the tokens asked for."""
        return self._logits

    def tops(self) -> Tensor:
        """The most probable token of every row, where it was asked for."""
        nothing = torch.empty(0, dtype=torch.long)
        return torch.cat([best for _, best in self._best]) if self._best else nothing

    def crossed(self) -> Tensor:
        """Σ p z of every row."""
        return torch.cat(self._crossed)

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Where each row's first token stands, and whether it shares the first place [row].

        Ties count against it, but it is never first with a logit below the highest, nor second with the highest alone.
        """
        assert self._own is not None
        own = self._logits[:, 0]
        others = self._as_high - (own >= self._own[:, 0]).long()
        leads = own >= self.normaliser().highest
        return torch.where(leads, 1, 1 + others.clamp_min(1)), leads & (others > 0)
