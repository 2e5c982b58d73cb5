"""Single-token runs with attention edges cut, beside runs with as many edges cut at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope import runs
from layerscope.maths.arrays import divide
from layerscope.maths.distributions import log_probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.experiments.attention_knockout import Settings
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.edits import Cut, LostMass


_NEAR_ENOUGH, _AS_MUCH = 0.02, 0.2
"""Keys are added at random until so little of the attention lacks; held beyond the other, they are no control."""


@dataclass(frozen=True)
class Target:
    """One token whose reading is cut.

    Attributes:
        text: which text it stands in.
        position: where in it; it is the query, and its prediction is read.
        sets: keys that are cut together, by set.
        wanted: id of the token whose log-probability is read; None for the model's own top-1.
    """

    text: int
    position: int
    sets: tuple[tuple[int, ...], ...]
    wanted: int | None


@dataclass(frozen=True)
class Effects:
    """What cutting does to targets; NaN where a layer has no such edge.

    Attributes:
        divergence: KL(own ‖ cut) in nats [target set fate window layer].
        loss: log-probability lost in nats, likewise.
        mass: the attention that was cut, a mean over heads and layers [target set window layer].
        control: divergence with edges cut at random [target set window sample layer].
        control_loss, control_mass: likewise.
        top: id of the model's own most probable next token [target]; -1 where nothing was run.
        rank: place of the wanted token among all, nothing cut; 1 for the top [target].
        log_probability: of the wanted token, nothing cut [target].
    """

    divergence: np.ndarray
    loss: np.ndarray
    mass: np.ndarray
    control: np.ndarray
    control_loss: np.ndarray
    control_mass: np.ndarray
    top: np.ndarray
    rank: np.ndarray
    log_probability: np.ndarray

    def put(self, places: Sequence[int], other: Effects) -> None:
        """Take the numbers of some targets from elsewhere."""
        for one in fields(self):
            getattr(self, one.name)[places] = getattr(other, one.name)


def window_layers(centre: int, width: int, n_layers: int) -> range:
    """Blocks of a window; an even one has one block more before its centre. Cut off at either end of the model."""
    first = centre - width // 2
    return range(max(0, first), min(n_layers, first + width))


def knocked_out(
    model: LayeredModel,
    texts: Sequence[Sequence[int]],
    targets: Sequence[Target],
    settings: Settings,
    *,
    windows: Sequence[int],
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
        settings: fates, control and samples.
        windows: widths in blocks.
        mean_values: of each block, a value for every query head; needed for the fate "mean".
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
    found = no_effects(len(targets), len(targets[0].sets), len(windows), model.n_layers, settings)
    for position in dict.fromkeys(target.position for target in targets):
        here = [place for place, target in enumerate(targets) if target.position == position]
        base = recording.until(position + 1)
        own = runs.run_patched(
            model,
            [runs.Branch((), row=targets[place].text) for place in here],
            base=base,
            read=lambda said, _: said.logits()[:, -1].float(),
        )
        cells, rows = [], []
        for row, place in enumerate(here):
            weights = _over_heads(shares[place])
            name = names[targets[place].text]
            plan = _Plan(targets[place], place, weights, visible[place], windows, settings, name)
            of_target = list(plan.cells())
            cells += of_target
            rows += [row] * len(of_target)
        reading = _Reading(model, own.to(model.device), [targets[place].wanted for place in here], rows)
        reading.write(found, here)
        branch = runs.Branch
        values = runs.run_patched(
            model,
            [branch((cell.cut,), row=targets[cell.target].text) for cell in cells],
            base=base,
            read=reading,
            tokens_per_pass=tokens_per_pass,
            mean_values=mean_values,
        ).numpy()
        for cell, (moved, lost) in zip(cells, values, strict=True):
            cell.write(found, float(moved), float(lost))
    return found


def no_effects(targets: int, sets: int, windows: int, layers: int, settings: Settings) -> Effects:
    """Targets of which nothing is known."""

    def unknown(*more: int) -> np.ndarray:
        return np.full((targets, sets, *more, layers), np.nan, dtype=np.float32)

    fates, samples = len(settings.fates), settings.draws
    return Effects(
        divergence=unknown(fates, windows),
        loss=unknown(fates, windows),
        mass=unknown(windows),
        control=unknown(windows, samples),
        control_loss=unknown(windows, samples),
        control_mass=unknown(windows, samples),
        top=np.full(targets, -1),
        rank=np.zeros(targets, dtype=np.int64),
        log_probability=np.full(targets, np.nan, dtype=np.float32),
    )


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


@dataclass(frozen=True)
class _Cell:
    """One run: what is cut, and where its numbers go."""

    cut: Cut
    target: int
    edges: int
    window: int
    layer: int
    mass: float
    fate: int | None = None
    sample: int = 0

    def write(self, found: Effects, moved: float, lost: float) -> None:
        if self.fate is None:
            place: tuple[int, ...] = (self.target, self.edges, self.window, self.sample, self.layer)
            found.control[place], found.control_loss[place] = moved, lost
            found.control_mass[place] = self.mass
        else:
            place = (self.target, self.edges, self.fate, self.window, self.layer)
            found.divergence[place], found.loss[place] = moved, lost
            found.mass[self.target, self.edges, self.window, self.layer] = self.mass


class _Plan:
    """Every cut of one target.

    Args:
        target: the token.
        place: its place among all targets.
        shares: of its attention, mean over heads [layer token]; NaN where a layer does not attend.
        visible: which tokens each layer lets it see [layer token].
        windows: widths in blocks.
        settings: fates and control.
        name: names the random draws.
    """

    def __init__(
        self,
        target: Target,
        place: int,
        shares: np.ndarray,
        visible: np.ndarray,
        windows: Sequence[int],
        settings: Settings,
        name: str,
    ) -> None:
        self.target, self.place, self.shares, self.visible = target, place, shares, visible
        self.windows, self.settings, self._make = windows, settings, runs.Cut
        import torch

        self._orders = [
            torch.randperm(
                target.position,
                generator=runs.stream(settings.seed, "control", name, sample, target.position),
            ).numpy()
            for sample in range(settings.draws)
        ]

    def cells(self) -> Iterator[_Cell]:
        """Cuts at every set, window and layer that have an edge to cut."""
        n_layers = len(self.visible)
        for edges, keys in enumerate(self.target.sets):
            for window, width in enumerate(self.windows):
                for centre in range(n_layers if keys else 0):
                    layers = [
                        layer
                        for layer in window_layers(centre, width, n_layers)
                        if self.visible[layer, list(keys)].any()
                    ]
                    if layers:
                        yield from self._at(edges, keys, window, centre, layers)

    def _at(
        self, edges: int, keys: tuple[int, ...], window: int, centre: int, layers: list[int]
    ) -> Iterator[_Cell]:
        weights = self.shares[layers].mean(axis=0)
        mass = float(weights[list(keys)].sum())
        at: dict[str, Any] = {"target": self.place, "edges": edges, "window": window, "layer": centre}
        for fate, lost in enumerate(self.settings.fates):
            # What does not see the first token cannot look at it instead.
            if lost != "first" or (0 not in keys and self.visible[layers, 0].all()):
                yield _Cell(self._cut(layers, keys, lost), mass=mass, fate=fate, **at)
        seen = np.asarray(self.visible[layers].any(axis=0))
        others = seen.copy()
        others[[0, *keys]] = False
        for sample, order in enumerate(self._orders):
            chosen = self._chosen(order[others[order]], weights, mass, int(seen[list(keys)].sum()))
            if chosen:
                cut = self._cut(layers, tuple(sorted(chosen)), self.settings.fates[0])
                yield _Cell(cut, mass=float(weights[chosen].sum()), sample=sample, **at)

    def _chosen(self, order: np.ndarray, weights: np.ndarray, mass: float, keys: int) -> list[int]:
        """Keys in random order: as many, or with as much attention; none where there are no such keys."""
        if self.settings.control == "as many keys":
            return order[:keys].tolist() if len(order) >= keys else []
        chosen, held = [], 0.0
        for key, weight in zip(order.tolist(), weights[order].tolist(), strict=True):
            # A key that would bring the sum past the mass by more than it lacks is passed over.
            if held + weight / 2 < mass:
                chosen.append(key)
                held += weight
                if held >= (1 - _NEAR_ENOUGH) * mass:
                    break
        return chosen if abs(held - mass) <= _AS_MUCH * mass else []

    def _cut(self, layers: Sequence[int], keys: tuple[int, ...], lost: LostMass) -> Cut:
        return self._make(layers=tuple(layers), queries=(self.target.position,), keys=keys, lost=lost)
