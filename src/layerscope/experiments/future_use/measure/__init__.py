"""One passage of future_use: corrupted states, and what they do to this prediction and to later ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import depth_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.evidence.distances import unread
from layerscope.experiments.future_use.items import FutureItem, SpreadItem
from layerscope.experiments.future_use.measure.states import corrupted_states, random_directions
from layerscope.experiments.future_use.settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.distributions import log_probabilities
from layerscope.maths.similarity import norm

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel
    from layerscope.runs.predictions import Read

PERTURBATIONS = ("corruption", "control")


def sums_of_states(model: LayeredModel, item: SpreadItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of a passage's states and of their squares at each depth, the first token left out."""
    states = runs.read_states(model, item.passage.tokens.ids)[:, 1:].double()
    dims = ("depth", "entry")
    return samples(
        named(states.sum(1), "sum", "sum of states", dims=dims),
        named((states**2).sum(1), "squares", "sum of squared states", dims=dims),
        named(np.int64(states.shape[1]), "count", "number of states"),
        depth=depth_coordinate(model.n_layers),
        entry=number_coordinate(range(states.shape[-1]), "entry", "entry of the state"),
    )


def effects(model: LayeredModel, item: FutureItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Every target of one passage, corrupted at every depth: what its own and later predictions lose."""
    depths, distances = model.n_layers + 1, item.horizon + 1
    shape = (len(item.targets), len(PERTURBATIONS), item.samples, depths)
    found = np.zeros((*shape, distances, 2), dtype=np.float32)
    size = np.zeros((len(item.targets), item.samples, depths), dtype=np.float32)
    if item.targets:
        found, size = _measured(model, item, settings, earlier, shape)
    dims = ("token", "perturbation", "sample", "depth", "distance")
    moved = "divergence of the next-token distribution from the model's own"
    return samples(
        named(found[..., 0], "divergence", moved, "nat", dims=dims),
        named(
            found[..., 1], "loss", "log-probability of the actual next token that is lost", "nat", dims=dims
        ),
        named(
            size, "size", "length of the change, over that of the state", dims=("token", "sample", "depth")
        ),
        named(
            [item.left_out], "left_out_because", "why the passage is left out, or empty", dims=("passage",)
        ),
        **_coordinates(model, item),
    )


def _measured(
    model: LayeredModel, item: FutureItem, settings: Settings, earlier: Earlier, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    ids, targets = item.passage.tokens.ids, list(item.targets)
    tokens = targets[-1] + item.horizon + 1
    base = runs.record_base(model, runs.BaseRun.of(ids[:tokens]))
    clean = torch.stack([state[0, targets] for state in base.states], dim=1).float()  # [target depth width]
    corrupted = corrupted_states(model, item, settings, earlier, clean)  # [target sample depth width]
    change = norm(corrupted - clean[:, None])
    control = clean[:, None] + change[..., None] * random_directions(item, settings, clean)
    put_in = torch.stack([corrupted, control], dim=1)  # [target perturbation sample depth width]
    own = _Own(model, base, ids[targets[0] + 1 : tokens + 1])
    # Each target's runs end where its horizon does: what lies behind it is neither run nor read.
    values = [
        _of_target(model, base.until(target + item.horizon + 1), target, states.flatten(0, 1), own, item)
        for target, states in zip(targets, put_in, strict=True)
    ]
    found = torch.stack(values).numpy().reshape(*shape, item.horizon + 1, 2)
    return found, divide(change, norm(clean)[:, None]).cpu().numpy()


def _of_target(
    model: LayeredModel,
    base: runs.Recording,
    target: int,
    put_in: Tensor,
    own: _Own,
    item: FutureItem,
) -> Tensor:
    """Divergence and loss [row depth distance 2] with the states of [row depth width] in the target's place, one
    depth at a time."""
    rows, depths, _ = put_in.shape
    # The same for every position: a branch takes its target's only, and nothing is copied.
    states = [of_depth[:, None].expand(-1, base.run.tokens, -1) for of_depth in put_in.unbind(1)]
    other = runs.Recording(runs.BaseRun(base.run.ids * rows), states=states)
    cells = [(row, depth) for row in range(rows) for depth in range(depths)]
    values = runs.run_patched(
        model,
        [runs.Branch((runs.Put("state", (depth,), (target,)),), other_row=row) for row, depth in cells],
        base=base,
        other=other,
        read=own.reading(target, [depth == depths - 1 for _, depth in cells]),
        read_last=item.horizon + 1,
        tokens_per_pass=item.tokens_per_pass,
    )
    return values.reshape(rows, depths, item.horizon + 1, 2)


class _Own:
    """What the model itself predicts from the first target on, and the tokens that really follow.

    Args:
        base: the run to the end of the last horizon.
        following: ids of the tokens behind each of its last positions.
    """

    def __init__(self, model: LayeredModel, base: runs.Recording, following: Sequence[int]) -> None:
        import torch

        logits = runs.run_patched(
            model,
            [runs.Branch(())],
            base=base,
            read=lambda said, _: said.logits().float(),
            read_last=len(following),
        )[0].to(model.device)
        self._first = base.run.tokens - len(following)
        self._reference = runs.Reference(model, logits)
        self._next = torch.tensor(following, device=logits.device)[:, None]
        self._clean = log_probabilities(logits).gather(1, self._next)[:, 0]

    def reading(self, target: int, at_the_end: Sequence[bool]) -> Read:
        """Turns predictions of corrupted runs into divergence and loss [run distance 2].

        Args:
            target: the corrupted token, the first that is read.
            at_the_end: which runs are corrupted behind the last layer, where no later token reads the state:
                their later predictions are the model's own.
        """
        import torch

        def read(said: runs.Predictions, indices: Sequence[int]) -> Tensor:
            n_runs, reads = said.shape
            wanted = torch.ones(n_runs, reads, dtype=torch.bool)
            wanted[torch.tensor([at_the_end[index] for index in indices]), 1:] = False
            flat = wanted.flatten().nonzero()[:, 0]
            rows = (target - self._first + flat % reads).to(self._next.device)
            found = said.only(flat).read(tokens=self._next[rows], against=self._reference, rows_of=rows)
            lost = self._clean[rows] - found.log_probability[:, 0]
            values = torch.zeros(n_runs * reads, 2, device=lost.device)
            values[flat] = torch.stack([found.divergence, lost], dim=-1)
            return values.reshape(n_runs, reads, 2)

        return read


def _coordinates(model: LayeredModel, item: FutureItem) -> dict[str, xr.Variable]:
    n, texts = len(item.targets), item.passage.tokens.texts
    return {
        "passage": text_coordinate([item.passage.name], "passage", "passage"),
        "token_passage": text_coordinate([item.passage.name] * n, "token", "passage of the token"),
        "position": number_coordinate(item.targets, "token", "position in the passage"),
        "token_unread": unread(item.passage, n),
        "token_text": text_coordinate([texts[t] for t in item.targets], "token", "token, as JSON text"),
        "perturbation": text_coordinate(list(PERTURBATIONS), "perturbation", "what takes the state's place"),
        "depth": depth_coordinate(model.n_layers),
        "distance": number_coordinate(
            range(item.horizon + 1), "distance", "tokens further on; 0 is the token's own prediction"
        ),
    }
