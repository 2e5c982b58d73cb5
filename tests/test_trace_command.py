"""`layerscope trace`: one prompt in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import layerscope as ls
from layerscope.jobs.heat_map import lines_of_trace
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.jobs.tracing import TracedPrompt, traced
from layerscope.planted.mover import mover, prompts_about
from quick import Command

STARRED = "the red *fox* met the old dog in"


@pytest.fixture(scope="module")
def of_mover() -> tuple[TracedPrompt, TracedPrompt]:
    """A planted model whose layer 2 moves the subject to the last token, traced twice."""
    job = prepare(
        Request(
            "causal_trace",
            model=mover(layer=2),
            prompts=prompts_about()[:1],
            settings={"samples": 2, "noise": 1.5},
        )
    )
    return traced(job, Silent()), traced(job, Silent())


def test_the_numbers_are_those_of_the_trace_and_of_the_lens(
    of_mover: tuple[TracedPrompt, TracedPrompt],
) -> None:
    found, again = of_mover
    prompts = prompts_about()[:1]
    result = ls.run("causal_trace", mover(layer=2), prompts, samples=2, noise=1.5, progress=False)
    lens = ls.run("logit_lens", mover(layer=2), prompts=prompts, progress=False)

    assert found == again
    recovery = np.array(found.recovery, dtype=float)
    np.testing.assert_allclose(recovery[result.position.values], result.recovery.values, rtol=1e-6)
    assert found.crossover == pytest.approx(float(result.transition_layer[0]))
    assert found.clean == pytest.approx(float(result.clean_probability[0]))
    assert found.corrupted == pytest.approx(float(result.noised_probability[0].mean()), rel=1e-5)
    assert found.predictions[0][0] == found.answer == found.leaders[-1][0]
    assert found.probability[-1] == pytest.approx(found.clean, rel=1e-4)
    assert found.rank[-1] == 1
    assert found.rank == lens.prompt_rank.values[0, 0].tolist()
    assert (found.leads, found.settled) == (lens.prompt_first_leads.item(0), lens.prompt_settled.item(0))


def test_the_map_shows_where_the_subject_was_moved(of_mover: tuple[TracedPrompt, TracedPrompt]) -> None:
    found, _ = of_mover
    lines = [line.plain for line in lines_of_trace(found, width=80)]
    (subject,) = [line for line in lines if line.startswith("*")]
    last = lines[lines.index(subject) + len(found.tokens) - 1 - found.noised[0]]

    # Layer 2 reads the subject: restored before it the subject's state is enough, after it the last token's.
    assert subject.split()[1:4] == ["#", "#", "#"]
    assert set(subject.split()[4:]) == {"."}
    assert set(last.split()[1:4]) <= {"."}
    assert set(last.split()[-2:]) == {"#"}
    assert any(
        line.startswith("Crossover: the last token takes over from the subject at depth 2") for line in lines
    )


@pytest.mark.parametrize("depths", [5, 31, 49, 97])
def test_the_map_fits_eighty_columns_whatever_the_model(
    of_mover: tuple[TracedPrompt, TracedPrompt], depths: int
) -> None:
    found, _ = of_mover
    wide = TracedPrompt(
        **found.plain()
        | {
            "recovery": [[0.5] * depths for _ in found.tokens],
            "probability": [0.1] * depths,
            "rank": [12345] * depths,
            "leaders": [("an even longer token than this one", 0.5)] * depths,
            "tokens": ["a very long token indeed", *found.tokens[1:]],
        }
    )
    lines = [line.plain for line in lines_of_trace(wide, width=80)]
    drawn = lines[4 : 4 + len(found.tokens) + 1]
    table = lines[
        next(place for place, line in enumerate(lines) if line.startswith("depth  top token")) + 1 :
    ]

    assert max(map(len, [*drawn, *table])) <= 80
    assert len(table) <= 33
    assert table[-1].split()[0] == str(depths - 1)
    assert drawn[-1].startswith("depth")


def test_shades_say_the_same_as_the_signs(of_mover: tuple[TracedPrompt, TracedPrompt]) -> None:
    found, _ = of_mover
    for line in lines_of_trace(found, width=80):
        for span in line.spans:
            sign = line.plain[span.start : span.end].strip()
            assert bool(span.style.bgcolor) == (sign in {*"123456789", "#"})  # type: ignore[union-attr]


def test_the_command_prints_map_predictions_and_the_next_step(command: Command, tiny: Path) -> None:
    said = command("trace", STARRED, "--model", tiny, "--set", "samples=2")

    assert said.code == 0
    assert "*·fox*" in said.out
    assert "Top predictions" in said.out
    assert "<bos> stands first." in said.out
    assert "next:" in said.out
    assert "\x1b" not in said.out


def test_json_is_all_that_is_printed(command: Command, tiny: Path) -> None:
    said = command("trace", STARRED, "--model", tiny, "--set", "samples=2", "--json")
    found = json.loads(said.out)

    assert len(found["recovery"]) == len(found["tokens"])
    assert len(found["recovery"][0]) == len(found["rank"]) == 5


def test_open_writes_a_page_and_opens_it(
    command: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda where: opened.append(where) or True)
    few = ("--set", "samples=2", "--set", "metric=kl", "--set", "smallest_range=1e-9")  # so that it counts
    said = command("trace", STARRED, "--model", tiny, *few, "--open", "--out", tmp_path / "runs")

    assert said.code == 0
    (page,) = tmp_path.rglob("trace.html")
    assert opened == [page.resolve().as_uri()]
    assert "Which states recover the answer?" in page.read_text()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("the red fox met", ["nothing in this prompt is marked", "*stars*"]),
        ("the *red fox met", ["one star"]),
        ("the ** fox met", ["empty"]),
        ("prompts.jsonl", ["marked"]),
        ("the red fox *met*", ["no prompt is left", "last token"]),
    ],
)
def test_what_is_no_single_prompt_is_told(
    command: Command, tiny: Path, prompt: str, words: list[str]
) -> None:
    said = command("trace", prompt, "--model", tiny)

    assert said.code == 2
    assert all(word in said.err for word in words)
    assert "Traceback" not in said.err
    assert said.out == ""


def test_logit_lens_on_one_prompt_says_what_trace_says_of_its_answer(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    trace = command("trace", STARRED, "--model", tiny, "--set", "samples=2").out
    ran = command("run", "logit_lens", "--model", tiny, "--prompts", STARRED, "--out", tmp_path).out
    shown = command("show", tmp_path).out

    first = trace.index("depth  top token")
    table = [line.strip() for line in trace[first:].splitlines()][:6]  # a heading and five depths
    assert table[-1].split()[0] == "4"
    for said in (ran, shown):
        lines = [line.strip() for line in said.splitlines()]
        start = lines.index(table[0])
        assert lines[start - 1].startswith("The answer “")
        assert lines[start - 1].removeprefix("The answer ") in trace
        assert lines[start : start + 6] == table
