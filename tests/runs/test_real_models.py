"""Branches against whole passes on real pretrained models, past the window of those that have one."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.runs import BaseRun, Branch, Cut, Predictions, Put, run_patched
from layerscope.text.passages import load_passages

REAL = Path.home() / ".cache" / "real-models"
PATCHES = {40: 7, 300: 6, 700: 7}  # how many of each length; the longest lie beyond a window of 512
READ_LAST = 2


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma-3-270m"])
def model(request: pytest.FixtureRequest) -> Iterator[LayeredModel]:
    folder = REAL / request.param
    if not (folder / "config.json").is_file():
        pytest.skip(f"no real model at {folder}: python ../shared/tools/real_models.py makes it")
    yield load_model(str(folder), dtype="float32")
    gc.collect()


def texts(model: LayeredModel, tokens: int) -> tuple[list[int], list[int]]:
    """The beginning of two texts that are made of the bundled passages, equally long."""
    whole = [
        model.tokenizer.encode(" ".join(passage.text for passage in load_passages("english")[start::2]))
        for start in (0, 1)
    ]
    return whole[0][:tokens], whole[1][:tokens]


def patches(model: LayeredModel, tokens: int, count: int) -> list[Branch]:
    """Edits of every kind, at layers and tokens by chance; the first one reads what lies beyond a window."""
    rng, n = random.Random(tokens), model.n_layers
    found = []
    for number in range(count):
        token = 1 if number == 0 else rng.randrange(1, tokens)
        layer = rng.randrange(n)
        window = tuple(range(layer, min(n, layer + 3)))
        few = tuple(sorted({token, rng.randrange(1, tokens)}))
        kinds: list[Put | Cut] = [
            Put("state", (layer,), (token,)),
            Put("attn_out", window, (token,)),
            Put("mlp_out", window, few),
            Put("head_out", (layer,), (token,), heads=(0,)),
            Put("v", (layer,), few),
            Cut((layer,), (token,), tuple(range(1, token)) or (0,), lost="renormalise"),
        ]
        found.append(Branch((kinds[number % len(kinds) if token > 1 else 0],)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tokens", PATCHES)
def test_random_patches_give_what_whole_passes_give(model: LayeredModel, tokens: int) -> None:
    ids, others = texts(model, tokens)
    assert len(ids) == len(others) == tokens
    branches = [*patches(model, tokens, PATCHES[tokens]), Branch(())]
    answers = torch.tensor([ids[-1], 11, 200, 4000])

    def read(said: Predictions, _: object) -> Tensor:
        runs, reads = said.shape
        found = said.read(tokens=answers.repeat(runs * reads, 1), rank=True)
        values = [found.log_probability, found.normaliser.total[:, None], found.rank[:, None].float()]
        return torch.cat(values, dim=1).reshape(runs, reads, -1)

    fast, whole = (
        run_patched(
            model,
            branches,
            base=BaseRun.of(ids),
            other=BaseRun.of(others),
            read=read,
            read_last=READ_LAST,
            plain=plain,
        )
        for plain in (False, True)
    )

    assert "branches" not in model.refused
    moved = (whole[:-1] - whole[-1]).abs().amax(dim=(1, 2))
    assert int((moved > 1e-3).sum()) >= len(branches) // 3  # patches that do nothing would prove nothing
    n = len(answers)
    torch.testing.assert_close(fast[..., :n].exp(), whole[..., :n].exp(), rtol=0, atol=1e-5)
    torch.testing.assert_close(fast[..., : n + 1], whole[..., : n + 1], rtol=0, atol=1e-3)
    # Among a quarter of a million tokens some lie so close together that rounding exchanges them.
    torch.testing.assert_close(fast[..., -1], whole[..., -1], rtol=0.01, atol=1)
