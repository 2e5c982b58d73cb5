"""Single-token runs with attention edges cut, and with edges cut at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerscope import runs
from layerscope.experiments.attention_knockout.measure.effects import Effects, Target
from layerscope.experiments.attention_knockout.measure.plan import Plan
from layerscope.experiments.attention_knockout.settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.distributions import log_probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel


def knocked_out(
    model: LayeredModel,
    texts: Sequence[Sequence[int]],
    targets: Sequence[Target],
    settings: Settings,
    *,
    mean_values: Sequence[Tensor] | None,
    names: Sequence[str],
    tokens_per_pass: int,
) -> Effects:
    """Cut every set of keys of every target at every layer.

    One recording serves all targets: a run that is cut at one token carries this token alone, over its text's
    keys and values before it.

    Args:
        model: the model.
        texts: ids of texts of one length.
        targets: the tokens that are cut from others, with equally many sets.
        settings: windows, where removed attention goes, control and its draws.
        mean_values: of each layer, a value for every query head; needed where removed attention is kept on it.
        names: of each text, for the random draws of its control.
        tokens_per_pass: bound on the runs of one pass.

    Raises:
        LayerscopeError: attention cannot be edited on this model.
    """
    model.need("pattern")
    queries = [(target.text, target.position) for target in targets]
    shares, visible = runs.attention_of_queries(model, texts, queries)
    runs.need_prefixes(model, len(texts[0]))
    recording = runs.record_base(model, runs.BaseRun(tuple(tuple(ids) for ids in texts)))
    plans = [
        Plan(target, place, _over_heads(shares[place]), visible[place], settings, names[target.text])
        for place, target in enumerate(targets)
    ]
    found = Effects.unknown(len(targets), len(targets[0].sets), plans[0].windows, model.n_layers, settings)
    for position in dict.fromkeys(target.position for target in targets):
        here = [plan for plan in plans if plan.target.position == position]
        _cut_at(model, here, recording.until(position + 1), found, mean_values, tokens_per_pass)
    return found


def _cut_at(
    model: LayeredModel,
    plans: Sequence[Plan],
    base: runs.Recording,
    found: Effects,
    mean_values: Sequence[Tensor] | None,
    tokens_per_pass: int,
) -> None:
    """All cuts of targets at one position of their texts, over the recording up to it."""
    own = runs.run_patched(
        model,
        [runs.Branch((), row=plan.target.text) for plan in plans],
        base=base,
        read=lambda said, _: said.logits()[:, -1].float(),
    )
    cells = [(row, plan, cell) for row, plan in enumerate(plans) for cell in plan.cells()]
    wanted = [plan.target.wanted for plan in plans]
    reading = _Reading(model, own.to(model.device), wanted, [row for row, _, _ in cells])
    reading.write(found, [plan.place for plan in plans])
    values = runs.run_patched(
        model,
        [runs.Branch((cell.cut,), row=plan.target.text) for _, plan, cell in cells],
        base=base,
        read=reading,
        tokens_per_pass=tokens_per_pass,
        mean_values=mean_values,
    ).numpy()
    for (_, _, cell), (moved, lost) in zip(cells, values, strict=True):
        cell.write(found, float(moved), float(lost))


def _over_heads(shares: np.ndarray) -> np.ndarray:
    """Mean over the heads that a layer has [layer token]; NaN where it does not attend."""
    known = ~np.isnan(shares)
    return np.asarray(divide(np.where(known, shares, 0).sum(axis=1), known.sum(axis=1)))


class _Reading:
    """Turns predictions of cut runs into divergence and lost log-probability.

    Args:
        own: logits of targets, nothing cut [target vocabulary].
        wanted: the token that is read of each; None for its own top-1.
        rows: the target of each run.
    """

    def __init__(
        self, model: LayeredModel, own: Tensor, wanted: Sequence[int | None], rows: Sequence[int]
    ) -> None:
        import torch

        self._top = own.argmax(dim=-1)
        chosen = [int(top) if one is None else one for top, one in zip(self._top, wanted, strict=True)]
        self._wanted = torch.tensor(chosen, device=own.device)[:, None]
        self._own, self._rows = runs.Reference(model, own), torch.tensor(rows, device=own.device)
        self._clean = log_probabilities(own).gather(1, self._wanted)[:, 0]
        self._rank = 1 + (own > own.gather(1, self._wanted)).sum(dim=-1)

    def write(self, found: Effects, places: Sequence[int]) -> None:
        """What is known of the targets themselves."""
        found.top[places], found.rank[places] = self._top.cpu().numpy(), self._rank.cpu().numpy()
        found.log_probability[places] = self._clean.cpu().numpy()

    def __call__(self, said: runs.Predictions, indices: Sequence[int]) -> Tensor:
        """Divergence and loss [run 2]."""
        import torch

        rows = self._rows[list(indices)]
        found = said.read(tokens=self._wanted[rows], against=self._own, rows_of=rows)
        return torch.stack([found.divergence, self._clean[rows] - found.log_probability[:, 0]], dim=-1)
