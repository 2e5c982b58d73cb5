"""Read activations of one text, by whole forward passes with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.attention import Attended, watched
from layerscope.models.hooks import at_depth, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import THROUGH_ATTENTION, Site


def as_batch(ids: Sequence[int], rows: int = 1) -> Tensor:
    """Token ids as a batch of equal rows."""
    return torch.tensor([list(ids)]).expand(rows, -1)


def read_states(model: LayeredModel, ids: Sequence[int]) -> Float[Tensor, "depth token width"]:
    """The residual stream of one text at every depth 0 .. n_layers, in the model's own dtype."""
    states: dict[int, Tensor] = {}

    def keeper(depth: int) -> Callable[[Tensor], None]:
        def keep(stream: Tensor) -> None:
            states[depth] = stream[0].detach().clone()

        return keep

    with at_depth(model, {depth: keeper(depth) for depth in range(model.n_layers + 1)}):
        model.logits(as_batch(ids), last=True)
    return torch.stack([states[depth].to(model.device) for depth in range(model.n_layers + 1)])


def read_sites(model: LayeredModel, ids: Sequence[int], sites: Iterable[Site]) -> dict[Site, Tensor]:
    """Activations of one text, without a batch dimension.

    Shapes: resid_pre, resid_post, attn_out, mlp_out [token width]; q, head_out [head token head_width];
    k, v [kv_head token head_width]; pattern [head token token].

    Raises:
        LayerscopeError: a site that the load check refused on this model, or that a block lacks.
    """
    wanted = list(dict.fromkeys(sites))
    kept: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        watches = _attention_watches(model, [site for site in wanted if site.kind in THROUGH_ATTENTION], kept)
        if watches:
            stack.enter_context(watched(model.module, watches))
        for site in wanted:
            if site.kind not in THROUGH_ATTENTION:
                _watch_stream(model, site, kept, stack)
        model.logits(as_batch(ids), last=True)
    return {site: kept[site] for site in wanted}


def _watch_stream(model: LayeredModel, site: Site, kept: dict[Site, Tensor], stack: ExitStack) -> None:
    if site.kind in ("resid_pre", "resid_post"):
        depth = site.layer + (site.kind == "resid_post")
        stack.enter_context(at_depth(model, {depth: _keeper(kept, site, 1.0)}))
        return
    module, multiplier = added_by(model, site)
    stack.enter_context(on_output(module, _keeper(kept, site, multiplier)))


def _keeper(kept: dict[Site, Tensor], site: Site, multiplier: float) -> Callable[[Tensor], None]:
    def keep(tensor: Tensor) -> None:
        # Some modules see their tokens as one flat row (OPT's MLP).
        kept[site] = (tensor.detach() * multiplier).reshape(-1, tensor.shape[-1]).clone()

    return keep


def added_by(model: LayeredModel, site: Site) -> tuple[nn.Module, float]:
    """The module whose output, times the factor, is attn_out or mlp_out of a block.

    Raises:
        LayerscopeError: the load check found no such vector, here or on this model.
    """
    model.need(site.kind)
    addition = model.additions[site.layer]
    assert addition is not None
    name = addition.attention if site.kind == "attn_out" else addition.mlp
    if name is None:
        raise LayerscopeError(
            f"layer {site.layer} of {model.facts.name} adds no such vector",
            found=site,
            expected="a layer with both attention and MLP",
            hint="resid_pre and resid_post work in every layer",
        )
    return model.blocks[site.layer].get_submodule(name), addition.multiplier


def _attention_watches(
    model: LayeredModel, sites: Sequence[Site], kept: dict[Site, Tensor]
) -> dict[nn.Module, Callable[[Attended], None]]:
    watches: dict[nn.Module, Callable[[Attended], None]] = {}
    for layer in sorted({site.layer for site in sites}):
        here = [site for site in sites if site.layer == layer]
        model.need(here[0].kind)
        module = model.attention_modules[layer]
        if module is None:
            raise LayerscopeError(
                f"layer {layer} of {model.facts.name} has no attention",
                found=here[0],
                expected=f"one of the layers {[i for i, m in enumerate(model.attention_modules) if m is not None]}",
                hint="resid_pre and resid_post work in every layer",
            )
        watches[module] = _attention_keeper(here, kept)
    return watches


def _attention_keeper(sites: Sequence[Site], kept: dict[Site, Tensor]) -> Callable[[Attended], None]:
    def keep(call: Attended) -> None:
        for site in sites:
            kept[site] = getattr(call, site.kind)[0].detach().clone()

    return keep
