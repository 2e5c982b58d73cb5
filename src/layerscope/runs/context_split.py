"""What a block brings to a token from near and from far, split exactly.

A target is read twice: with its whole context (full) and with BOS and its last k tokens (cut). In each
block the difference of the two states grows by what attention adds in the one run and not in the other,
and by what the MLP does. The attention's part is split by asking the model's own attention function again,
with the full run's query:

- fresh: over all keys, less over BOS and the last k keys, both with the full run's keys and values: what
  is read from beyond the last k tokens in this block;
- relayed: over BOS and the last k keys with the full run's keys and values, less with the cut run's, the
  target's own kept as in the full run: what near tokens pass on because they had read far;
- own: the rest, which comes from the target's own query, key and value being different;
- mlp: the difference of the vectors that the MLP adds.

The four sum to the growth of the difference, in every family, because each head's output goes through the
model's own projection, norms and multiplier before it is subtracted: changed heads stand in further rows
of a batch, whose residual stream is set back to the full run's after every block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.attention import AttentionCall, attend, replaced
from layerscope.models.hooks import at_depth, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import Site
from layerscope.runs.reading import added_by, as_batch
from layerscope.runs.window_passes import WindowPass, passes
from layerscope.runs.windows import FullRun, mask_of_pass, need_positions, run_pass

PARTS = ("fresh", "relayed", "own", "mlp")


@dataclass(frozen=True, eq=False)
class CutTargets:
    """The cut runs of some targets at one context length, in the order of the targets.

    Attributes:
        kept: tokens kept, the target included.
        states: [depth target width]
        attention, mlp: vectors added at the target [layer target width]
        keys, values: of BOS and the kept tokens, by block [target kv_head token head_width]
    """

    kept: int
    states: Float[Tensor, "depth target width"]
    attention: Float[Tensor, "layer target width"]
    mlp: Float[Tensor, "layer target width"]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class ContextSplit:
    """What every block brings to the targets of one text, in float32.

    Attributes:
        attention: what attention adds in the full run [layer target width].
        from_within: what it adds when only BOS and the nearest tokens are read, for each distance, nearest
            first [distance layer target width].
        parts: the four parts for each cut [cut part layer target width], parts as in PARTS.
        difference: full less cut state [cut depth target width].
    """

    attention: Float[Tensor, "layer target width"]
    from_within: Float[Tensor, "distance layer target width"]
    parts: Float[Tensor, "cut part layer target width"]
    difference: Float[Tensor, "cut depth target width"]


def need_split(model: LayeredModel) -> None:
    """Refuse families whose attention cannot be asked again.

    Raises:
        LayerscopeError: attention or added vectors are out of reach, a block has none of them, or the family
            takes no position ids.
    """
    for site in ("pattern", "attn_out", "mlp_out"):
        model.need(site)
    need_positions(model, "original")
    without = [layer for layer, module in enumerate(model.attention_modules) if module is None]
    if without:
        raise _inseparable(model, f"no attention in layer {without[0]}, which hands states on in another way")


def _inseparable(model: LayeredModel, found: str) -> LayerscopeError:
    return LayerscopeError(
        f"what is read directly and what is relayed cannot be separated on {model.facts.name}",
        found=found,
        expected="attention in every layer, under a mask that the model gives it",
        hint="truncated_context works here",
    )


@torch.no_grad()
def split_context(
    model: LayeredModel,
    text: FullRun,
    targets: Sequence[int],
    *,
    distances: Sequence[int],
    cuts: Sequence[int],
    tokens_per_pass: int = 2048,
) -> ContextSplit:
    """Split what every block brings to some targets.

    Args:
        model: a model that `need_split` lets through.
        text: the whole text.
        targets: positions, each farther from the start than the longest cut.
        distances: how many nearest tokens, the target included, are read for `from_within`.
        cuts: context lengths of the four-way split; each must be one of the distances.
        tokens_per_pass: bound on rows times tokens of one forward pass of the cut runs.

    Raises:
        LayerscopeError: see `need_split`; a cut that reaches beyond the start of the text.
    """
    need_split(model)
    if text.own:
        raise _inseparable(model, f"layer {text.own[0]} makes its own attention mask from what it reads")
    short = [read_cut(model, text, targets, kept, tokens_per_pass=tokens_per_pass) for kept in cuts]
    found = _full_rows(model, text, targets, distances, short)
    split, difference = [], []
    for place, cut in enumerate(short):
        near = found.from_within[list(distances).index(cut.kept)]
        relayed = found.with_cut_keys[place]
        mine, theirs = cut.attention.to(near), cut.mlp.to(near)
        parts = (found.attention - near, near - relayed, relayed - mine, found.mlp - theirs)
        split.append(torch.stack(parts))
        difference.append(text.states[:, list(targets)].float() - cut.states.to(near))
    return ContextSplit(
        attention=found.attention,
        from_within=found.from_within,
        parts=torch.stack(split),
        difference=torch.stack(difference),
    )


# -- the cut runs --------------------------------------------------------------------------------------


@torch.no_grad()
def read_cut(
    model: LayeredModel, text: FullRun, targets: Sequence[int], kept: int, *, tokens_per_pass: int
) -> CutTargets:
    """Run BOS and the last `kept` tokens of every target, at their original positions, and keep what it read."""
    n, width = len(targets), model.facts.width
    states = torch.empty(model.n_layers + 1, n, width)
    added = {site: torch.empty(model.n_layers, n, width) for site in ("attn_out", "mlp_out")}
    inside: dict[tuple[str, int], list[Tensor]] = {}
    order: list[int] = []
    cells = [(target, kept) for target in targets]
    context = model.facts.context
    for batch in passes(
        text.ids, cells, positions="original", tokens_per_pass=tokens_per_pass, context=context
    ):
        order += batch.cells.tolist()
        with ExitStack() as stack:
            _keep_added(model, batch, added, stack)
            stack.enter_context(at_depth(model, _state_keepers(model, batch, states)))
            stack.enter_context(replaced(model.module, _key_keepers(model, text, batch, inside)))
            run_pass(model, batch)
    back = torch.tensor(order).argsort()
    keys, values = (
        tuple(torch.cat(inside[site, layer])[back] for layer in range(model.n_layers)) for site in ("k", "v")
    )
    return CutTargets(kept, states, added["attn_out"], added["mlp_out"], keys, values)


def _state_keepers(
    model: LayeredModel, batch: WindowPass, states: Tensor
) -> dict[int, Callable[[Tensor], None]]:
    def keep(stream: Tensor, depth: int) -> None:
        states[depth, batch.cells] = stream[batch.rows, batch.columns].float().cpu()

    return {depth: partial(keep, depth=depth) for depth in range(model.n_layers + 1)}


def _keep_added(model: LayeredModel, batch: WindowPass, added: dict[str, Tensor], stack: ExitStack) -> None:
    shape = (*batch.ids.shape, -1)

    def keep(output: Tensor, into: Tensor, multiplier: float) -> None:
        rows = (output.float() * multiplier).reshape(shape)
        into[batch.cells] = rows[batch.rows, batch.columns].cpu()

    for site, into in added.items():
        for layer in range(model.n_layers):
            module, multiplier = added_by(model, Site(site, layer))
            stack.enter_context(on_output(module, partial(keep, into=into[layer], multiplier=multiplier)))


def _key_keepers(
    model: LayeredModel, text: FullRun, batch: WindowPass, inside: dict[tuple[str, int], list[Tensor]]
) -> dict[nn.Module, Callable[[AttentionCall], Tensor]]:
    def keep(call: AttentionCall, layer: int) -> Tensor:
        # Every row is one target, and its target is its last token: rows are as long as the cut.
        rows = batch.rows
        inside.setdefault(("k", layer), []).append(call.k[rows].detach().clone())
        inside.setdefault(("v", layer), []).append(call.v[rows].detach().clone())
        if layer in text.masks:
            call = replace(call, mask=mask_of_pass(text.masks[layer], batch).to(call.q.device))
        return attend(call).head_out

    return {
        module: partial(keep, layer=layer)
        for layer, module in enumerate(model.attention_modules)
        if module is not None
    }


# -- the full run with other heads' outputs beside it --------------------------------------------------


@dataclass(frozen=True, eq=False)
class _FullRows:
    attention: Tensor  # [layer target width]
    mlp: Tensor
    from_within: Tensor  # [distance layer target width]
    with_cut_keys: Tensor  # [cut layer target width]


def _full_rows(
    model: LayeredModel,
    text: FullRun,
    targets: Sequence[int],
    distances: Sequence[int],
    cuts: Sequence[CutTargets],
) -> _FullRows:
    rows = 1 + len(distances) + len(cuts)
    shape = (rows, len(text.ids), -1)
    attention = torch.empty(rows, model.n_layers, len(targets), model.facts.width, device=model.device)
    mlp = torch.empty(model.n_layers, len(targets), model.facts.width, device=model.device)

    def keep_attention(output: Tensor, layer: int, multiplier: float) -> None:
        attention[:, layer] = (output.float() * multiplier).reshape(shape)[:, list(targets)]

    def keep_mlp(output: Tensor, layer: int, multiplier: float) -> None:
        mlp[layer] = (output.float() * multiplier).reshape(shape)[0, list(targets)]

    def set_back(stream: Tensor) -> Tensor:
        return stream[:1].expand(stream.shape).clone()

    with ExitStack() as stack:
        for layer, module in enumerate(model.attention_modules):
            assert module is not None
            for site, keep in (("attn_out", keep_attention), ("mlp_out", keep_mlp)):
                reads, multiplier = added_by(model, Site(site, layer))
                stack.enter_context(on_output(reads, partial(keep, layer=layer, multiplier=multiplier)))
        stack.enter_context(at_depth(model, dict.fromkeys(range(1, model.n_layers + 1), set_back)))
        heads = {
            module: partial(_other_heads, targets=targets, distances=distances, cuts=cuts, layer=layer)
            for layer, module in enumerate(model.attention_modules)
            if module is not None
        }
        stack.enter_context(replaced(model.module, heads))
        model.logits(as_batch(text.ids, rows), last=True)
    within = 1 + len(distances)
    return _FullRows(attention[0], mlp, attention[1:within], attention[within:])


def _other_heads(
    call: AttentionCall,
    *,
    targets: Sequence[int],
    distances: Sequence[int],
    cuts: Sequence[CutTargets],
    layer: int,
) -> Tensor:
    """Heads' outputs of every row: the full run's, near keys alone, and near keys of the cut runs."""
    assert call.mask is not None
    full = replace(call, q=call.q[:1], k=call.k[:1], v=call.v[:1], mask=call.mask[:1])
    own = attend(full).head_out
    rows = [own]
    rows += [attend(replace(full, mask=_near(call.mask[:1], distance))).head_out for distance in distances]
    for cut in cuts:
        heads = own.clone()
        heads[:, :, list(targets)] = _with_cut_keys(full, targets, cut, layer)
        rows.append(heads)
    return torch.cat(rows)


def _near(mask: Tensor, distance: int) -> Tensor:
    """The model's own mask, with only BOS and the nearest keys left to every query."""
    place = torch.arange(mask.shape[-1], device=mask.device)
    far = (place[None, :] <= place[:, None] - distance) & (place[None, :] > 0)
    return mask.masked_fill(far[-mask.shape[-2] :], torch.finfo(mask.dtype).min)


def _with_cut_keys(full: AttentionCall, targets: Sequence[int], cut: CutTargets, layer: int) -> Tensor:
    """Each target's heads with its query, key and value of the full run, other keys and values of the cut run."""
    assert full.mask is not None
    at = torch.tensor(list(targets), device=full.q.device)
    k, v = (
        torch.cat([theirs[layer].to(ours)[:, :, :-1], ours[0, :, at].transpose(0, 1)[:, :, None]], dim=2)
        for theirs, ours in ((cut.keys, full.k), (cut.values, full.v))
    )
    read = torch.stack([torch.arange(target - cut.kept, target + 1, device=at.device) for target in targets])
    read[:, 0] = 0  # BOS
    mask = full.mask[0][:, at[:, None], read].transpose(0, 1)[:, :, None]
    asked = replace(full, q=full.q[0, :, at].transpose(0, 1)[:, :, None], k=k, v=v, mask=mask)
    return attend(asked).head_out[:, :, 0].transpose(0, 1)
