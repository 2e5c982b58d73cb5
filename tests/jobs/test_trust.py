"""A run folder never runs code, and what its record names is never fetched."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import layerscope as ls
import zoo
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.models.load import load_model
from layerscope.results.store import RunFolder
from layerscope.results.trust import from_a_record, names_from_a_record
from quick import QUICK, Command, rewritten

CODE = """
import pathlib
pathlib.Path({flag!r}).write_text("code has run")
from transformers import GPT2Config, GPT2LMHeadModel
class Config(GPT2Config):
    model_type = "mine"
class Model(GPT2LMHeadModel):
    config_class = Config
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("the network was touched")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert asked == []


@pytest.fixture
def with_code(tmp_path: Path, tiny: Path) -> tuple[Path, Path]:
    """A model that brings code, and the file that its code writes when it is run."""
    folder, flag = tmp_path / "with-code", tmp_path / "flag"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(CODE.format(flag=str(flag)))
    return folder, flag


def edited(folder: Path, **asked: Any) -> None:
    rewritten(folder, lambda record: record["asked"].update(asked))


def emptied(folder: Path) -> None:
    """An interrupted run."""
    (folder / "result.nc").unlink()


COMMANDS = ["replay", "resume"]


@pytest.mark.parametrize("name", COMMANDS)
def test_trust_in_a_record_is_not_heard(
    saved: Path, with_code: tuple[Path, Path], command: Command, name: str
) -> None:
    folder, flag = with_code
    from layerscope.models.checkpoint import files_digest
    from layerscope.models.places import find_model

    edited(saved, model=str(folder), trust_remote_code=True, files=files_digest(find_model(str(folder))))
    if name == "resume":
        emptied(saved)

    outcome = command(name, saved)

    assert outcome.code == 2
    assert "--trust-remote-code" in outcome.err
    assert not flag.exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_another_model_is_refused_before_its_code_could_run(
    saved: Path, with_code: tuple[Path, Path], command: Command, name: str
) -> None:
    folder, flag = with_code
    edited(saved, model=str(folder), trust_remote_code=True)
    if name == "resume":
        emptied(saved)

    for options in ([], ["--trust-remote-code"], ["--trust-remote-code", "--model", folder]):
        outcome = command(name, saved, *options)
        assert outcome.code == 2
        assert "the model has changed since this run began" in outcome.err
        assert not flag.exists()


def test_a_record_without_the_files_sha256_needs_the_model_named(
    saved: Path, tiny: Path, with_code: tuple[Path, Path], command: Command
) -> None:
    folder, flag = with_code
    edited(saved, files="")
    outcome = command("replay", saved)
    assert outcome.code == 2
    assert f"--model {tiny}" in outcome.err
    assert command("replay", saved, "--model", tiny).out.startswith("bitwise")

    edited(saved, files="", model=str(folder), trust_remote_code=True)
    assert command("replay", saved, "--trust-remote-code").code == 2
    assert not flag.exists()


def test_a_model_that_was_moved_is_named_again(
    saved: Path, tiny: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(tiny, tmp_path / "elsewhere")
    edited(saved, model="/no/such/folder")

    assert command("replay", saved).code == 2
    assert command("replay", saved, "--model", tmp_path / "elsewhere").out.startswith("bitwise")
    assert ls.open_run(saved).replay(model=str(tmp_path / "elsewhere")).verdict == "bitwise"


def test_code_that_the_person_trusts_runs_and_can_be_replayed(
    with_code: tuple[Path, Path], prompts_file: Path, tmp_path: Path, command: Command
) -> None:
    folder, flag = with_code
    job = prepare(
        Request(
            "causal_trace",
            model=str(folder),
            prompts=str(prompts_file),
            settings=QUICK,
            trust_remote_code=True,
        )
    )
    run = running.run(job, tmp_path / "runs", Silent())
    assert flag.exists()
    flag.unlink()

    assert command("replay", run.path).code == 2
    assert not flag.exists()
    assert command("replay", run.path, "--trust-remote-code").out.startswith("bitwise")
    assert ls.open_run(run.path).replay(trust_remote_code=True).verdict == "bitwise"

    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "\nBAD = 1\n")
    outcome = command("replay", run.path, "--trust-remote-code")
    assert outcome.code == 2
    assert "the model has changed" in outcome.err


