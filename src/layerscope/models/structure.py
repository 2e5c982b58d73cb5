"""Where a model keeps its parts: found by structure and by watching one forward, not by name.

Family files would only be needed for facts that neither can tell; so far there are none.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import LayerscopeError


@dataclass(frozen=True)
class Structure:
    """Paths and modules of a decoder.

    Attributes:
        blocks_path: dotted name of the list of blocks.
        blocks: the blocks in order.
        after: modules that the final state passes through, in order: final norm, projections, unembedding.
        logit_map: what happens to the unembedding's output, by name and value: soft cap, scale.
    """

    blocks_path: str
    blocks: tuple[nn.Module, ...]
    after: tuple[nn.Module, ...]
    logit_map: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Addition:
    """How to read the two vectors that a block adds.

    Attributes:
        attention: dotted name, inside the block, of the module whose output becomes attn_out; None in a
            block that adds one vector only, by its MLP.
        mlp: the same for mlp_out; None in a block that adds one vector only, by what mixes tokens.
        multiplier: factor on both outputs.
    """

    attention: str | None
    mlp: str | None
    multiplier: float = 1.0


def find_blocks(model: nn.Module, n_layers: int) -> tuple[str, nn.ModuleList]:
    """The list of blocks: of the right length, each run once and in order by a text, with the most weights.

    A vision tower may be as long as the text layers and outweigh them; text does not run it.

    Raises:
        LayerscopeError: the model holds no such list, or runs one of its blocks twice.
    """
    candidates = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    order = _order_of_calls(model, [module for _, blocks in candidates for module in blocks])
    run = [(path, blocks) for path, blocks in candidates if any(block in order for block in blocks)]
    fit = [(path, blocks) for path, blocks in run if _run_once_each(blocks, order)]
    if fit:
        return max(fit, key=lambda candidate: _n_weights(candidate[1]))
    if not run:
        raise LayerscopeError(
            "no layers were found in this model",
            found=f"{type(model).__name__} without a list of {n_layers} layers that a text runs through",
            expected="a decoder whose layers lie in one list",
            hint="a decoder-only model",
        )
    path, blocks = max(run, key=lambda candidate: _n_weights(candidate[1]))
    raise LayerscopeError(
        "the layers of this model are not run once each, in their order",
        found=f"{path} of {type(model).__name__}: {_as_run(blocks, order)}",
        expected="a decoder in which a token passes each layer once",
        hint="a model that shares no layer between two places",
    )


@torch.no_grad()
def _order_of_calls(model: nn.Module, modules: list[nn.Module]) -> list[nn.Module]:
    """These modules in the order in which a short text runs them."""
    order: list[nn.Module] = []

    def keep(module: nn.Module, _: Any) -> None:
        order.append(module)

    ids = torch.tensor([[1, 2, 3]], device=next(model.parameters()).device)
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(keep).remove)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return order


def _run_once_each(blocks: nn.ModuleList, order: list[nn.Module]) -> bool:
    own = set(blocks)
    return len(own) == len(blocks) and [module for module in order if module in own] == list(blocks)


def _as_run(blocks: nn.ModuleList, order: list[nn.Module]) -> str:
    if len(set(blocks)) < len(blocks):
        return f"{len(set(blocks))} modules at {len(blocks)} places"
    numbers = {block: str(layer) for layer, block in enumerate(blocks)}
    return "run in the order " + ", ".join(numbers[module] for module in order if module in numbers)


def _n_weights(blocks: nn.ModuleList) -> int:
    return sum(parameter.numel() for parameter in blocks.parameters())


def neighbours_of_blocks(model: nn.Module, blocks_path: str) -> list[nn.Module]:
    """The outermost modules that neither hold the blocks nor lie in them, such as norms and embeddings."""
    holders = {model, *_ancestors(model, blocks_path)}
    blocks = model.get_submodule(blocks_path)
    return [
        child
        for holder in holders
        for child in holder.children()
        if child not in holders and child is not blocks
    ]


def _ancestors(model: nn.Module, path: str) -> list[nn.Module]:
    pieces = path.split(".")
    return [model.get_submodule(".".join(pieces[:i])) for i in range(1, len(pieces))]


def logit_maps(config: Any) -> list[tuple[tuple[str, float], ...]]:
    """Candidates for what a family does to the unembedding's output, told by its configuration.

    The load check keeps the one that gives the model's own logits.
    """
    maps: list[tuple[tuple[str, float], ...]] = [()]
    for name, kind in (
        ("final_logit_softcapping", "soft cap"),
        ("logits_soft_cap", "soft cap"),
        ("logit_scale", "multiply"),
        ("logits_scaling", "divide"),
        ("logits_scaling", "multiply"),
        ("lm_head_multiplier", "multiply"),
    ):
        value = getattr(config, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            maps.append(((kind, float(value)),))
    return maps


def map_logits(logits: Tensor, steps: tuple[tuple[str, float], ...]) -> Tensor:
    """Apply soft cap and scale to the unembedding's output."""
    for kind, value in steps:
        if kind == "soft cap":
            logits = (logits / value).tanh() * value
        else:
            logits = logits * value if kind == "multiply" else logits / value
    return logits
