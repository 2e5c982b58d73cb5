"""What takes a state's place in future_use: other states, and random changes as long as these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.positions import resolved
from layerscope.experiments.future_use.items import FutureItem
from layerscope.experiments.future_use.settings import Settings
from layerscope.maths.similarity import norm
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel


def corrupted_states(
    model: LayeredModel, item: FutureItem, settings: Settings, earlier: Earlier, clean: Tensor
) -> Tensor:
    """What is put in the place of every target's state [target sample depth width], float32."""
    import torch

    targets = list(item.targets)
    if settings.corruption == "another text":
        states = [runs.read_states(model, donor.tokens.ids).float()[:, targets] for donor in item.donors]
        return torch.stack(states).permute(2, 0, 1, 3)
    if settings.corruption == "truncated":
        return _truncated(model, item, settings, clean)[:, None]
    if settings.corruption == "swapped":
        return torch.stack([_swapped(model, item, settings, clean, donor) for donor in item.donors], dim=1)
    sums = earlier["spread"]
    mean = (sums["sum"] / sums["count"]).values
    if settings.corruption == "mean":
        return torch.from_numpy(mean).to(clean)[None, None].expand(len(targets), 1, -1, -1)
    spread = np.sqrt(np.maximum((sums["squares"] / sums["count"]).values - mean**2, 0))
    noise = _normal(item, settings, "noise", clean)[:, :, None]
    return clean[:, None] + settings.noise * torch.from_numpy(spread).to(clean) * noise


def _truncated(model: LayeredModel, item: FutureItem, settings: Settings, clean: Tensor) -> Tensor:
    """The states of [BOS] + last k tokens [target depth width]; targets with no more context keep theirs."""
    cells = _Cells(item, settings, clean)
    if cells.wanted:
        runs.read_truncated(
            model,
            runs.full_run(model, item.passage.tokens.ids),
            cells.wanted,
            cells.see,
            positions=resolved(model, settings.positions),
            tokens_per_pass=item.tokens_per_pass,
        )
    return cells.found


def _swapped(
    model: LayeredModel, item: FutureItem, settings: Settings, clean: Tensor, donor: TokenisedPassage
) -> Tensor:
    """The states behind another text and their own last k tokens [target depth width]; length stays as it is."""
    cells = _Cells(item, settings, clean)
    if cells.wanted:
        keep = ("k", "v") if runs.can_watch(model) else ()
        runs.read_swapped(
            model,
            runs.full_run(model, item.passage.tokens.ids),
            runs.full_run(model, donor.tokens.ids, keep=keep),
            cells.wanted,
            cells.see,
            tokens_per_pass=item.tokens_per_pass,
        )
    return cells.found


class _Cells:
    """Targets that have more than k tokens before them; the others keep their own states."""

    def __init__(self, item: FutureItem, settings: Settings, clean: Tensor) -> None:
        self.found = clean.clone()  # [target depth width]
        self._rows = [row for row, target in enumerate(item.targets) if settings.kept < target]
        self.wanted = [(item.targets[row], settings.kept) for row in self._rows]

    def see(self, depth: int, which: np.ndarray, states: Tensor) -> None:
        """Take the states of some targets at one depth."""
        self.found[[self._rows[place] for place in which], depth] = states.float()


def random_directions(item: FutureItem, settings: Settings, clean: Tensor) -> Tensor:
    """A random direction for every target and sample, the same at every depth [target sample 1 width]."""
    drawn = _normal(item, settings, "control", clean)[:, :, None]
    return drawn / norm(drawn)[..., None]


def _normal(item: FutureItem, settings: Settings, what: str, like: Tensor) -> Tensor:
    """Normal numbers from streams of their own [target sample width]."""
    import torch

    text = item.passage.passage.text
    draws = [
        torch.randn(like.shape[-1], generator=runs.stream(settings.seed, what, text, sample, target))
        for target in item.targets
        for sample in range(item.samples)
    ]
    return torch.stack(draws).reshape(len(item.targets), item.samples, -1).to(like)
