"""How many tokens may go through a block at once, from the memory that there is.

The bound is kept with the run, so that resuming it, on a machine with more or less memory, cuts the work in the
same way.
"""

from __future__ import annotations

import torch

from layerscope.models.layered import LayeredModel
from layerscope.runs.memory_limits import memory_limit

MOST = {"cpu": 2048, "cuda": 32768}
"""More gains no speed: on a CPU the widest tensor of a pass should stay near its caches."""

_LEAST = 64
_SHARE = 0.25


def tokens_per_pass(model: LayeredModel) -> int:
    """Bound on rows times tokens of one pass: a power of two that takes a quarter of the memory at most.

    On a CPU of the machine's memory or the control group's limit, whichever is less; on a GPU of what is free.
    """
    kind = model.device.type
    most = MOST.get(kind, MOST["cpu"])
    while most > _LEAST and most * bytes_per_token(model) > _SHARE * memory_bytes(model.device):
        most //= 2
    return most


def bytes_per_token(model: LayeredModel) -> int:
    """What one token of a pass holds at its peak, measured on GPT-2's shapes: ten states, two MLPs, its logits.

    Logits count once for each token, as in the plain path's shortest runs.
    """
    facts = model.facts
    entries = (10 + 2 * 4) * facts.width + facts.vocabulary
    return entries * 4


def memory_bytes(device: torch.device) -> int:
    """Memory that there is for this process: free on the GPU, or the machine's within the group's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_limit(address_space=False).bytes
