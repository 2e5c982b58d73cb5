"""States and attention at chosen tokens of many texts, as the model runs them or with something changed.

Texts of equal length are run together, never padded. What is changed is either a state, moved by a
vector of its own at one depth, or the output of some heads, replaced by their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.models.attention import Attended, watched
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel


@dataclass(frozen=True)
class UnitRuns:
    """What was read of each text, in the order given.

    Attributes:
        states: residual stream at the places of all texts, one after another [place depth width].
        shares: attention of each text's places to groups of tokens [place layer head group], NaN in
            blocks without attention; None if no groups were given.
        logits: at each text's last token [text vocabulary]; None unless asked for.
    """

    states: Float[Tensor, "place depth width"]
    shares: Float[Tensor, "place layer head group"] | None
    logits: Float[Tensor, "text vocabulary"] | None


def read_units(
    model: LayeredModel,
    texts: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    tokens_per_pass: int,
    groups: Sequence[Float[Tensor, "_ group"]] | None = None,
    moved: tuple[int, Float[Tensor, "text width"]] | None = None,
    means: Mapping[int, Mapping[int, Float[Tensor, "_"]]] | None = None,
    logits: bool = False,
) -> UnitRuns:
    """Run texts and read them at their places, in float32 on the CPU.

    Args:
        model: the model.
        texts: token ids.
        places: positions to be read in each text, equally many in texts of equal length.
        tokens_per_pass: bound on rows times tokens of one forward pass.
        groups: for each text, which of its tokens belong to which group (0 or 1); attention to them is
            summed. Needs a model whose attention can be watched.
        moved: a depth, and for each text the vector that is added there to the state at its last place.
        means: by block and head, what stands in the place of the head's output, at every token.
        logits: whether to keep the logits at the last token.

    Raises:
        LayerscopeError: groups or means, on a model whose attention the load check refused.
    """
    if groups is not None or means:
        model.need("pattern" if groups is not None else "head_out")
    ends = torch.tensor([0, *[len(row) for row in places]]).cumsum(0).tolist()
    heads, every = model.facts.n_heads or 0, ends[-1]
    states = torch.empty(every, model.n_layers + 1, model.facts.width)
    shares = (
        None if groups is None else torch.full((every, model.n_layers, heads, groups[0].shape[1]), torch.nan)
    )
    last = torch.empty(len(texts), model.facts.vocabulary) if logits else None
    for batch in equal_length_batches([len(text) for text in texts], tokens_per_pass):
        run = _Batch(
            model,
            torch.tensor([list(texts[row]) for row in batch]),
            torch.tensor([list(places[row]) for row in batch]),
        )
        run.groups = None if groups is None else torch.stack([groups[row] for row in batch]).to(model.device)
        run.moved = None if moved is None else (moved[0], moved[1][batch].to(model.device))
        run.means = means or {}
        final = run.forward()
        for number, row in enumerate(batch):
            here = slice(ends[row], ends[row + 1])
            states[here] = run.states[:, number].transpose(0, 1).float().cpu()
            if shares is not None:
                for layer, seen in run.shares.items():
                    shares[here, layer] = seen[number].transpose(0, 1).float().cpu()
            if last is not None:
                last[row] = final[number].float().cpu()
    return UnitRuns(states, shares, last)


def equal_length_batches(lengths: Sequence[int], tokens_per_pass: int) -> Iterator[list[int]]:
    """Indices of texts that are run together: of one length, at most so many tokens."""
    for length in sorted(set(lengths)):
        same = [index for index, other in enumerate(lengths) if other == length]
        size = max(1, tokens_per_pass // length)
        yield from (same[start : start + size] for start in range(0, len(same), size))


class _Batch:
    """One forward pass: hooks that change, then hooks that read."""

    groups: Tensor | None = None
    moved: tuple[int, Tensor] | None = None
    means: Mapping[int, Mapping[int, Tensor]]

    def __init__(self, model: LayeredModel, ids: Tensor, places: Tensor) -> None:
        self.model, self.ids, self.places = model, ids, places.to(model.device)
        self.rows = torch.arange(len(ids), device=model.device)
        self.shares: dict[int, Tensor] = {}
        self._kept: dict[int, Tensor] = {}

    @property
    def states(self) -> Tensor:
        """[depth row place width]"""
        return torch.stack([self._kept[depth].to(self.model.device) for depth in sorted(self._kept)])

    def forward(self) -> Tensor:
        """Logits at the last token [row vocabulary]."""
        model = self.model
        with ExitStack() as stack:
            watches: dict[nn.Module, Callable[[Attended], Tensor | None]] = {
                module: self._watch(layer)
                for layer, module in enumerate(model.attention_modules)
                if module is not None and (self.groups is not None or layer in self.means)
            }
            if watches:
                stack.enter_context(watched(model.module, watches))
            depths = range(model.n_layers + 1)
            stack.enter_context(at_depth(model, {depth: self._state(depth) for depth in depths}))
            return model.logits(self.ids, last=True)[:, -1]

    def _state(self, depth: int) -> Callable[[Tensor], Tensor | None]:
        def change_and_keep(stream: Tensor) -> Tensor | None:
            changed = None
            if self.moved is not None and depth == self.moved[0]:
                changed = stream.clone()
                changed[self.rows, self.places[:, -1]] += self.moved[1].to(stream)
            seen = stream if changed is None else changed
            self._kept[depth] = seen[self.rows[:, None], self.places].detach().clone()
            return changed

        return change_and_keep

    def _watch(self, layer: int) -> Callable[[Attended], Tensor | None]:
        def watch(call: Attended) -> Tensor | None:
            if self.groups is not None:
                looked = call.pattern.transpose(1, 2)[self.rows[:, None], self.places].transpose(1, 2)
                self.shares[layer] = looked @ self.groups[:, None].to(looked)
            replaced = self.means.get(layer)
            if not replaced:
                return None
            head_out = call.head_out.clone()
            for head, mean in replaced.items():
                head_out[:, head] = mean.to(head_out)
            return head_out

        return watch


@torch.no_grad()
def mean_head_outputs(
    model: LayeredModel,
    texts: Sequence[Sequence[int]],
    heads: Sequence[tuple[int, int]],
    *,
    tokens_per_pass: int,
) -> dict[int, dict[int, Tensor]]:
    """Mean output of some heads over all tokens of some texts, by block and head."""
    wanted: dict[int, list[int]] = {}
    for layer, head in heads:
        wanted.setdefault(layer, []).append(head)
    sums: dict[int, Tensor] = {}
    tokens = sum(len(text) for text in texts)

    def adder(layer: int) -> Callable[[Attended], None]:
        def add(call: Attended) -> None:
            total = call.head_out[:, wanted[layer]].sum((0, 2), dtype=torch.float64).cpu()
            sums[layer] = sums.get(layer, 0) + total

        return add

    model.need("head_out")
    modules = {layer: model.attention_modules[layer] for layer in wanted}
    watches = {module: adder(layer) for layer, module in modules.items() if module is not None}
    for batch in equal_length_batches([len(text) for text in texts], tokens_per_pass):
        with watched(model.module, watches):
            model.logits(torch.tensor([list(texts[row]) for row in batch]), last=True)
    return {
        layer: dict(zip(wanted[layer], (total / tokens).float(), strict=True))
        for layer, total in sums.items()
    }
