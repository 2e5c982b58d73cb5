"""The example package, installed by pip, through everything that one of Layerscope's own experiments goes through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import EXAMPLE, ROOT, forget, pip_install
from jobs.conftest import assert_same_bits
from layerscope import experiments
from layerscope.results.store import RunFolder
from quick import Command

PROMISES = ROOT / "tests" / "experiments" / "test_promises.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example was installed."""
    return pip_install(EXAMPLE, tmp_path_factory.mktemp("site"))


@pytest.fixture
def beside(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example stands beside Layerscope."""
    monkeypatch.syspath_prepend(site)
    yield site
    forget("layerscope_state_growth")


@pytest.fixture
def ran(beside: Path, command: Command, tiny: Path, passages_file: Path, tmp_path: Path) -> Path:
    """A complete run of it."""
    out = tmp_path / "runs"
    done = command("run", "state_growth", "--model", tiny, "--passages", passages_file, "--out", out)
    assert done.code == 0, done.err
    assert "Too few passages to test the growth of the residual stream per layer (5 passages" in done.out
    return next(out.glob("state_growth-*"))


def with_source(file: Path, *arguments: str, paths: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """Pytest in a process of its own, with packages on its path."""
    there = os.pathsep.join(map(str, (*paths, ROOT / "src")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(file)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": there}, capture_output=True, text=True
    )


def test_it_is_listed_with_its_question_and_whose_it_is(beside: Path, command: Command) -> None:
    listed = command("list")

    assert listed.code == 0
    assert (
        "state_growth         How fast does the residual stream grow with depth?   (layerscope-state-growth 0.1.0)"
        in listed.out
    )


def test_its_package_stands_in_the_record(ran: Path) -> None:
    package = RunFolder.open(ran).record.machine.plugin["layerscope-state-growth"]

    assert package.version == "0.1.0"
    assert len(package.code) == 64


def test_the_same_question_to_other_code_is_another_run(ran: Path) -> None:
    record = RunFolder.open(ran).record
    package = record.machine.plugin["layerscope-state-growth"].model_copy(update={"code": "0" * 64})
    other = record.machine.model_copy(update={"plugin": {"layerscope-state-growth": package}})

    assert record.model_copy(update={"machine": other}).key() != record.key()


def test_an_interrupted_run_is_resumed_to_the_same_bytes(ran: Path, command: Command) -> None:
    folder = RunFolder.open(ran)
    before, record = folder.result().load(), folder.record
    (ran / "result.nc").unlink()
    folder.part_path("lengths", 2).unlink()
    folder.save_record(record.model_copy(update={"state": "running", "result": None}))

    assert command("resume", ran).code == 0

    assert_same_bits(before, RunFolder.open(ran).result())


def test_a_replay_agrees_and_says_when_the_package_has_changed(
    ran: Path, command: Command, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = command("replay", ran)
    newer = Path(shutil.copytree(site, tmp_path / "newer"))
    about = newer / "layerscope_state_growth-0.1.0.dist-info" / "METADATA"
    about.write_text(about.read_text().replace("Version: 0.1.0", "Version: 0.2.0"))
    monkeypatch.syspath_prepend(newer)
    changed = command("replay", ran)

    assert same.code == changed.code == 0
    assert same.out.startswith("bitwise")
    assert "nothing recorded has changed" in same.out
    assert "since the run: plugin layerscope-state-growth version: 0.1.0 -> 0.2.0" in changed.out


def test_it_is_reported_beside_the_others(ran: Path, command: Command, tmp_path: Path) -> None:
    assert command("report", ran, "--out", tmp_path / "page").code == 0

    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "How fast does the residual stream grow with depth?" in page
    assert "layerscope-state-growth 0.1.0" in page
    assert "How long is the state at each depth?" in page


def test_a_run_of_a_package_that_is_gone_is_shown_as_such(
    ran: Path, command: Command, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(site)])

    shown = command("show", ran)

    assert shown.code == 2
    assert "there is no such experiment" in shown.err


def test_its_own_tests_hold_with_what_selftest_tries(site: Path) -> None:
    own = str(EXAMPLE / "pyproject.toml")

    done = with_source(EXAMPLE / "tests", "-c", own, paths=(site,))

    assert done.returncode == 0, done.stdout


def test_selftest_tries_it_on_its_own_planted_models(beside: Path) -> None:
    where, trials = experiments.planted_by("state_growth")

    assert where == "layerscope_state_growth.planted"
    assert [trial.experiment for trial in trials] == ["state_growth"]
    assert trials[0].answers


@pytest.mark.slow
def test_it_keeps_what_every_experiment_promises(site: Path) -> None:
    done = with_source(PROMISES, "-k", "state_growth", "-m", "", paths=(site, ROOT / "tests"))

    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 15
