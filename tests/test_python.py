"""The Python API of the README."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import layerscope as ls
import zoo
from layerscope.planted.mover import mover, prompts_about

TEXT = "the red fox met the old dog"
_WRITTEN: list[str] = []
"""Files opened for writing and folders made by this process; the system tells of every one."""


def _note_what_is_written(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.mkdir" or (event == "open" and {"w", "a", "x", "+"} & set(str(arguments[1] or ""))):
        _WRITTEN.append(str(arguments[0]))


sys.addaudithook(_note_what_is_written)


def test_matrix_products_are_made_repeatable_before_torch_loads() -> None:
    code = "import os, layerscope; print(os.environ['MKL_CBWR'])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip()


def test_everything_the_package_offers_can_be_had() -> None:
    for name in ls.__all__:
        assert getattr(ls, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tracer'"):
        ls.tracer  # noqa: B018


def test_read_gives_activations_with_their_tokens() -> None:
    model = zoo.layered("llama")

    states = ls.read(model, TEXT, sites=["resid_pre 1", "blocks.3.hook_resid_post"])

    assert states.dims == ("site", "token", "width")
    assert list(states.site.values) == ["resid_pre 1", "resid_post 3"]
    assert list(states.token_text.values[:3]) == ["<bos>", "the", " red"]
    ids = torch.tensor([[0, *zoo.tokenizer().encode(TEXT)]])
    with torch.no_grad():
        own = zoo.make("llama")(ids, output_hidden_states=True).hidden_states[1][0]
    np.testing.assert_allclose(states.sel(site="resid_pre 1"), own, rtol=1e-4, atol=1e-5)


def test_read_gives_patterns_by_head_and_key() -> None:
    pattern = ls.read(zoo.layered("llama"), TEXT, sites="pattern 2")

    assert pattern.dims == ("site", "head", "token", "key")
    np.testing.assert_allclose(pattern.sum("key"), 1, rtol=1e-5)


def test_sites_of_different_shapes_need_two_calls() -> None:
    with pytest.raises(ls.LayerscopeError, match="different shapes"):
        ls.read(zoo.layered("llama"), TEXT, sites=["pattern 2", "resid_pre 0"])


def test_a_run_kept_on_disk_is_returned_at_once_when_asked_again(tmp_path: Path) -> None:
    model, prompts = mover(layer=1), prompts_about()[:2]

    first = ls.run("causal_trace", model, prompts, samples=2, out=tmp_path, progress=False)
    (folder,) = tmp_path.iterdir()
    written = (folder / "result.nc").stat().st_mtime_ns
    again = ls.run("causal_trace", model, prompts, samples=2, out=tmp_path, progress=False)

    assert first.identical(again)
    assert (folder / "result.nc").stat().st_mtime_ns == written
    assert ls.open_run(folder).result().identical(first)
    assert "complete" in repr(ls.open_run(folder))


def test_a_run_without_a_folder_gives_the_same_result_and_writes_no_file(tmp_path: Path) -> None:
    model, prompts = mover(layer=1), prompts_about()[:2]
    in_a_folder = ls.run("causal_trace", model, prompts, samples=1, progress=False, out=tmp_path)
    _WRITTEN.clear()

    in_memory = ls.run("causal_trace", model, prompts, samples=1, progress=False)

    assert _WRITTEN == []
    assert in_memory.identical(in_a_folder)
    assert {name: value.dtype for name, value in in_memory.variables.items()} == {
        name: value.dtype for name, value in in_a_folder.variables.items()
    }


def test_an_old_dataset_is_not_drawn_by_guessing() -> None:
    result = ls.run("causal_trace", mover(layer=1), prompts_about()[:2], samples=1, progress=False)
    del result.attrs["experiment"]

    with pytest.raises(ls.LayerscopeError, match="does not say which experiment"):
        ls.draw(result)
