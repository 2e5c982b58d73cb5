"""Random draws that depend on nothing but their names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.errors import LayerscopeError


def draw_number(seed: int, *names: object) -> int:
    """A number between 0 and 2**63 that depends on the names alone: an order that nobody chose."""
    text = "\x1f".join(str(name) for name in (seed, *names))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def stream(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for one purpose, the same in every process and on every machine.

    Args:
        seed: the run's seed.
        names: what the draw is for, for example ("noise", prompt, sample, token).
    """
    return torch.Generator().manual_seed(draw_number(seed, *names))


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


def uniform_noise(
    seed: int, *, prompt: str, positions: Sequence[int], samples: int, width: int, reach: float
) -> Float[Tensor, "sample position width"]:
    """Uniform noise between −reach and reach, drawn from named streams as `gaussian_noise` is."""
    draws = [
        [
            torch.rand(width, generator=stream(seed, "uniform noise", prompt, sample, position))
            for position in positions
        ]
        for sample in range(samples)
    ]
    return (2 * torch.stack([torch.stack(draw) for draw in draws]) - 1) * reach


def matched_noise(
    seed: int,
    *,
    prompt: str,
    positions: Sequence[int],
    samples: int,
    vectors: Float[Tensor, "vector width"],
    factor: float,
) -> Float[Tensor, "sample position width"]:
    """Gaussian noise with the covariance of some vectors, times a factor.

    Σ z_i (x_i − mean) / √(n − 1) with standard normal z has exactly the sample covariance of the n
    vectors, and needs no decomposition.

    Args:
        seed, prompt, positions, samples: as in `gaussian_noise`.
        vectors: contributions of the tokens that are matched.
        factor: on the standard deviation in every direction.

    Source: Meng et al. 2022, appendix B (covariance-matched noise); the construction is ours.
    """
    spread = (vectors - vectors.mean(0)).float() / (len(vectors) - 1) ** 0.5
    weights = torch.stack(
        [
            torch.stack(
                [
                    torch.randn(
                        len(vectors), generator=stream(seed, "matched noise", prompt, sample, position)
                    )
                    for position in positions
                ]
            )
            for sample in range(samples)
        ]
    )
    return weights @ spread * factor


def corrupting_noise(
    kind: str,
    seed: int,
    *,
    prompt: str,
    positions: Sequence[int],
    samples: int,
    width: int,
    size: float,
    vectors: np.ndarray | None = None,
) -> Float[Tensor, "sample position width"]:
    """Noise of one kind ("gaussian", "uniform", "covariance") for the noised tokens of one prompt.

    Args:
        size: SD of Gaussian noise, reach of uniform noise, or factor on the covariance-matched SDs.
        vectors: what covariance is matched to [vector width].

    Raises:
        LayerscopeError: fewer than two vectors to match.
    """
    common = {"prompt": prompt, "positions": positions, "samples": samples}
    if kind == "gaussian":
        return gaussian_noise(seed, **common, width=width, sd=size)  # type: ignore[arg-type]
    if kind == "uniform":
        return uniform_noise(seed, **common, width=width, reach=size)  # type: ignore[arg-type]
    if vectors is None or len(vectors) < 2:
        raise LayerscopeError(
            "there is no covariance to match",
            found=f"{0 if vectors is None else len(vectors)} tokens of subjects",
            expected="at least two",
            hint="corruption=gaussian",
        )
    return matched_noise(seed, **common, vectors=torch.from_numpy(vectors), factor=size)  # type: ignore[arg-type]
