"""Random draws that depend on nothing but their names, and how several of them are drawn together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.runs.drawing import TOGETHER, Drawing


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
    seed: int,
    *,
    prompt: str,
    positions: Sequence[int],
    samples: int,
    width: int,
    sd: float,
    drawn: Drawing = "plain",
) -> Float[Tensor, "sample position width"]:
    """Gaussian noise for the noised tokens of one prompt, float32 on the CPU.

    Each (prompt, sample, token) has a stream of its own, so every patch of a prompt meets the same
    noise, and asking for more samples leaves the first ones as they were. Draws that are made together
    (`TOGETHER`) share the stream of their unit; tokens never share one.

    Args:
        seed: the run's seed.
        prompt: the prompt's text.
        positions: positions of the noised tokens, which name their streams.
        samples: number of draws.
        width: entries of a state.
        sd: standard deviation of each entry, in the units of the residual stream.
        drawn: how draws are made; each one alone is Gaussian whichever way.
    """
    return _normal(drawn, seed, "noise", prompt, positions, samples, width) * sd


def uniform_noise(
    seed: int,
    *,
    prompt: str,
    positions: Sequence[int],
    samples: int,
    width: int,
    reach: float,
    drawn: Drawing = "plain",
) -> Float[Tensor, "sample position width"]:
    """Uniform noise between −reach and reach, drawn from named streams as `gaussian_noise` is."""

    def alone(generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(width, generator=generator) - 1

    def together(points: Tensor) -> Tensor:
        return 2 * points - 1

    names = ("uniform noise", prompt)
    return _of_tokens(drawn, seed, names, positions, samples, width, alone, together) * reach


def matched_noise(
    seed: int,
    *,
    prompt: str,
    positions: Sequence[int],
    samples: int,
    vectors: Float[Tensor, "vector width"],
    factor: float,
    drawn: Drawing = "plain",
) -> Float[Tensor, "sample position width"]:
    """Gaussian noise with the covariance of some vectors, times a factor.

    Σ z_i (x_i − mean) / √(n − 1) with standard normal z has exactly the sample covariance of the n
    vectors, and needs no decomposition.

    Args:
        seed, prompt, positions, samples, drawn: as in `gaussian_noise`.
        vectors: contributions of the tokens that are matched.
        factor: on the standard deviation in every direction.

    Source: Meng et al. 2022, appendix B (covariance-matched noise); the construction is ours.
    """
    spread = (vectors - vectors.mean(0)).float() / (len(vectors) - 1) ** 0.5
    weights = _normal(drawn, seed, "matched noise", prompt, positions, samples, len(vectors))
    return weights @ spread * factor


def _normal(
    drawn: Drawing, seed: int, name: str, prompt: str, positions: Sequence[int], samples: int, width: int
) -> Float[Tensor, "sample position width"]:
    """Standard normal entries."""

    def alone(generator: torch.Generator) -> Tensor:
        return torch.randn(width, generator=generator)

    return _of_tokens(drawn, seed, (name, prompt), positions, samples, width, alone, torch.special.ndtri)


def _of_tokens(
    drawn: Drawing,
    seed: int,
    names: tuple[str, str],
    positions: Sequence[int],
    samples: int,
    width: int,
    alone: Callable[[torch.Generator], Tensor],
    together: Callable[[Tensor], Tensor],
) -> Float[Tensor, "sample position width"]:
    """Draws of every token, symmetric about 0.

    Args:
        alone: one draw from a generator [width].
        together: draws from points of the unit cube [draw width].
    """

    def one(number: int, position: int) -> Tensor:
        return alone(stream(seed, *names, number, position))

    def unit(number: int, position: int) -> Tensor:
        size = TOGETHER[drawn]
        if drawn == "plain":
            return one(number, position)[None]
        if drawn == "antithetic":
            draw = one(number, position)
            return torch.stack([draw, -draw])
        if drawn == "balanced":
            draws = torch.stack([one(number * size + place, position) for place in range(size)])
            return (draws - draws.mean(0)) * (size / (size - 1)) ** 0.5
        scrambled = draw_number(seed, "sobol", *names, number, position)
        return together(_sobol_points(size, width, scrambled)).float()

    units = range(-(-samples // TOGETHER[drawn]))
    tokens = [torch.cat([unit(number, position) for number in units])[:samples] for position in positions]
    return torch.stack(tokens, dim=1)


def _sobol_points(points: int, width: int, scrambled: int) -> Float[Tensor, "{points} {width}"]:
    """The first points of Sobol's sequence, scrambled at random, in the middle of their finest cells: never 0 or 1.

    Source: Matoušek 1998, "On the L2-discrepancy for anchored boxes" (linear scrambling with a shift), by torch's
    engine (at most 21,201 entries).
    """
    engine = torch.quasirandom.SobolEngine(width, scramble=True, seed=scrambled)  # type: ignore[no-untyped-call]
    return engine.draw(points, dtype=torch.float64) + 2.0 ** -(engine.MAXBIT + 1)


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
    drawn: Drawing = "plain",
) -> Float[Tensor, "sample position width"]:
    """Noise of one kind ("gaussian", "uniform", "covariance") for the noised tokens of one prompt.

    Args:
        size: SD of Gaussian noise, reach of uniform noise, or factor on the covariance-matched SDs.
        vectors: what covariance is matched to [vector width].
        drawn: how draws are made.

    Raises:
        LayerscopeError: fewer than two vectors to match.
    """
    common = {"prompt": prompt, "positions": positions, "samples": samples, "drawn": drawn}
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
