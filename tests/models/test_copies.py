"""Float32 copies of weights: the same numbers, shared by processes, whatever happens to the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from layerscope.errors import LayerscopeWarning
from layerscope.models import copies, load
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.memory import own_bytes
from quick import Command

IDS = torch.tensor([[5, 9, 2, 31, 7]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, in which the smallest weights are worth a copy."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "_LEAST_BYTES", 0)
    return tmp_path / "cache" / "copies"


@pytest.fixture
def half(tmp_path: Path) -> Path:
    return save(tmp_path / "half", "llama")


def save(folder: Path, family: str, *, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Path:
    zoo.make(family, seed=seed).to(dtype).save_pretrained(folder)
    zoo.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that transformers is asked to read weights from, in order."""
    asked: list[Path] = []
    built = load._built

    def noting(place: Any, *rest: Any) -> Any:
        asked.append(place.folder)
        return built(place, *rest)

    monkeypatch.setattr(load, "_built", noting)
    return asked


def without_copies(source: Path) -> LayeredModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_COPIES", "off")
        return load_model(str(source))


def test_half_precision_is_copied_once_and_mapped_with_the_same_numbers(
    half: Path, cache: Path, sources: list[Path]
) -> None:
    plain = without_copies(half)
    assert not cache.exists()

    first, second = load_model(str(half)), load_model(str(half))

    (copy,) = cache.iterdir()
    assert sources == [half, half, copy, copy]
    for model in (first, second):
        assert own_bytes(model.module) == 0
        assert model.weights_digest() == plain.weights_digest()
        assert model.config_digest() == plain.config_digest()
        assert torch.equal(model.logits(IDS), plain.logits(IDS))
        assert model.facts == plain.facts
    assert own_bytes(plain.module) == 4 * plain.facts.n_parameters
    assert all(weight.data_ptr() % 64 == 0 for weight in first.module.parameters())


def test_float32_files_are_mapped_as_they_are(tmp_path: Path, cache: Path) -> None:
    folder = save(tmp_path / "whole", "llama", dtype=torch.float32)

    model = load_model(str(folder))

    assert own_bytes(model.module) == 0
    assert not cache.exists()


def test_other_weights_have_a_copy_of_their_own(half: Path, cache: Path, tmp_path: Path) -> None:
    before = load_model(str(half)).weights_digest()
    save(half, "llama", seed=1)

    after = load_model(str(half))

    assert after.weights_digest() == without_copies(half).weights_digest() != before
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["a bit", "cut short", "no seal", "no weights"])
def test_a_damaged_copy_is_made_anew(half: Path, cache: Path, sources: list[Path], damage: str) -> None:
    expected = load_model(str(half)).weights_digest()
    (copy,) = cache.iterdir()
    weights = copy / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    if damage == "a bit":
        whole[-9] ^= 1
        weights.write_bytes(whole)
    elif damage == "cut short":
        weights.write_bytes(whole[:-64])
    else:
        (weights if damage == "no weights" else copy / "copy.json").unlink()
    sources.clear()

    assert load_model(str(half)).weights_digest() == expected
    assert load_model(str(half)).weights_digest() == expected
    assert sources == [half, copy, copy]


def test_a_copy_that_differs_from_the_original_is_never_used_nor_tried_again(
    half: Path, cache: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without_copies(half).weights_digest()
    align = copies._align

    def altering(path: Path) -> None:
        align(path)
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(copies, "_align", altering)
    sources.clear()

    assert load_model(str(half)).weights_digest() == expected
    assert load_model(str(half)).weights_digest() == expected
    assert not list(cache.iterdir())
    assert [source == half for source in sources] == [True, False, True]


def test_weights_that_are_put_together_as_they_are_loaded_are_not_copied(tmp_path: Path, cache: Path) -> None:
    folder = save(tmp_path / "experts", "mixtral")

    assert load_model(str(folder)).weights_digest() == without_copies(folder).weights_digest()
    assert not list(cache.iterdir())


def test_small_models_and_other_dtypes_are_not_copied(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(str(half), dtype="bfloat16")
    monkeypatch.undo()
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(cache.parent))
    load_model(str(half))

    assert not cache.exists()


@pytest.mark.parametrize("lacking", ["a folder", "space", "the bound"])
def test_where_none_can_be_kept_it_is_said_and_all_is_as_without(
    half: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    expected = without_copies(half)
    if lacking == "a folder":
        cache.parent.mkdir(exist_ok=True)
        cache.write_text("in the way")
    elif lacking == "space":
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1000))
    else:
        monkeypatch.setenv("LAYERSCOPE_COPIES_GB", "0.000001")

    with pytest.warns(LayerscopeWarning, match="no copy of them can be kept") as said:
        model = load_model(str(half))

    assert len(said) == 1
    assert torch.equal(model.logits(IDS), expected.logits(IDS))
    assert not cache.is_dir() or not list(cache.iterdir())


def test_the_command_says_it_in_one_line(
    half: Path, monkeypatch: pytest.MonkeyPatch, command: Command, tmp_path: Path, passages_file: Path
) -> None:
    monkeypatch.setenv("LAYERSCOPE_COPIES_GB", "0.000001")
    asked = ("--model", half, "--passages", passages_file, "--workers", 1, "--out", tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        outcome = command("run", "hidden_states", *asked)

    (line,) = [line for line in outcome.err.splitlines() if "no copy of them can be kept" in line]
    assert outcome.code == 0
    assert line.startswith("layerscope: each process holds the model's float32 weights for itself")


def test_the_bound_is_kept(half: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(str(half))
    (first,) = cache.iterdir()
    os.utime(first, (1, 1))
    size = (first / "model.safetensors").stat().st_size
    monkeypatch.setenv("LAYERSCOPE_COPIES_GB", str(1.5 * size / 1e9))

    load_model(str(save(tmp_path / "other", "llama", seed=1)))

    (second,) = cache.iterdir()
    assert second != first


def test_editing_weights_leaves_the_copy_as_it_is(half: Path, cache: Path) -> None:
    model = load_model(str(half))
    before = model.weights_digest()
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(2)

    assert model.weights_digest() != before
    assert load_model(str(half)).weights_digest() == before


OTHER_PROCESS = """
import json, sys
from layerscope.models.load import load_model
from layerscope.models.memory import own_bytes
from quick import Command
model = load_model(sys.argv[1])
lines = iter(open("/proc/self/smaps"))
found = {}
for line in lines:
    if sys.argv[2] in line:
        for line in lines:
            word, *rest = line.split()
            if word == "VmFlags:":
                break
            if word in ("Rss:", "Pss:"):
                found[word] = found.get(word, 0) + int(rest[0])
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell what is shared")
def test_two_processes_hold_the_pages_once(half: Path, cache: Path) -> None:
    model = load_model(str(half))
    model.sums()
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(half), str(cache)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )

    held = json.loads(done.stdout)
    assert held["Rss:"] > 100  # kilobytes
    assert held["Pss:"] <= 0.6 * held["Rss:"]  # half of each page is this process's
    assert own_bytes(model.module) == 0
