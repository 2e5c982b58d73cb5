"""Differences of activations times gradients: what exchanging each would change, to first order."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.models.attention import attend
from layerscope.runs._tape import RECOMPUTED, Tape
from layerscope.runs.edits import IN_ATTENTION
from layerscope.runs.recordings import Recording


class Contraction:
    """Differences times gradients, summed as the backward passes come in.

    Attributes:
        plain: estimates by the whole gradient.
        sums: sums of absolute estimates over the stopped blocks, for sites whose pattern is not computed anew.
    """

    def __init__(self, tape: Tape, other: Recording) -> None:
        self.tape, self.other = tape, other
        self.rows = max(tape.run.rows, other.run.rows)
        self.plain: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self._of_patterns: dict[int, list[Tensor]] = {layer: [] for layer in tape.calls}

    def add(self, gradients: dict[tuple[str, int], Tensor], blocked: int | None) -> None:
        """Take the gradients of one backward pass."""
        for site in self.tape.sites:
            if blocked is not None and site in RECOMPUTED:
                continue
            layers = sorted(layer for name, layer in self.tape.kept if name == site)
            estimates = torch.stack([self._estimate(site, layer, gradients) for layer in layers], dim=1)
            if blocked is None:
                self.plain[site] = estimates
            else:
                self.sums[site] = self.sums.get(site, 0) + estimates.abs()
        if set(RECOMPUTED) & set(self.tape.sites):
            for layer, parts in self._of_patterns.items():
                parts.append(self._of_pattern(layer, gradients["head_out", layer]))

    def recomputed(self) -> dict[str, Tensor]:
        """Estimates with the pattern computed anew, of all backward passes [pass row layer token head]."""
        changes = {"q": self._queries, "k": self._keys}
        return {
            site: torch.stack([changes[site](layer) for layer in sorted(self._of_patterns)], dim=2)
            for site in RECOMPUTED
            if site in self.tape.sites
        }

    def _estimate(self, site: str, layer: int, gradients: dict[tuple[str, int], Tensor]) -> Tensor:
        """[row token], or [row token head]."""
        factor = self.tape.factors.get((site, layer), 1.0)
        ours, gradient = self.tape.kept[site, layer].detach(), gradients[site, layer]
        wide = torch.promote_types(ours.dtype, torch.float32)
        theirs = self.other.values(site, layer).to(ours.device, wide)
        # Some modules see their tokens as one flat row.
        shape = (self.tape.run.rows, *theirs.shape[1:])
        ours, gradient = ours.to(wide).reshape(shape) * factor, gradient.to(wide).reshape(shape) / factor
        estimate = ((theirs - ours) * gradient).sum(-1).float()
        return (estimate.transpose(1, 2) if site in IN_ATTENTION else estimate).cpu()

    def _of_pattern(self, layer: int, gradient: Tensor) -> Tensor:
        """What one more share of a key's value in a head's output would change [row head query key]."""
        v = self.tape.calls[layer].v.float()
        rows, heads, tokens, width = gradient.shape
        grouped = gradient.float().reshape(rows, v.shape[1], -1, tokens, width)
        return torch.matmul(grouped, v[:, :, None].transpose(-1, -2)).reshape(rows, heads, tokens, -1)

    def _queries(self, layer: int) -> Tensor:
        change = self._pattern(layer, q=self._theirs("q", layer)) - self.tape.patterns[layer]
        effects = torch.einsum("rhts,prhts->prth", change, self._all_passes(layer))
        return effects.cpu()

    def _keys(self, layer: int) -> Tensor:
        ours, theirs = self.tape.calls[layer].k, self._theirs("k", layer)
        of_patterns, effects = self._all_passes(layer), []
        for token in range(ours.shape[2]):
            k = ours.expand(self.rows, *ours.shape[1:]).clone()
            k[:, :, token] = theirs[:, :, token]
            change = self._pattern(layer, k=k) - self.tape.patterns[layer]
            of_heads = torch.einsum("rhts,prhts->prh", change, of_patterns)
            effects.append(of_heads.reshape(*of_heads.shape[:2], k.shape[1], -1).sum(-1))
        return torch.stack(effects, dim=2).cpu()

    def _theirs(self, site: str, layer: int) -> Tensor:
        return self.other.values(site, layer).to(self.tape.calls[layer].q)

    @torch.no_grad()
    def _pattern(self, layer: int, **exchanged: Tensor) -> Tensor:
        """The model's own attention pattern with other queries or keys [row head query key]."""
        call = self.tape.calls[layer]
        sites = {site: exchanged.get(site, getattr(call, site)) for site in ("q", "k", "v")}
        sites = {site: x.expand(self.rows, *x.shape[1:]) for site, x in sites.items()}
        return attend(replace(call, **sites)).pattern

    def _all_passes(self, layer: int) -> Float[Tensor, "pass row head query key"]:
        passes = torch.stack(self._of_patterns[layer])
        return passes.expand(-1, self.rows, *passes.shape[2:])
