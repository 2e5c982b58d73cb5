"""Verdicts are kept for what decides them, and taken only when whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from layerscope.models import check, load, verdicts
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import check_length
from layerscope.models.load import load_model
from layerscope.results import remembered
from layerscope.results.remembered import keep, recalled
from layerscope.runs.branch_check import check_branches


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAYERSCOPE_VERDICTS", str(tmp_path / "verdicts"))
    return tmp_path / "verdicts"


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of models whose weights were looked at: the first step of every load check."""
    seen: list[str] = []
    look = check._weights_are_finite
    monkeypatch.setattr(
        check, "_weights_are_finite", lambda model: (seen.append(model.facts.name), look(model))[1]
    )
    return seen


def saved(tmp_path: Path, family: str, *, flipped: bool = True, seed: int = 0) -> str:
    folder = tmp_path / f"{family}-{seed}"
    if not folder.exists():
        zoo.make(family, flipped=flipped, seed=seed).save_pretrained(folder)
        zoo.tokenizer().save_pretrained(folder)
    return str(folder)


def known_of(model: LayeredModel) -> dict[str, Any]:
    names = {module: name for name, module in model.module.named_modules()}
    return {
        **{name: getattr(model, name) for name in ("checks", "refused", "additions", "axes")},
        **{name: getattr(model, name) for name in ("takes_positions", "keeps_last")},
        **{name: getattr(model, name) for name in ("checked_to", "branches_to", "prefixes_to")},
        "attention": [names.get(module) for module in model.attention_modules],
        "after": [names[module] for module in model.structure.after],
        "logit_map": model.structure.logit_map,
    }


def tried(source: str) -> LayeredModel:
    model = load_model(source)
    check_branches(model)
    check_length(model, 40)
    check_branches(model, 40)
    return model


@pytest.mark.parametrize("family", ["gemma2", "opt", "recurrent_gemma", "phi3_longrope"])
def test_a_kept_verdict_is_what_the_checks_found(
    family: str, kept: Path, tmp_path: Path, trials: list[str]
) -> None:
    source = saved(tmp_path, family)
    first = tried(source)

    again = tried(source)

    assert len(trials) == 1
    assert known_of(again) == known_of(first)
    assert len(list(kept.glob("*.json"))) == 1


def test_what_a_long_text_refuses_does_not_refuse_a_short_one(kept: Path, tmp_path: Path) -> None:
    source = saved(tmp_path, "phi3_longrope")
    assert tried(source).prefixes_to == 16

    short = load_model(source)

    assert short.prefixes_to is None
    assert short.checked_to == 0


@pytest.mark.parametrize("refused", [False, True])
def test_a_longer_trial_speaks_for_a_shorter_one_only_where_it_refused_nothing_more(
    refused: bool, kept: Path, tmp_path: Path
) -> None:
    source = saved(tmp_path, "gpt2")
    longer = load_model(source)
    longer.checked_to = 40
    longer.refused |= {"pattern": "states differ from 40 tokens on"} if refused else {}
    verdicts.keep(longer)

    shorter = load_model(source)

    assert verdicts.recall(shorter, checked_to=20) is not refused
    assert shorter.refused == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"refused"', '"else"'),
        lambda text: text.replace("model.norm", "no.such.module"),
        lambda text: json.dumps(
            json.loads(text) | {"answer": {"by_length": {"0 0": {"run": "__import__('os')"}}}}
        ),
        lambda text: json.dumps(json.loads(text) | {"answer": None}),
        lambda text: json.dumps(json.loads(text) | {"about": {}}),
    ],
)
def test_damaged_verdicts_are_as_good_as_none(
    damage: Any, kept: Path, tmp_path: Path, trials: list[str]
) -> None:
    source = saved(tmp_path, "gemma2")
    first = known_of(tried(source))
    file = next(kept.glob("*.json"))
    file.write_text(damage(file.read_text()))

    assert known_of(tried(source)) == first
    assert len(trials) == 2


def test_other_weights_code_or_remote_code_are_tried_anew(
    kept: Path, tmp_path: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, "gemma2")
    load_model(source)
    load_model(saved(tmp_path, "gemma2", seed=1))
    assert len(trials) == 2
    monkeypatch.setattr(verdicts, "sources_digest", lambda rooms: "other")
    load_model(source)
    assert len(trials) == 3
    load_model(source, trust_remote_code=True)
    load_model(source, trust_remote_code=True)
    assert len(trials) == 5


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Digests for which every byte of the weights was read, in a cache of this test's own."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []
    read = LayeredModel._hashed_weights
    monkeypatch.setattr(LayeredModel, "_hashed_weights", lambda model: seen.append(read(model)) or seen[-1])
    return seen


