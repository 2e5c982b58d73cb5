"""Noise by name: plain draws as they always were, and draws that are made together."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from layerscope.runs.drawing import TOGETHER, Drawing
from layerscope.runs.noise import corrupting_noise, gaussian_noise, stream

PLAIN = "f3ec7e32be7c3490"
"""Of plain draws, as they were when drawing together was new."""
DRAWN: list[Drawing] = list(TOGETHER)
GIVEN: dict[str, Any] = {"prompt": "a prompt", "positions": (1, 2), "samples": 16, "width": 64, "sd": 1.0}


def test_plain_draws_are_the_named_streams_one_by_one() -> None:
    noise = gaussian_noise(3, **GIVEN)

    for sample in range(16):
        for place, position in enumerate((1, 2)):
            alone = torch.randn(64, generator=stream(3, "noise", "a prompt", sample, position))
            assert torch.equal(noise[sample, place], alone)
    digest = hashlib.sha256(noise.numpy().tobytes()).hexdigest()
    assert digest.startswith(PLAIN), "plain draws changed: no saved run could be replayed"


@pytest.mark.parametrize("drawn", DRAWN)
def test_a_draw_depends_on_prompt_sample_and_token_alone(drawn: Drawing) -> None:
    noise = gaussian_noise(0, **GIVEN, drawn=drawn)

    fewer = gaussian_noise(0, **GIVEN | {"samples": 8}, drawn=drawn)
    one = gaussian_noise(0, **GIVEN | {"positions": (2,)}, drawn=drawn)
    assert torch.equal(noise[:8], fewer)
    assert torch.equal(noise[:, 1:], one)
    for other in ({"prompt": "another"}, {"positions": (3, 4)}):
        assert not torch.equal(noise, gaussian_noise(0, **GIVEN | other, drawn=drawn))
    assert not torch.equal(noise, gaussian_noise(1, **GIVEN, drawn=drawn))
    assert noise.dtype == torch.float32


@pytest.mark.parametrize("drawn", DRAWN)
def test_each_draw_alone_is_gaussian(drawn: Drawing) -> None:
    many = gaussian_noise(0, **GIVEN | {"samples": 400}, drawn=drawn).numpy()

    for place in range(TOGETHER[drawn]):  # one draw of every unit, so that they are independent
        assert kstest(many[place :: TOGETHER[drawn]].ravel(), "norm").pvalue > 1e-4


def test_draws_of_a_unit_depend_on_one_another_as_they_say() -> None:
    mirrored = gaussian_noise(0, **GIVEN, drawn="antithetic")
    balanced = gaussian_noise(0, **GIVEN, drawn="balanced")
    sobol = gaussian_noise(0, **GIVEN, drawn="sobol").double()

    assert torch.equal(mirrored[::2], -mirrored[1::2])
    assert torch.equal(mirrored[::2], gaussian_noise(0, **GIVEN | {"samples": 8}))
    assert balanced[:8].sum(0).abs().max() < 1e-5
    assert balanced[:7].sum(0).abs().max() > 1
    cells = (torch.special.ndtr(sobol[:8]) * 8).floor().sort(dim=0).values  # one in each eighth, per entry
    assert torch.equal(cells, torch.arange(8.0, dtype=torch.float64)[:, None, None].expand_as(cells))
    assert torch.isfinite(sobol).all()


@pytest.mark.parametrize("drawn", ["antithetic", "sobol"])
def test_uniform_and_matched_noise_are_drawn_together_too(drawn: Drawing) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    common: dict[str, Any] = {"prompt": "a", "positions": (1,), "samples": 800, "width": 64}

    uniform = corrupting_noise("uniform", 0, **common, size=2.0, drawn=drawn)[:, 0]
    matched = corrupting_noise("covariance", 0, **common, size=1.0, vectors=vectors, drawn=drawn)[:, 0]

    assert kstest(uniform[:: TOGETHER[drawn]].ravel().numpy(), "uniform", args=(-2, 4)).pvalue > 1e-4
    spread = torch.cov(matched.T.double()).diagonal() / torch.from_numpy(vectors.var(0, ddof=1))
    assert 0.9 < spread.mean() < 1.1
    assert uniform.reshape(-1, TOGETHER[drawn], 64).mean(1).var() < uniform.var() / TOGETHER[drawn] / 2
