"""context_reading: its index from plain vectors, its sums, and what it refuses. The split itself: tests/runs."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.runs.context_split import split_context
from layerscope.runs.windows import full_run

TEXTS = [
    "the red fox met the old dog in the town of stone, and the small bird sang. the old dog ran to the red town",
    "a small bird sang and the dog ran to the red town of stone. the old fox, the red bird and the dog met him",
    "the dog ran. the bird sang, and Old Red Fox met the dog in the red town of stone and sang to the old bird",
]
FEW = {"targets": 3, "ranges": (3, 9), "resamples": 100}


def run(family: str = "llama", texts: Any = TEXTS, **settings: Any) -> xr.Dataset:
    model = zoo.layered(family, flipped=family != "gpt_neox")
    return ls.run("context_reading", model, texts, **(FEW | settings), progress=False)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return run()


def test_the_index_is_the_centroid_of_plain_vectors(result: xr.Dataset) -> None:
    model, differences = zoo.layered("llama", flipped=True), []
    for name, text in zip(("passage-001", "passage-002", "passage-003"), TEXTS, strict=True):
        targets = result.position.values[result.token_passage.values == name].tolist()
        found = split_context(
            model,
            full_run(model, [0, *zoo.tokenizer().encode(text)]),
            targets,
            distances=(1, 3, 9),
            cuts=(3,),
        )
        whole, within = found.attention.numpy(), found.from_within.numpy()
        length = np.sqrt((whole**2).sum(-1))
        near = np.sqrt(((within[1] - within[0]) ** 2).sum(-1)) / length
        far = np.sqrt(((whole - within[2]) ** 2).sum(-1)) / length
        near, far = near.mean(axis=1), far.mean(axis=1)
        layers = np.arange(4)
        differences.append((layers * far).sum() / far.sum() - (layers * near).sum() / near.sum())

    assert float(result.far_less_near) == pytest.approx(np.mean(differences), abs=2e-3)
    assert float(result.far_less_near_low) <= float(result.far_less_near) <= float(result.far_less_near_high)


def test_what_the_four_parts_bring_sums_to_the_whole_difference(result: xr.Dataset) -> None:
    final = result.brought.isel(layer=-1).sum("part")

    np.testing.assert_allclose(final, 1.0, atol=1e-3)
    assert float(result.largest_gap) < 1e-3


def test_targets_have_something_beyond_the_last_range(result: xr.Dataset) -> None:
    assert (result.position > 9).all()
    assert result.sizes["token"] == 9
    assert result.sizes["range"] == 3


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "gpt_oss"])
def test_it_runs_on_families_of_every_kind(family: str) -> None:
    found = run(family, TEXTS[:2])

    assert float(found.largest_gap) < 1e-2
    assert ls.draw(found)
    assert experiments.load("context_reading").claims(found)


@pytest.mark.parametrize("family", ["gptj", "recurrent_gemma"])
def test_families_out_of_reach_are_refused_by_name(family: str) -> None:
    with pytest.raises(LayerscopeError, match=r"not available on|cannot be separated"):
        run(family)


@pytest.mark.parametrize(
    ("texts", "settings", "problem"),
    [
        (["the dog"], {}, "beyond the last range"),
        (TEXTS, {"ranges": ()}, "does not fit"),
        (TEXTS, {"ranges": (-3,)}, "does not fit"),
        (TEXTS, {"ranges": (True,)}, "not true or false"),
        (TEXTS, {"ranges": (3, 400)}, "beyond the last range"),
    ],
)
def test_bad_input_is_refused_by_name(texts: list[str], settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LayerscopeError, match=problem):
        run(texts=texts, **settings)


def test_texts_without_bos_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="needs a token to stand first"):
        ls.run("context_reading", zoo.layered("gpt2"), TEXTS, bos="never", progress=False)