def test_the_same_files_are_hashed_once(kept: Path, tmp_path: Path, hashed: list[str]) -> None:
    source = saved(tmp_path, "gpt2")
    first, again = load_model(source).weights_digest(), load_model(source).weights_digest()
    assert first == again
    assert hashed == [first]


def with_bias(path: Path, first: list[float]) -> None:
    """Write a bias whose sum is exact: these numbers and zeros."""
    tensors = load_file(path)
    bias = torch.zeros_like(tensors["transformer.h.1.mlp.c_proj.bias"])
    bias[: len(first)] = torch.tensor(first)
    save_file(tensors | {"transformer.h.1.mlp.c_proj.bias": bias}, path, metadata={"format": "pt"})


def test_a_file_edited_in_place_is_noticed_though_its_sums_size_and_time_stay(
    kept: Path, tmp_path: Path, hashed: list[str], trials: list[str]
) -> None:
    source = saved(tmp_path, "gpt2")
    path = Path(source) / "model.safetensors"
    with_bias(path, [1.0, -1.0])
    before, status = load_model(source), path.stat()
    with_bias(path, [-1.0, 1.0])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size

    after = load_model(source)

    assert after.sums() == before.sums()
    assert after.weights_digest() != before.weights_digest()
    assert after.weights_digest() == after._hashed_weights()
    assert len(trials) == 2


def test_weights_that_are_not_what_their_files_made_before_are_hashed(
    kept: Path, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file was written between its hashing and its reading."""
    source = saved(tmp_path, "gpt2")
    first = load_model(source).weights_digest()
    build = load._built

    def built(*arguments: Any) -> Any:
        module, rest = build(*arguments)
        module.transformer.h[1].mlp.c_proj.bias.data[0] += 1
        return module, rest

    monkeypatch.setattr(load, "_built", built)
    assert load_model(source).weights_digest() != first
    assert len(hashed) == 2


def test_a_remembered_digest_is_forgotten_with_the_first_edit(
    kept: Path, tmp_path: Path, hashed: list[str]
) -> None:
    source = saved(tmp_path, "gpt2")
    first = load_model(source).weights_digest()
    model = load_model(source)
    with torch.no_grad():
        model.blocks[1].get_submodule("mlp.c_proj").get_parameter("bias")[:2] += torch.tensor([1.0, -1.0])
    assert model.weights_digest() != first


def test_a_verdict_is_not_about_weights_that_were_edited_behind_the_back_of_torch(
    kept: Path, tmp_path: Path
) -> None:
    model = load_model(saved(tmp_path, "gpt2"))
    assert verdicts.recall(model)

    model.blocks[1].get_submodule("attn.c_attn").get_parameter("weight").data.mul_(2)

    assert not verdicts.recall(model)


def test_the_home_of_nobody_keeps_nothing(
    kept: Path, tmp_path: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSCOPE_VERDICTS", "~nobody-of-this-name/verdicts")
    monkeypatch.setenv("LAYERSCOPE_CACHE", "~nobody-of-this-name/cache")
    source = saved(tmp_path, "gpt2")
    load_model(source)
    load_model(source)
    assert len(trials) == 2
    keep("anything", {}, 1)
    assert recalled("anything", {}) is None


def test_a_model_object_is_tried_every_time(kept: Path, trials: list[str]) -> None:
    module = zoo.make("llama")

    load_model(module, tokenizer=zoo.tokenizer())
    load_model(module, tokenizer=zoo.tokenizer())

    assert len(trials) == 2
    assert not kept.exists()


def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("LAYERSCOPE_VERDICTS", str(blocked))

    assert known_of(tried(saved(tmp_path, "llama")))["refused"] == {}
    assert len(trials) == 1


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path))
    each = len(json.dumps({"about": 0, "answer": "0"}))
    monkeypatch.setattr(remembered, "_MOST_BYTES", 4 * each)
    for number in range(3):
        keep("numbers", number, f"{number}")
        os.utime(
            max((tmp_path / "numbers").iterdir(), key=lambda path: path.stat().st_mtime), (number, number)
        )
    assert recalled("numbers", 0) == "0"  # used now

    keep("numbers", 3, "3")
    keep("numbers", 4, "4")

    assert [recalled("numbers", number) for number in range(5)] == ["0", None, "2", "3", "4"]


def test_writers_leave_whole_files_and_no_others(kept: Path, tmp_path: Path) -> None:
    models = [load_model(saved(tmp_path, "llama")) for _ in range(3)]
    for number, model in enumerate(models):
        model.checked_to = 10 + number
        verdicts.keep(model)

    (file,) = kept.iterdir()
    assert {"0 0", "10 0", "11 0", "12 0"} == set(json.loads(file.read_text())["answer"]["by_length"])
