"""Which vectors a block adds to the residual stream, found by trying.

The output of an attention module is not always what is added: Gemma 2 and OLMo-2 put a norm
behind it, Granite a multiplier, BLOOM adds the residual inside the module. So for each block every
pair of outputs of its inner modules is tried, outermost first; the pair whose sum closes the gap
between the block's input and output is what the block adds. Post-norm blocks close it with no pair,
and have no such vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from layerscope.models.hooks import on_output
from layerscope.models.structure import Addition

Outputs = dict[str, Tensor]
"""Outputs of modules inside a block, by dotted name, in the order of their calls."""


def find_addition(
    block: nn.Module, run: Callable[[], Tensor], before: Tensor, multipliers: tuple[float, ...]
) -> Addition | None:
    """What a block adds, or None where no two inner outputs close the gap.

    Args:
        block: the block.
        run: calls the block once more on `before`, and returns its output.
        before: the block's input [batch token width].
        multipliers: factors worth trying, from the configuration.
    """
    children = list(dict(block.named_children()).items())
    everything = [(name, module) for name, module in block.named_modules() if name]
    for modules in (children, everything):
        with watching(modules) as outputs:
            after = run()
        found = _closing(before, after, outputs, multipliers)
        if found is not None:
            return found
    return None


@contextmanager
def watching(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[Outputs]:
    """Collect what modules give during one forward."""
    outputs: Outputs = {}
    with ExitStack() as stack:
        for name, module in modules:

            def keep(output: object, name: str = name) -> None:
                if isinstance(output, Tensor):
                    outputs[name] = output.detach().clone()  # Falcon adds into this tensor later

            stack.enter_context(on_output(module, keep))
        yield outputs


def _closing(
    before: Tensor, after: Tensor, outputs: Outputs, multipliers: tuple[float, ...]
) -> Addition | None:
    tolerance = 64 * torch.finfo(after.dtype).eps * float(after.abs().max())
    best: tuple[float, Addition] | None = None
    for addition, total in _hypotheses(before, outputs, multipliers):
        gap = float((before + total - after).abs().max())
        if gap <= tolerance and (best is None or gap < best[0]):
            best = gap, addition
    return best[1] if best else None


def _hypotheses(
    before: Tensor, outputs: Outputs, multipliers: tuple[float, ...]
) -> Iterator[tuple[Addition, Tensor]]:
    shaped = {
        name: tensor.reshape(before.shape)
        for name, tensor in outputs.items()
        if tensor.numel() == before.numel() and tensor.is_floating_point()
    }
    for (first, a), (second, b) in combinations(shaped.items(), 2):
        for factor in multipliers:
            yield Addition(first, second, factor), (a + b) * factor
    for name, a in shaped.items():
        yield Addition(name, None) if "mlp" not in name else Addition(None, name), a
