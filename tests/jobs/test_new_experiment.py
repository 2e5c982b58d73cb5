"""A new experiment is the example under another name, and works as it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from installed import EXAMPLE, ROOT, pip_install
from layerscope.bundled import example_folder
from quick import Command


def files(folder: Path) -> dict[str, str]:
    """Their text, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "cache" not in str(path.relative_to(folder))
    }


def test_it_is_the_example_under_another_name(command: Command, tmp_path: Path) -> None:
    made = command("new-experiment", "my_probe", "--out", tmp_path)

    assert made.code == 0
    assert "layerscope run my_probe" in made.out
    folder = tmp_path / "layerscope-my-probe"
    renamed = {
        name.replace("state_growth", "my_probe"): text.replace("state_growth", "my_probe").replace(
            "state-growth", "my-probe"
        )
        for name, text in files(EXAMPLE).items()
    }
    assert files(folder) == renamed
    assert not [text for text in files(folder).values() if "state_growth" in text or "state-growth" in text]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # nothing is left beside it


def test_the_example_is_what_new_ones_are_made_from() -> None:
    assert example_folder() == EXAMPLE


@pytest.mark.parametrize(
    "name", ["MyProbe", "my-probe", "1st", "../up", "all", "a__b", "_hidden", "x" * 41, ""]
)
def test_a_name_that_cannot_be_used_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    refused = command("new-experiment", "--out", tmp_path, "--", name)

    assert refused.code == 2
    assert "an experiment cannot be called this" in refused.err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused_with_who_has_it(command: Command, tmp_path: Path) -> None:
    refused = command("new-experiment", "causal_trace", "--out", tmp_path)

    assert refused.code == 2
    assert "causal_trace, of Layerscope" in refused.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_is_there_already_is_left_alone(command: Command, tmp_path: Path, kind: str) -> None:
    there = tmp_path / "layerscope-my-probe"
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(tmp_path / "nowhere")

    refused = command("new-experiment", "my_probe", "--out", tmp_path)

    assert refused.code == 2
    assert "there is such a folder already" in refused.err
    assert list(tmp_path.iterdir()) == [there]


def test_a_folder_that_cannot_be_written_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert command("new-experiment", "my_probe", "--out", tmp_path / "file").code == 2


@pytest.mark.slow
def test_what_is_made_is_installed_and_passes_its_own_tests(command: Command, tmp_path: Path) -> None:
    command("new-experiment", "my_probe", "--out", tmp_path)
    folder = tmp_path / "layerscope-my-probe"
    site = pip_install(folder, tmp_path / "site")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "src")])},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
