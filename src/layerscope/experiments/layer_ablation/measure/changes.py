"""Runs of one text without, or with a changed, layer: the changed state is made, and the rest is a patched run.

Only the layers that are changed are run one by one. What follows is the same for all ablations, a state put in the
place of the text's own at some depth: so they go on together (`runs.run_patched`), packed into large products, and
nothing is run or read that cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerscope import runs
from layerscope.experiments.layer_ablation.settings import EARLIER, Ablation, Settings
from layerscope.maths.distributions import log_probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.contract import Earlier
    from layerscope.models.layered import LayeredModel
    from layerscope.runs import ReplayedRun
    from layerscope.runs.predictions import Read

_PART = {"mean attention": "attention", "mean MLP": "mlp"}
_NOTHING = -1


@dataclass(frozen=True, eq=False)
class Effects:
    """What every ablation does at every token; NaN where there is none, or where it is not read.

    Attributes:
        kl: divergence from the model's own distribution, in nats [token ablation layer].
        same: whether the most probable token stays [token ablation layer].
        loss: rise of the loss on the text's next token, in nats [token ablation layer].
        clean_loss: that loss, nothing ablated [token]; NaN where the text ends.
    """

    kl: np.ndarray
    same: np.ndarray
    loss: np.ndarray
    clean_loss: np.ndarray


@dataclass(frozen=True, eq=False)
class _Changed:
    """A changed layer: the state [token width] that stands at a depth instead of the text's own."""

    ablation: int
    layer: int
    depth: int
    state: Tensor


def ablated(
    model: LayeredModel,
    ids: Sequence[int],
    following: int | None,
    *,
    text: str,
    cut: int,
    settings: Settings,
    earlier: Earlier,
    tokens_per_pass: int,
) -> Effects:
    """Every ablation at every layer of one text.

    Args:
        model: the model.
        ids: the text.
        following: the token behind it; None where there is none.
        text: names the random pushes.
        cut: how many tokens count as earlier.
        settings: which ablations.
        earlier: the stage of means.
        tokens_per_pass: bound on tokens of one pass through a layer.

    Raises:
        LayerscopeError: blocks called one by one do not give this model's logits.
    """
    run, base = runs.ReplayedRun(model, ids), runs.record_base(model, runs.BaseRun.of(ids))
    reading = _Reading(model, run, [*ids[1:], _NOTHING if following is None else following])
    shape = (3, len(ids), len(settings.ablations), model.n_layers)
    found = np.full(shape, np.nan, dtype=np.float32)
    everywhere: list[_Changed] = []
    before_cut: list[_Changed] = []
    for change in _changes(model, run, pushes(run, text, settings), _means(model, earlier), settings):
        of_earlier = settings.ablations[change.ablation].endswith(EARLIER)
        (before_cut if of_earlier else everywhere).append(change)
    for changes, first in ((everywhere, 0), (before_cut, cut)):
        if changes:
            values = _gone_on(model, base, changes, first or len(ids), reading.of(first), len(ids) - first,
                              tokens_per_pass)  # fmt: skip
            for change, value in zip(changes, values, strict=True):
                found[:, first:, change.ablation, change.layer] = value.T
    return Effects(found[0], found[1], found[2], reading.clean_loss)


def _gone_on(
    model: LayeredModel,
    base: runs.Recording,
    changes: Sequence[_Changed],
    tokens: int,
    read: Read,
    read_last: int,
    tokens_per_pass: int,
) -> np.ndarray:
    """What is read of each change [change token number], put in the place of the first so many tokens' own states."""
    import torch

    by_depth: list[list[Tensor]] = [[] for _ in range(model.n_layers + 1)]
    branches = []
    for change in changes:
        put = runs.Put("state", (change.depth,), tuple(range(tokens)))
        branches.append(runs.Branch((put,), other_row=len(by_depth[change.depth])))
        by_depth[change.depth].append(change.state)
    rows = max(map(len, by_depth))
    nothing = base.states[0][:0]
    states = [torch.stack(of_depth) if of_depth else nothing for of_depth in by_depth]
    other = runs.Recording(runs.BaseRun(base.run.ids * rows), states=states)
    values = runs.run_patched(
        model,
        branches,
        base=base,
        other=other,
        read=read,
        read_last=read_last,
        tokens_per_pass=tokens_per_pass,
    )
    return np.asarray(values.numpy())


