"""The cache of states gives what a plain reading gives, whatever happens to its files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.untrained import untrained_twin
from layerscope.runs import state_cache
from layerscope.runs.reading import read_states
from layerscope.runs.state_cache import StateCache, groups

TEXTS = [(5, 9, 40, 77), (8, 9), (100, 3, 2, 1), (7,), (300, 12, 14, 19, 20, 21)]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.states"))


@pytest.fixture
def model() -> LayeredModel:
    return zoo.layered("llama")


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "mistral", "gemma2", "gptj", "gpt_oss", "recurrent_gemma"]
)
def test_states_are_those_that_one_text_alone_has(family: str, tmp_path: Path) -> None:
    model = zoo.layered(family, flipped=True)
    cache = StateCache(model, folder=tmp_path)

    for depth in range(model.n_layers + 1):
        plain = torch.cat([read_states(model, ids)[depth] for ids in TEXTS])

        torch.testing.assert_close(cache.states(TEXTS, depth), plain, rtol=1e-4, atol=1e-5)


def test_a_second_reading_asks_the_model_nothing_and_gives_the_same_bytes(
    model: LayeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [StateCache(model, folder=tmp_path).states(TEXTS, depth) for depth in range(5)]
    cache = StateCache(model, folder=tmp_path)
    monkeypatch.setattr(model, "logits", None)

    again = [cache.states(TEXTS, depth) for depth in range(5)]

    assert len(_files(tmp_path)) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_without_a_cache_the_bytes_are_the_same(model: LayeredModel, tmp_path: Path) -> None:
    with_cache = StateCache(model, folder=tmp_path, tokens_per_pass=8).states(TEXTS, 3)

    without = StateCache(model, folder=None, tokens_per_pass=8).states(TEXTS, 3)

    assert torch.equal(with_cache, without)


def test_other_weights_other_texts_and_other_order_are_other_files(
    model: LayeredModel, tmp_path: Path
) -> None:
    StateCache(model, folder=tmp_path).states(TEXTS, 1)
    StateCache(model, folder=tmp_path).states(TEXTS[::-1], 1)
    StateCache(model, folder=tmp_path).states([(5, 9, 40), (77, 8, 9), *TEXTS[2:]], 1)
    StateCache(untrained_twin(model), folder=tmp_path).states(TEXTS, 1)
    assert len(_files(tmp_path)) == 4

    before = StateCache(model, folder=tmp_path).states(TEXTS, 4)
    with torch.no_grad():
        model.module.model.layers[2].mlp.down_proj.weight.mul_(2)
    after = StateCache(model, folder=tmp_path).states(TEXTS, 4)

    assert len(_files(tmp_path)) == 5
    assert not torch.allclose(before, after)


def test_a_damaged_file_is_noticed_and_read_anew(model: LayeredModel, tmp_path: Path) -> None:
    expected = StateCache(model, folder=tmp_path).states(TEXTS, 2)
    (file,) = _files(tmp_path)
    whole = file.read_bytes()
    stretch = (len(whole) - 4 * 5) // 5
    altered = bytearray(whole)
    altered[2 * stretch + 7] ^= 1

    for damaged in (bytes(altered), whole[: len(whole) // 3], b""):
        file.write_bytes(damaged)
        assert torch.equal(StateCache(model, folder=tmp_path).states(TEXTS, 2), expected)
        assert file.read_bytes() == whole


def test_the_bound_is_kept_and_what_was_used_longest_ago_goes_first(
    model: LayeredModel, tmp_path: Path
) -> None:
    one = StateCache(model, folder=tmp_path)
    one.states(TEXTS, 0)
    size = _files(tmp_path)[0].stat().st_size
    old = _files(tmp_path)[0]
    two = [TEXTS[1], TEXTS[0], *TEXTS[2:]]
    StateCache(model, folder=tmp_path, bound=2 * size).states(two, 0)
    middle = next(path for path in _files(tmp_path) if path != old)
    os.utime(middle, (1, 1))
    StateCache(model, folder=tmp_path, bound=2 * size).states(TEXTS[::-1], 0)

    assert old in _files(tmp_path)
    assert middle not in _files(tmp_path)
    assert sum(path.stat().st_size for path in _files(tmp_path)) <= 2 * size


def test_a_group_larger_than_the_bound_is_read_and_not_kept(model: LayeredModel, tmp_path: Path) -> None:
    states = StateCache(model, folder=tmp_path, bound=100).states(TEXTS, 1)

    assert torch.equal(states, StateCache(model, folder=None).states(TEXTS, 1))
    assert not _files(tmp_path)


def test_a_folder_that_cannot_be_written_costs_time_only(model: LayeredModel, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")

    states = StateCache(model, folder=in_the_way / "below").states(TEXTS, 1)

    assert torch.equal(states, StateCache(model, folder=None).states(TEXTS, 1))


def test_what_a_killed_writer_left_is_removed_when_it_is_old(model: LayeredModel, tmp_path: Path) -> None:
    fresh, stale = tmp_path / ".a.states.1.tmp", tmp_path / ".b.states.2.tmp"
    fresh.write_bytes(b"x")
    stale.write_bytes(b"x")
    os.utime(stale, (time.time() - 7200, time.time() - 7200))

    StateCache(model, folder=tmp_path).states(TEXTS, 1)

    assert fresh.exists()
    assert not stale.exists()


def test_a_writer_that_dies_leaves_no_file(
    model: LayeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = StateCache(model, folder=tmp_path)
    calls = []

    def dies(*args: object, **more: object) -> None:
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "logits", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.states(TEXTS, 1)

    assert calls
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_somebody_edits_is_not_kept(model: LayeredModel, tmp_path: Path) -> None:
    plain = StateCache(model, folder=tmp_path).states(TEXTS, 4)
    handle = model.blocks[1].register_forward_pre_hook(lambda _, args: (args[0] * 3, *args[1:]))

    edited = StateCache(model, folder=tmp_path).states(TEXTS, 4)
    handle.remove()

    assert not torch.allclose(plain, edited)
    assert len(_files(tmp_path)) == 1


def test_half_precision_is_kept_bit_for_bit(tmp_path: Path) -> None:
    model = load_model(zoo.make("llama").to(torch.bfloat16), tokenizer=zoo.tokenizer())

    kept = StateCache(model, folder=tmp_path).states(TEXTS, 3)

    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept, StateCache(model, folder=None).states(TEXTS, 3))


def test_the_environment_can_switch_it_off(
    model: LayeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSCOPE_STATE_CACHE", "off")
    assert StateCache(model).folder is None
    monkeypatch.setenv("LAYERSCOPE_STATE_CACHE", str(tmp_path / "there"))
    assert StateCache(model).folder == tmp_path / "there"
    monkeypatch.delenv("LAYERSCOPE_STATE_CACHE")
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "all"))
    assert StateCache(model).folder == tmp_path / "all" / "states"
    monkeypatch.setenv("LAYERSCOPE_CACHE", "off")
    assert StateCache(model).folder is None
    monkeypatch.delenv("LAYERSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert StateCache(model).folder == tmp_path / "layerscope" / "states"


def test_groups_hold_every_text_once_and_not_too_many_tokens() -> None:
    lengths = [3, 4, 5, 100, 1, 1, 9]

    found = list(groups(lengths, tokens=10))

    assert [index for group in found for index in group] == list(range(7))
    assert [list(group) for group in found] == [[0, 1], [2], [3], [4, 5], [6]]
    assert list(groups([], tokens=10)) == []


def test_picked_states_are_those_of_the_whole_texts(
    model: LayeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [StateCache(model, folder=None).states(TEXTS, depth).numpy() for depth in (0, 3)]
    rows = np.random.default_rng(0).permutation(sum(map(len, TEXTS)))[:9]
    monkeypatch.setattr(state_cache, "groups", lambda lengths: groups(lengths, tokens=6))

    for folder in (tmp_path, None):
        found = StateCache(model, folder=folder).picked(TEXTS, [0, 3], rows)
        np.testing.assert_allclose(found, [states[rows] for states in whole], atol=1e-6)

    # One file for each group of which a token is asked for, and no others.
    sizes = [[len(TEXTS[text]) for text in group] for group in groups([len(t) for t in TEXTS], tokens=6)]
    ends = np.cumsum([sum(size) for size in sizes])
    assert len(list(tmp_path.glob("*.states"))) == len(set(np.searchsorted(ends, rows, side="right")))
