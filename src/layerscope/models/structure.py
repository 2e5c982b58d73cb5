"""Where a model keeps its parts: found by structure and by watching one forward, not by name.

Family files would only be needed for facts that neither can tell; so far there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def find_blocks(model: nn.Module, n_layers: int) -> tuple[str, nn.ModuleList]:
    """The list of blocks: the ModuleList of the right length that holds the most weights.

    Raises:
        LayerscopeError: the model holds no such list.
    """
    candidates = [
        (sum(p.numel() for p in module.parameters()), path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    if not candidates:
        raise LayerscopeError(
            "no blocks were found in this model",
            found=f"{type(model).__name__} without a list of {n_layers} blocks",
            expected="a decoder whose blocks lie in one list",
            hint="a decoder-only model",
        )
    _, path, blocks = max(candidates, key=lambda candidate: candidate[0])
    return path, blocks


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
