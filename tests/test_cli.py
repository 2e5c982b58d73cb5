from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

import layerscope
from layerscope import cli, experiments
from quick import Command

HEAVY = ("torch", "xarray", "transformers", "pandas", "plotly", "numpy")
COMMANDS = sorted(typer.main.get_command(cli.cli).commands)  # type: ignore[attr-defined]


def modules_after(*words: str) -> set[str]:
    code = f"""
import sys, json
from layerscope.cli import cli
cli({list(words)!r}, standalone_mode=False)
json.dump(sorted(sys.modules), sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "--help"), ("list",), ("list", "prompts"), ("list", "models")]
)
def test_help_and_list_answer_without_heavy_imports(words: tuple[str, ...]) -> None:
    assert modules_after(*words).isdisjoint(HEAVY)


def test_importing_layerscope_imports_nothing_heavy() -> None:
    code = "import layerscope, sys, json; json.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert set(json.loads(done.stderr)).isdisjoint(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_can_be_typed(
    command: Command, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(name, "--help")

    assert outcome.code == 0
    examples = [line for line in outcome.out.splitlines() if line.strip().startswith(f"layerscope {name}")]
    assert examples
    for example in examples:
        words = shlex.split(example)[2:]
        # An example that runs on into the next one is a command with strange arguments.
        assert "layerscope" not in words
        for run in words:
            if run.startswith("runs"):  # a run that is named must be there
                Path(run).mkdir(parents=True, exist_ok=True)
        with typer.main.get_command(cli.cli).commands[name].make_context(name, words) as context:  # type: ignore[attr-defined]
            assert context.params


def test_python_dash_m_works() -> None:
    done = subprocess.run([sys.executable, "-m", "layerscope", "--help"], capture_output=True, text=True)

    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_the_version_is_told(command: Command) -> None:
    told = command("--version")

    assert (told.code, told.out) == (0, f"layerscope {layerscope.__version__}\n")


def test_list_gives_every_experiment_with_its_question(command: Command) -> None:
    lines = command("list").out.splitlines()

    assert [line.split()[0] for line in lines] == experiments.names()
    assert all(line.endswith("?") for line in lines)


def test_list_prompts_counts_the_bundled_texts(command: Command) -> None:
    rows = [line.split() for line in command("list", "prompts").out.splitlines()]

    assert ["prompts", "english", "146", "texts"] in rows
    assert any(row[0] == "passages" for row in rows)


def test_list_models_says_what_may_be_given(command: Command) -> None:
    assert {"bundled", "FOLDER", "HUB"} <= {
        line.split()[0] for line in command("list", "models").out.splitlines()
    }


def test_a_run_says_where_it_was_saved_and_what_comes_next(
    command: Command, tmp_path: Path, tiny: Path, prompts_file: Path, quick_settings: list[str]
) -> None:
    words = ["--model", tiny, "--prompts", prompts_file, "--out", tmp_path, "--seed", 7]
    outcome = command("run", "causal_trace", *words, *quick_settings)

    assert outcome.code == 0
    path = Path(outcome.out.splitlines()[-1].removeprefix("next: layerscope report "))
    assert f"saved {path}" in outcome.out
    assert json.loads((path / "run.json").read_text())["asked"]["settings"]["seed"] == 7


def test_a_run_can_be_listed_shown_exported_and_replayed(command: Command, saved: Path) -> None:
    listed = command("list", "runs", "--out", saved.parent).out
    assert listed.split()[0] == "complete"
    assert str(saved) in listed

    shown = command("show", saved).out
    assert "causal_trace on tiny" in shown
    assert "of 4 prompts used" in shown
    assert "samples=2" in shown
    assert "seed=0" in shown
    assert "float32" in shown

    tables = {Path(line).name for line in command("export", saved).out.splitlines()}
    assert {"prompt.csv", "token-depth-sample.csv"} <= tables
    assert list(pd.read_csv(saved / "tables" / "prompt.csv").prompt) == ["fox", "bird", "town", "stone"]
    elsewhere = command("export", saved, "--to", "parquet", "--out", saved.parent / "there")
    assert len(elsewhere.out.splitlines()) == len(tables)

    replayed = command("replay", saved)
    assert replayed.code == 0
    assert replayed.out.splitlines() == ["bitwise", "since the run: nothing recorded has changed"]


def test_a_result_of_other_code_that_lacks_what_this_code_tells_is_refused_in_words(
    command: Command, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerscope.experiments import causal_trace
    from layerscope.jobs import prepare

    def claims(result: object) -> list[object]:
        raise KeyError("regression_p_adjusted")

    monkeypatch.setattr(causal_trace, "claims", claims)
    with pytest.raises(KeyError):  # with the code that made it, this is a mistake of ours
        command("show", saved)
    monkeypatch.setattr(prepare, "code_digest", lambda: "0" * 64)
    outcome = command("show", saved)
    assert outcome.code == 2
    assert "another version of Layerscope" in outcome.err
    assert "expected  a result of code 000000000000" in outcome.err


def test_a_run_that_is_not_complete_says_what_comes_next(command: Command, saved: Path) -> None:
    (saved / "result.nc").unlink()

    assert f"next: layerscope resume {saved}" in command("show", saved).out


def test_a_plan_says_what_it_costs_and_keeps_what_it_ran(
    command: Command, tmp_path: Path, tiny: Path, prompts_file: Path, quick_settings: list[str]
) -> None:
    words = ["causal_trace", "--model", tiny, "--prompts", prompts_file, "--out", tmp_path, *quick_settings]

    planned, run = command("plan", *words), command("run", *words)

    assert "by the branches path" in planned.out
    assert "4 items" in planned.out
    assert "MB of memory" in planned.out
    assert f"kept in {tmp_path}" in planned.out
    assert "4 kept from before" in run.err
    assert len(list(tmp_path.iterdir())) == 1


def test_prompts_are_checked_one_by_one(command: Command, tmp_path: Path, tiny: Path) -> None:
    file = tmp_path / "mine.jsonl"
    good = {
        "id": "good",
        "category": "<b>",
        "prompt": "the red fox met the dog",
        "subject": "fox",
        "answer": "",
    }
    bad = {"id": "bad", "prompt": "the red fox met the dog", "subject": "dog", "answer": " zzz"}
    file.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")

    outcome = command("check-prompts", file, "--model", tiny)

    assert outcome.code == 1
    assert "good  [<b>]  ok" in outcome.out
    assert "bad  [uncategorised]  left out" in outcome.out
    assert "last token not corrupted" in outcome.out
    assert "(own): p = " in outcome.out
    assert outcome.out.splitlines()[-1] == "1 of 2 prompts would be traced"


def test_a_report_of_saved_runs_is_written(command: Command, saved: Path) -> None:
    outcome = command("report", saved, "--out", saved.parent / "page")

    assert outcome.code == 0
    assert f"wrote {saved.parent / 'page' / 'report.html'}" in outcome.out
    assert (saved.parent / "page" / "report.html").stat().st_size > 10_000
