"""What future_use measures: corrupted states, and what they do to this prediction and to later ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.evidence.distances import longest_first, longest_passage, need_bos, unread
from layerscope.experiments._future_states import corrupted_states, random_directions
from layerscope.maths.arrays import divide
from layerscope.maths.distributions import log_probabilities
from layerscope.maths.similarity import norm
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.experiments.future_use import Settings
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.predictions import Read

PERTURBATIONS = ("corruption", "control")
_OF_ANOTHER = ("another text", "swapped")


class SpreadItem(WorkItem):
    """One passage, to be read whole."""

    passage: TokenisedPassage


class FutureItem(WorkItem):
    """One passage, some of whose states are corrupted."""

    passage: TokenisedPassage
    donors: tuple[TokenisedPassage, ...] = Field(
        description="texts whose states take the place, one a sample"
    )
    targets: tuple[int, ...] = Field(description="positions whose states are corrupted; empty: left out")
    horizon: int = Field(description="later tokens whose predictions are read")
    samples: int
    left_out: str = Field(description="why the passage is left out, or empty")
    tokens_per_pass: int


# -- the corpus's own mean and spread ------------------------------------------------------------------


def spread_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SpreadItem]:
    """Every passage, where the corruption needs their mean or their spread."""
    if settings.corruption in ("noise", "mean"):
        for passage in inputs.passages:
            if len(passage.tokens) > 1:
                yield SpreadItem(name=passage.name, size=len(passage.tokens), passage=passage)


def sums_of_states(model: LayeredModel, item: SpreadItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of a passage's states and of their squares at each depth, the first token left out."""
    states = runs.read_states(model, item.passage.tokens.ids)[:, 1:].double()
    return xr.Dataset(
        {
            "sum": quantity(states.sum(1).cpu().numpy(), "depth entry", "sum of states"),
            "squares": quantity((states**2).sum(1).cpu().numpy(), "depth entry", "sum of squared states"),
            "count": quantity(np.int64(states.shape[1]), "", "number of states"),
        },
        coords={
            "depth": depth_coordinate(model.n_layers),
            "entry": number_coordinate(range(states.shape[-1]), "entry", "entry of the state"),
        },
    )


def added(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """The sums of two sets of passages."""
    names = ("sum", "squares", "count")
    return folded.assign(
        {name: folded[name].copy(data=folded[name].values + part[name].values) for name in names}
    )


# -- which states are corrupted ------------------------------------------------------------------------


def future_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FutureItem]:
    """The longest passages, each with its targets: contiguous, as late as the horizon allows."""
    if settings.corruption in ("truncated", "swapped"):
        need_bos(inputs)
    used = longest_first(inputs.passages, settings.corrupted_passages)
    horizon = min(settings.horizon, longest_passage(inputs) // 2)
    samples = settings.samples if settings.corruption in ("noise", *_OF_ANOTHER) else 1
    _check(inputs, used, settings, horizon, samples)
    found = [_item(inputs, settings, used, place, horizon, samples) for place in range(len(used))]
    if not any(item.targets for item in found):
        raise LayerscopeError(
            "no passage has a state to corrupt",
            found=f"{used[0].name}: {found[0].left_out}",
            expected=f"passages of at least {horizon + 3} tokens with BOS",
            hint="longer passages, or --set horizon=4",
        )
    yield from found


def _check(
    inputs: Inputs, used: Sequence[TokenisedPassage], settings: Settings, horizon: int, samples: int
) -> None:
    if horizon < 1 or longest_passage(inputs) < 4:
        raise LayerscopeError(
            "there are no later tokens",
            found=f"the longest passage has {longest_passage(inputs)} tokens with BOS",
            expected="at least four: BOS, a token, a later one, and what follows it",
            hint="longer passages",
        )
    if settings.corruption in _OF_ANOTHER and len(used) <= samples:
        raise LayerscopeError(
            "there is no other text to take states from",
            found=f"{len(used)} passages, {samples} samples",
            expected="more passages than samples",
            hint="more passages, or --set corruption=mean",
        )


def _item(
    inputs: Inputs,
    settings: Settings,
    used: Sequence[TokenisedPassage],
    place: int,
    horizon: int,
    samples: int,
) -> FutureItem:
    passage = used[place]
    donors = _donors(used, place, samples) if settings.corruption in _OF_ANOTHER else ()
    # The last token has no next token to compare with; the first is BOS.
    last = len(passage.tokens) - 2 - horizon
    targets = tuple(range(max(1, last - settings.targets + 1), last + 1))
    left_out = "" if targets else f"too short: {len(passage.tokens)} tokens"
    if donors and targets:
        targets = tuple(t for t in targets if t < min(len(donor.tokens) for donor in donors))
        left_out = "" if targets else "no other passage is long enough to take its place"
    depths = inputs.facts.n_layers + 1
    # Tokens through the layers: two whole runs, the donors', and half of the layers for both perturbations.
    size = len(passage.tokens) * (2 + len(donors)) + len(targets) * samples * depths * (horizon + 1)
    return FutureItem(
        name=passage.name,
        size=size,
        passage=passage,
        donors=donors if targets else (),
        targets=targets,
        horizon=horizon,
        samples=samples,
        left_out=left_out,
        tokens_per_pass=inputs.tokens_per_pass,
    )


def _donors(used: Sequence[TokenisedPassage], place: int, count: int) -> tuple[TokenisedPassage, ...]:
    """The next passages that are at least as long; where there are too few, the longest others."""
    others = [*used[place + 1 :], *used[:place]]
    enough = [other for other in others if len(other.tokens) >= len(used[place].tokens)]
    rest = sorted((o for o in others if o not in enough), key=lambda other: -len(other.tokens))
    return tuple([*enough, *rest][:count])


# -- what corruption does ------------------------------------------------------------------------------


def effects(model: LayeredModel, item: FutureItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Every target of one passage, corrupted at every depth: what its own and later predictions lose."""
    depths, distances = model.n_layers + 1, item.horizon + 1
    shape = (len(item.targets), len(PERTURBATIONS), item.samples, depths)
    found = np.zeros((*shape, distances, 2), dtype=np.float32)
    size = np.zeros((len(item.targets), item.samples, depths), dtype=np.float32)
    if item.targets:
        found, size = _measured(model, item, settings, earlier, shape)
    dims = "token perturbation sample depth distance"
    return xr.Dataset(
        {
            "divergence": quantity(
                found[..., 0], dims, "divergence of the next-token distribution from the model's own", "nat"
            ),
            "loss": quantity(
                found[..., 1], dims, "log-probability of the actual next token that is lost", "nat"
            ),
            "size": quantity(size, "token sample depth", "length of the change, over that of the state"),
            "left_out_because": quantity([item.left_out], "passage", "why the passage is left out, or empty"),
        },
        coords=_coordinates(model, item),
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