class _Reading:
    """Turns predictions of ablated runs into divergence, whether the top stays, and rise of the loss."""

    def __init__(self, model: LayeredModel, run: ReplayedRun, following: Sequence[int]) -> None:
        import torch

        logits = run.logits(run.states[-1]).float()
        self._own = runs.Reference(model, logits)
        self._top = logits.argmax(-1)
        self._next = torch.tensor(following, device=logits.device)
        logs = log_probabilities(logits).gather(1, self._next.clamp_min(0)[:, None])[:, 0]
        self._clean = torch.where(self._next == _NOTHING, torch.nan, logs)

    @property
    def clean_loss(self) -> np.ndarray:
        """Loss on the next token, nothing ablated [token]."""
        return np.asarray((-self._clean).cpu().numpy())

    def of(self, first: int) -> Read:
        """The reading of the tokens from the first on [run token 3]."""
        import torch

        def read(said: runs.Predictions, indices: Sequence[int]) -> Tensor:
            n_runs, reads = said.shape
            rows = torch.arange(first, first + reads, device=self._next.device).repeat(n_runs)
            tokens = torch.stack([self._next[rows], self._top[rows]], dim=1)
            found = said.read(tokens=tokens, against=self._own, rows_of=rows)
            same = (found.logits[:, 1] >= found.normaliser.highest).float()
            rise = self._clean[rows] - found.log_probability[:, 0]
            return torch.stack([found.divergence, same, rise], dim=-1).reshape(n_runs, reads, 3)

        return read


# -- what is done to layers -----------------------------------------------------------------------------


def pushes(run: ReplayedRun, name: str, settings: Settings) -> Tensor:
    """For every block and token a vector as long as the block's step, which takes as much of the state's own
    direction away as skipping does and points anywhere else [layer token width].

    What is left is as long as the skipped state, and as far turned. A push in any direction would turn the
    state by less than a skip does, so that even fresh weights seemed to need every block.
    """
    layers, tokens, width = run.states.shape[0] - 1, run.states.shape[1], run.states.shape[2]
    drawn = runs.gaussian_noise(
        settings.seed, prompt=f"push\x1f{name}", positions=range(tokens), samples=layers, width=width, sd=1.0
    ).to(run.states.device)
    states = run.states[1:].float()
    steps = states - run.states[:-1].float()
    unit = states / states.norm(dim=-1, keepdim=True)
    along = (steps * unit).sum(-1, keepdim=True)
    across = drawn - (drawn * unit).sum(-1, keepdim=True) * unit
    rest = (steps.square().sum(-1, keepdim=True) - along.square()).clamp_min(0).sqrt()
    return across / across.norm(dim=-1, keepdim=True) * rest - along * unit


def _means(model: LayeredModel, earlier: Earlier) -> dict[str, Tensor]:
    import torch

    sums, count = earlier["mean"], float(earlier["mean"]["count"])
    return {
        part: torch.as_tensor(sums[part].values / count, dtype=torch.float32).to(model.device)
        for part in ("attention", "mlp")
    }


def _changes(
    model: LayeredModel, run: ReplayedRun, pushed: Tensor, means: dict[str, Tensor], settings: Settings
) -> Iterator[_Changed]:
    """Every ablation of every layer that there is."""
    for place, ablation in enumerate(settings.ablations):
        for layer in range(model.n_layers):
            depth, state = layer + 1, None
            if ablation == "random push":
                here = run.states[layer + 1]
                state = (here.float() + pushed[layer]).to(here)
            elif ablation in _PART:
                vector = means[_PART[ablation]][layer]
                if not bool(vector.isnan().any()):
                    state = _with_mean(model, run, layer, ablation, vector, settings.first_position)
            else:
                depth, state = _rearranged(run, ablation, layer)
            if state is not None:
                yield _Changed(place, layer, depth, state)


def _with_mean(
    model: LayeredModel, run: ReplayedRun, layer: int, ablation: Ablation, vector: Tensor, first_position: int
) -> Tensor:
    with runs.adding_instead(model, layer, _PART[ablation], vector, first_position=first_position):
        return run.onwards(run.states[layer], [layer])


def _rearranged(run: ReplayedRun, ablation: Ablation, layer: int) -> tuple[int, Tensor | None]:
    """The state behind a block left out, passed twice or changed for the next, and its depth; None where there is
    no next block."""
    n_layers = run.states.shape[0] - 1
    start, blocks, depth = {
        "skip": (layer, (), layer + 1),
        "repeat": (layer + 1, (layer,), layer + 1),
        "swap": (layer, (layer + 1, layer), layer + 2),
    }[ablation.removesuffix(EARLIER)]
    return depth, run.onwards(run.states[start], blocks) if depth <= n_layers else None
