"""Random draws that depend on nothing but their names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def stream(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for one purpose, the same in every process and on every machine.

    Args:
        seed: the run's seed.
        names: what the draw is for, for example ("noise", prompt, sample, token).
    """
    text = "\x1f".join(str(name) for name in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return torch.Generator().manual_seed(number % 2**63)


def gaussian_noise(
    seed: int, *, prompt: str, positions: Sequence[int], samples: int, width: int, sd: float
) -> Float[Tensor, "sample position width"]:
    """Gaussian noise for the noised tokens of one prompt, float32 on the CPU.

    Each (prompt, sample, token) has a stream of its own, so every patch of a prompt meets the same
    noise, and asking for more samples leaves the first ones as they were.

    Args:
        seed: the run's seed.
        prompt: the prompt's text.
        positions: positions of the noised tokens, which name their streams.
        samples: number of draws.
        width: entries of a state.
        sd: standard deviation of each entry, in the units of the residual stream.
    """
    draws = [
        [
            torch.randn(width, generator=stream(seed, "noise", prompt, sample, position))
            for position in positions
        ]
        for sample in range(samples)
    ]
    return torch.stack([torch.stack(draw) for draw in draws]) * sd
