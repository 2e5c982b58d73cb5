"""Records that were edited, broken or never sealed: told, and never taken for another question's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerscope.errors import LayerscopeError
from layerscope.results.store import RunFolder
from quick import Command, rewritten

Change = Callable[[dict[str, Any]], object]
READERS = ("show", "resume", "replay", "export", "annotate")

EDITS: dict[str, Change] = {
    "another seed": lambda record: record["asked"]["settings"].update(seed=7),
    "another dtype": lambda record: record["asked"].update(dtype="bfloat16"),
    "a fact": lambda record: record["facts"].update(n_layers=3),
    "no facts": lambda record: record.update(facts={}),
    "passes": lambda record: record["chunk_plan"].update(tokens_per_pass=7),
    "threads": lambda record: record["machine"].update(threads=3),
    "a date": lambda record: record.update(created=""),
    "a limit": lambda record: record["options"].update(limit=1),
}
BREAKS: dict[str, Change] = {
    "infinite seconds": lambda record: record.update(seconds=float("inf")),
    "negative seconds": lambda record: record.update(seconds=-1),
    "a stage without end": lambda record: record["stages"]["trace"].update(size=float("nan")),
    "a huge number": lambda record: record.update(seconds=10**400),
    "zero threads": lambda record: record["machine"].update(threads=0),
    "half a character": lambda record: record["asked"].update(model="\ud800"),
    "no question": lambda record: record.pop("asked"),
    "no experiment": lambda record: record["asked"].pop("experiment"),
    "settings of a wrong kind": lambda record: record["asked"].update(settings=[]),
    "layers in words": lambda record: record["facts"].update(n_layers="many"),
    "an endless schema": lambda record: record.update(schema_number=float("inf")),
    "a field of its own": lambda record: record.update(mine=1),
}


def edited(run: Path, change: Change) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(record)
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


def assert_told(command: Command, run: Path, words: str) -> None:
    with pytest.raises(LayerscopeError, match=words):
        RunFolder.open(run)
    outcome = command("show", run)
    assert outcome.code == 2, outcome
    assert words in outcome.err
    listed = command("list", "runs", "--out", run.parent)
    assert listed.out.startswith("damaged")


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_was_asked_is_told(command: Command, saved: Path, edit: str) -> None:
    edited(saved, EDITS[edit])

    assert_told(command, saved, "edited since it began")


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_record_is_told_even_with_a_digest(command: Command, saved: Path, kind: str) -> None:
    rewritten(saved, BREAKS[kind])

    assert_told(command, saved, "the record of this run is damaged")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: edited(run, EDITS["another seed"]), "edited since it began"),
        (lambda run: rewritten(run, BREAKS["infinite seconds"]), "the record of this run is damaged"),
    ],
)
def test_every_command_tells_it(
    command: Command, saved: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    change(saved)
    calls = [(name, saved) for name in READERS]
    calls += [
        ("report", saved, "--out", tmp_path / "page"),
        ("show", "--layers", saved),
        ("compare", saved, saved),
    ]
    for call in calls:
        outcome = command(*call)
        assert outcome.code == 2, (call, outcome)
        assert words in outcome.err, (call, outcome.err)
        assert "Traceback" not in outcome.err


def test_a_seed_that_was_edited_never_mixes_two_seeds(
    command: Command, saved: Path, tiny: Path, prompts_file: Path, quick_settings: list[str]
) -> None:
    again = ("run", "causal_trace", "--model", tiny, "--prompts", prompts_file, "--out", saved.parent)
    for part in list(saved.glob("parts/*/00000[12].npz")):
        part.unlink()
    (saved / "result.nc").unlink()

    edited(saved, EDITS["another seed"])
    for call in (("resume", saved), (*again, *quick_settings)):
        outcome = command(*call)
        assert outcome.code == 2, outcome
        assert "edited since it began" in outcome.err

    rewritten(saved, EDITS["another seed"])  # by somebody who also writes the digest
    outcome = command(*again, *quick_settings)
    assert outcome.code == 2, outcome
    assert "asks for something else" in outcome.err
    assert not (saved / "result.nc").exists()


def test_a_record_without_a_digest_is_read_and_says_so_for_good(
    command: Command, saved: Path, tmp_path: Path
) -> None:
    edited(saved, lambda record: record.pop("seal"))
    (saved / "result.nc").unlink()

    assert command("resume", saved).code == 0
    assert "unsealed" in command("show", saved).out
    assert RunFolder(saved).record.seal is None
    command("report", saved, "--out", tmp_path)
    assert "unsealed" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_sealed_run_says_nothing_of_it_and_stays_sealed(command: Command, saved: Path) -> None:
    (saved / "result.nc").unlink()
    assert command("resume", saved).code == 0

    assert RunFolder(saved).record.seal is not None
    assert "unsealed" not in command("show", saved).out


def test_a_run_that_lost_its_parts_goes_on(command: Command, saved: Path) -> None:
    before = (saved / "result.nc").read_bytes()
    shutil.rmtree(saved / "parts")
    (saved / "result.nc").unlink()

    outcome = command("resume", saved)

    assert outcome.code == 0, outcome
    assert (saved / "result.nc").read_bytes() == before