# -- hub names ------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A cache of the hub in which the tiny model lies under a name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, commit: str = "0123456789" * 4) -> Path:
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(tiny, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        return place / "snapshots" / commit

    return put


def test_a_hub_name_in_a_record_is_used_from_the_cache_with_the_same_sha256_only(
    saved: Path, cached: Callable[[str], Path], command: Command
) -> None:
    edited(saved, model="someone/tiny", revision="0123456789" * 4)
    outcome = command("replay", saved)
    assert outcome.code == 2
    assert "not fetched from the hub" in outcome.err
    assert "--model someone/tiny" in outcome.err

    folder = cached("someone/tiny")
    assert command("replay", saved).out.startswith("bitwise")

    zoo.make("gpt2", seed=1).save_pretrained(folder)
    assert "the model has changed" in command("replay", saved).err


def test_a_hub_name_is_loaded_as_a_folder_and_recorded_with_its_commit(
    cached: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cached("someone/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    facts = load_model("someone/tiny").facts

    assert (facts.name, facts.source, facts.revision) == ("tiny", "someone/tiny", "0123456789" * 4)
    assert len(facts.files) == 64


def test_other_names_in_a_record_are_not_fetched_either(cached: Callable[[str], Path]) -> None:
    from layerscope.text.passages import load_passages

    cached("someone/tiny")
    with names_from_a_record():
        with pytest.raises(LayerscopeError, match="names another model on the hub"):
            load_model("someone/tiny")
        with pytest.raises(LayerscopeError, match="not fetched from the hub"):
            load_passages("hub:someone/texts")
    assert not from_a_record()


def test_a_run_that_is_replayed_measures_with_names_from_a_record(
    saved: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    carry_out = running.carry_out

    def watched(*arguments: Any) -> None:
        seen.append(from_a_record())
        carry_out(*arguments)

    monkeypatch.setattr(running, "carry_out", watched)
    running.replay(saved, model=tiny_model)
    emptied(saved)
    running.resume(saved, Silent(), model=tiny_model)

    assert seen == [True, True]


def test_the_record_keeps_what_was_trusted_for_the_reader_alone(saved: Path) -> None:
    assert RunFolder(saved).record.asked.trust_remote_code is False


# -- what a record could do besides ----------------------------------------------------------------


def test_nothing_is_sent_to_an_address_that_a_record_names(
    saved: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEONES_SECRET", "secret")
    rater = {"rater_address": "http://127.0.0.1:9/v1", "rater_name": "x", "rater_key": "SOMEONES_SECRET"}
    settings: dict[str, Any] = {
        "directions": 2,
        "random_directions": 100,
        "kinds": ["OV writes"],
        "resamples": 20,
    }
    edited(saved, experiment="weight_directions", settings=settings | rater)
    emptied(saved)

    outcome = command("resume", saved)

    assert outcome.code == 2
    assert "nothing is sent there on its word" in outcome.err
    assert "secret" not in outcome.err


@pytest.mark.parametrize("name", ["show", "report", "export", "replay"])
def test_a_result_is_not_read_as_another_experiments(
    saved: Path, command: Command, tmp_path: Path, name: str
) -> None:
    edited(saved, experiment="hidden_states", settings={})
    outcome = command(name, saved, *(["--out", tmp_path / "page"] if name == "report" else []))
    assert outcome.code == 2
    assert "found     causal_trace in" in outcome.err or "altered" in outcome.err


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_no_number_of_threads_is_taken_that_no_machine_has(
    saved: Path, command: Command, threads: int
) -> None:
    rewritten(saved, lambda record: record["machine"].update(threads=threads))
    outcome = command("replay", saved)
    assert outcome.code == 2
    assert "damaged" in outcome.err


@pytest.mark.parametrize("name", ["run.json", "inputs.json"])
def test_json_as_deep_as_a_well_is_damage(saved: Path, command: Command, name: str) -> None:
    (saved / name).write_text('{"a":' * 20_000)
    outcome = command("replay", saved)
    assert outcome.code == 2
    assert name in outcome.err


def test_a_record_does_not_steer_the_terminal(saved: Path, command: Command) -> None:
    def steer(record: dict[str, Any]) -> None:
        record["notes"] = ["\x1b]0;owned\x07"]
        record["asked"]["settings"]["noise"] = "\x1b[2J"
        record["machine"]["device_name"] = "\x1b[31mred"

    rewritten(saved, steer)

    outcome = command("show", saved)
    edited(saved, experiment="\x1b[2J")
    refused = command("show", saved)

    assert "<U+001B>[2J" in outcome.out
    assert "<U+001B>[2J" in refused.err
    assert "\x1b" not in outcome.out + refused.err
