"""What is unfit is left out and listed; what is refused says so and keeps nothing else back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import layerscope as ls
from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.jobs.annotating import annotate
from layerscope.results.store import RunFolder, runs_below
from quick import QUICK, Command

FIT = [
    {"id": f"fit-{number}", "prompt": text, "subject": "fox", "answer": "", "category": "fox"}
    for number, text in enumerate(
        ("the red fox met the old dog in", "a small fox ran to the", "the old fox sang and the")
    )
]
UNFIT = [
    {"id": "ends", "prompt": "the dog met the red fox", "subject": "fox", "answer": "", "category": "fox"},
    {"id": "long", "prompt": "the " * 80 + "fox met", "subject": "fox", "answer": "", "category": "fox"},
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in [*FIT, *UNFIT]))
    return file


@pytest.mark.parametrize(
    ("experiment", "reasons"),
    [
        ("causal_trace", "left_out_because"),
        ("attention_knockout", "prompt_left_out_because"),
        ("final_token_attention", "left_out_because"),
        ("logit_lens", ""),
    ],
)
def test_unfit_prompts_are_left_out_and_listed_by_every_experiment(
    experiment: str, reasons: str, tiny: Path, mixed: Path, tmp_path: Path, command: Command
) -> None:
    settings = (
        [f"--set={name}={value}" for name, value in QUICK.items()] if experiment == "causal_trace" else []
    )
    words = ("run", experiment, "--model", tiny, "--prompts", mixed, "--out", tmp_path / "runs", *settings)
    said = command(*words)
    (folder,) = runs_below(tmp_path / "runs")
    result = folder.result()

    assert said.code == 0
    assert "1 prompt cannot be read" in said.out
    assert folder.record.left_out == {"long": "the prompt long is longer than the model's context: 83 tokens"}
    assert set(result.prompt.values) == {"fit-0", "fit-1", "fit-2", "ends"}
    if reasons:
        assert "last token" in str(result[reasons].sel(prompt="ends").values)
        assert "last token" not in "".join(map(str, result[reasons].sel(prompt=["fit-0", "fit-1"]).values))
    assert "left out: long: the prompt long is longer" in command("show", folder.path).out


def test_strictness_refuses_them(tiny_model: Any, mixed: Path) -> None:
    settings = QUICK | {"unfit": "refuse"}
    with pytest.raises(ls.LayerscopeError, match="the prompt long is longer"):
        ls.run("causal_trace", tiny_model, prompts=str(mixed), progress=False, **settings)
    with pytest.raises(ls.LayerscopeError, match="1 of 4 prompts cannot be traced"):
        ls.run("causal_trace", tiny_model, prompts=[*FIT, UNFIT[0]], progress=False, **settings)


def test_check_prompts_says_what_is_wrong_with_one_and_goes_on(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    wrong = {"id": "wolf", "prompt": "the red fox met", "subject": "wolf", "answer": ""}
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in [wrong, {"subject": "x"}, *UNFIT, *FIT]))
    said = command("check-prompts", file, "--model", tiny)

    assert said.code == 1
    assert "does not occur" in said.out
    assert "line 2" in said.out
    assert "3 of 7 prompts would be traced" in said.out


def test_a_refused_run_says_why_and_goes_on_once_that_is_put_right(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ends.jsonl"
    file.write_text(json.dumps(UNFIT[0]) + "\n")
    runs = tmp_path / "runs"
    run = command("run", "causal_trace", "--model", tiny, "--prompts", file, "--out", runs)
    (folder,) = runs_below(runs)

    assert run.code == 2
    assert folder.record.state == "refused"
    assert "no prompt is left to trace" in folder.record.refused
    assert "refused" in command("list", "runs", "--out", runs).out
    shown = command("show", folder.path)
    assert shown.code == 0
    assert "refused: no prompt is left to trace" in shown.out
    assert "last token" in shown.out
    assert command("resume", folder.path).code == 2
    assert folder.record.state == "refused"


def test_show_goes_on_past_a_damaged_run_and_lists_it(command: Command, saved: Path) -> None:
    other = Path(shutil.copytree(saved, saved.parent / "other"))
    (other / "run.json").write_text("{}")
    said = command("show", saved.parent)

    assert said.code == 2
    assert "causal_trace on" in said.out
    assert "1 refused:" in said.err
    assert "damaged" in said.err


def test_a_report_lists_what_was_refused_with_the_reason(
    command: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerscope import experiments

    monkeypatch.setattr(experiments, "names", lambda: ["causal_trace", "hidden_states"])
    file = tmp_path / "ends.jsonl"
    file.write_text(json.dumps(UNFIT[0]) + "\n")
    passages = tmp_path / "passages.jsonl"
    passages.write_text(
        "".join(json.dumps({"text": prompt["prompt"] + " old town"}) + "\n" for prompt in FIT)
    )
    words = ("--model", tiny, "--prompts", file, "--passages", passages, "--out", tmp_path / "runs")
    said = command("report", *words)
    page = (tmp_path / "runs" / "report.html").read_text()

    assert said.code == 2
    assert "1 refused:\n  causal_trace: no prompt is left to trace" in said.err
    assert "no prompt is left to trace" in page
    assert "hidden_states on" in said.out
    plan = command("plan", "all", *words)
    assert plan.code == 2
    assert "hidden_states: about" in plan.out
    assert "causal_trace: no prompt is left to trace" in plan.err


def test_a_run_of_the_folder_is_still_opened(saved: Path) -> None:
    assert RunFolder.open(saved).record.refused == ""


def test_prompts_of_which_none_can_be_read_are_each_told(
    tiny: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": 3}\n{}\n')
    for source, number in ((file, 2), ("*", 1)):
        said = command("check-prompts", source, "--model", tiny)
        assert said.code == 1
        assert f"0 of {number} prompts would be traced" in said.out


def test_an_experiment_that_asks_nothing_of_people_names_those_that_do(saved: Path) -> None:
    asking = [name for name in experiments.names() if experiments.load(name).sheet is not None]

    with pytest.raises(LayerscopeError, match="causal_trace asks nothing of annotators") as caught:
        annotate(saved, "anna")

    assert asking
    assert f"layerscope run {asking[0]}" in str(caught.value)
    assert caught.value.expected == f"a run of {' or '.join(asking)}"


def test_of_many_prompts_the_first_are_printed_and_all_are_written(
    tmp_path: Path, tiny: Path, command: Command
) -> None:
    file, out = tmp_path / "many.jsonl", tmp_path / "checks.txt"
    file.write_text("".join(json.dumps(FIT[0] | {"id": f"p{number}"}) + "\n" for number in range(203)))

    said = command("check-prompts", file, "--model", tiny)
    assert "p199 " in said.out
    assert "p200 " not in said.out
    assert "3 more are not shown: --out FILE writes all of them" in said.out

    assert "p200 " not in command("check-prompts", file, "--model", tiny, "--out", out).out
    assert out.read_text(encoding="utf-8").count("[fox]  ok") == 203


def test_a_file_that_was_taken_for_a_prompt_is_told_before_it_is_split(
    tmp_path: Path, tiny: Path, command: Command
) -> None:
    file = tmp_path / "novel.jsonl"
    file.write_text(json.dumps(FIT[0] | {"prompt": "the fox ran " * 1_000_000}) + "\n")

    said = command("check-prompts", file, "--model", tiny)

    assert said.code == 1
    assert "far too long for a prompt" in said.out
    assert "12,000,000 characters" in said.out
    assert len(said.out) < 2000
