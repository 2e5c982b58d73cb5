"""One Request: the command line, Python and the records of runs ask the same with the same defaults."""

import inspect
import json
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import typer

import layerscope as ls
from layerscope.cli import cli
from layerscope.cli.options import Question
from layerscope.jobs.request import KINDS, Request
from layerscope.report import reproduce
from layerscope.results.record import RunRecord
from layerscope.results.store import RunFolder

DEFAULTS = {one.name: one.default for one in fields(Request) if one.default is not MISSING}


def test_python_asks_with_the_defaults_of_a_request() -> None:
    parameters = inspect.signature(ls.run).parameters
    shared = {
        name: one.default for name, one in parameters.items() if name in DEFAULTS and name != "experiment"
    }

    assert shared == {name: DEFAULTS[name] for name in shared}
    assert set(DEFAULTS) - set(parameters) == {
        "device",
        "dtype",
        "revision",
        "trust_remote_code",
    }  # load_model's


def test_every_part_of_a_request_is_an_option_of_run_with_its_default() -> None:
    (command,) = (one for name, one in typer.main.get_command(cli).commands.items() if name == "run")  # type: ignore[attr-defined]
    options = {one.name: one.default for one in command.params}

    for name, default in DEFAULTS.items():
        if name != "experiment":
            assert options[name] == default, name
    assert "settings" in options


def test_a_page_writes_what_is_not_the_default_of_a_request() -> None:
    assert {name: DEFAULTS[name] for name in reproduce.USUAL} == reproduce.USUAL


def test_a_record_tells_what_was_asked(complete_run: Path, tiny_model: object) -> None:
    record = RunFolder.open(complete_run).record

    asked = Request.recorded(record)

    assert asked.experiment == "causal_trace"
    assert str(asked.prompts).endswith("prompts.jsonl")
    assert [getattr(asked, kind) for kind in KINDS[1:]] == [None, None, None]
    assert (asked.bos, asked.chat, asked.limit, asked.longest) == ("auto", False, None, DEFAULTS["longest"])
    assert asked.settings["seed"] == 0
    assert asked.device == "cpu"
    assert asked.trust_remote_code is False


def test_a_record_never_decides_whom_to_trust_and_a_new_name_of_the_model_counts(complete_run: Path) -> None:
    record = RunFolder.open(complete_run).record
    trusting = record.model_copy(
        update={"asked": record.asked.model_copy(update={"trust_remote_code": True})}
    )
    moved = record.model_copy(update={"asked": record.asked.model_copy(update={"revision": "a1b2"})})

    assert Request.recorded(trusting).trust_remote_code is False
    assert Request.recorded(moved, model="somewhere/else").model == "somewhere/else"
    assert Request.recorded(moved, model="somewhere/else").revision == "a1b2"
    assert Request.recorded(moved, model="bundled").revision is None


def test_a_record_of_an_older_version_is_read_with_defaults_for_what_it_lacks(complete_run: Path) -> None:
    written = json.loads((complete_run / "run.json").read_text(encoding="utf-8"))
    for name in ("named", "options"):
        written.pop(name)

    asked = Request.recorded(RunRecord.model_validate(written))

    assert (asked.prompts, asked.limit, asked.longest) == (None, None, DEFAULTS["longest"])


def test_one_question_is_put_to_experiments_about_the_texts_that_they_read() -> None:
    asked = Request(prompts="english", passages="books", limit=3)

    heard = asked.about({"passages", "treebank"})

    assert heard.texts == {"prompts": None, "passages": "books", "treebank": None, "words": None}
    assert replace(heard, prompts="english") == asked
    with pytest.raises(FrozenInstanceError):
        asked.limit = 5  # type: ignore[misc]


def test_a_hurry_changes_texts_and_draws_and_nothing_else() -> None:
    question = Question(Request(prompts="english", passages="books", device="cpu", limit=99), threads=1)

    heard = question.for_experiment("causal_trace", quick=True)

    assert heard.request == replace(question.request, passages=None, limit=10, longest=128)
    assert heard.threads == 1
