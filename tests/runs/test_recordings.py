"""The beginning of a recording, and rows of attention, against runs and patterns of the models' own."""

from typing import Any

import numpy as np
import pytest
import torch

import zoo
from layerscope.runs.edits import Branch, Cut, LostMass
from layerscope.runs.patching import record_base, run_patched
from layerscope.runs.read_attention import attention_of_queries
from layerscope.runs.recordings import BaseRun

TEXTS = (
    (0, 7, 81, 33, 200, 150, 9, 12, 61, 70, 255, 30),
    (0, 9, 150, 80, 201, 151, 10, 77, 7, 40, 19, 4),
)
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_oss", "stablelm", "recurrent_gemma"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [6, 12])
def test_the_beginning_of_a_recording_serves_like_a_run_of_the_beginning(family: str, tokens: int) -> None:
    model = zoo.layered(family, flipped=True)
    kinds: tuple[tuple[tuple[int, ...], LostMass], ...] = (
        ((1, 2, 3, 4), "renormalise"),
        ((2, tokens - 2), "mean"),
        ((), "renormalise"),
    )
    branches = [
        Branch((Cut((layer,), (tokens - 1,), keys, lost=lost),), row=row)
        for row in (0, 1)
        for layer in (0, 1, 3)
        for keys, lost in kinds
    ]
    means = [torch.randn(1, 1) for _ in range(model.n_layers)]

    whole = record_base(model, BaseRun(TEXTS))
    options: dict[str, Any] = {
        "read": lambda predictions, _: predictions.logits()[:, -1],
        "mean_values": means,
    }
    found = run_patched(model, branches, base=whole.until(tokens), **options)
    short = BaseRun(tuple(ids[:tokens] for ids in TEXTS))
    wanted = run_patched(model, branches, base=short, plain=True, **options)

    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
    assert float((found[:9] - found[2]).abs().max()) > 1e-3  # something was cut


def test_noise_beyond_the_end_is_not_forgotten() -> None:
    model = zoo.layered("gpt2")
    run = BaseRun(TEXTS[:1], torch.randn(1, 1, 48), (8,))

    with pytest.raises(ValueError, match="noise"):
        record_base(model, run).until(8)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "stablelm"])
def test_rows_of_attention_are_the_models_own(family: str) -> None:
    model, bare = zoo.layered(family, flipped=True), zoo.make(family, flipped=True)
    bare.set_attn_implementation("eager")
    queries = [(0, 11), (1, 5), (0, 3)]

    shares, visible = attention_of_queries(model, TEXTS, queries)

    ids = torch.tensor(TEXTS)
    with torch.no_grad():
        own = bare(ids, attention_mask=torch.ones_like(ids), output_attentions=True, use_cache=False)
    for place, (text, position) in enumerate(queries):
        for layer, pattern in enumerate(own.attentions):
            row = pattern[text, :, position].numpy()
            np.testing.assert_allclose(shares[place, layer], row, atol=1e-5)
            assert (visible[place, layer] == (row > 0).any(axis=0)).all()
