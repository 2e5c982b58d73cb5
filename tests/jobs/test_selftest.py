"""The selftest holds as things are, and says so when an instrument or a model is broken."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import layerscope as ls
import zoo
from layerscope import LayerscopeError, cli, planted
from layerscope.jobs.selftest import Told, Tried, _run, selftest, tried
from layerscope.jobs.workers import engine_of
from layerscope.planted._trial import Answer, Trial

TRIALS = {(name, trial.experiment): trial for name, trial in planted.trials()}
MOVER = TRIALS["mover", "causal_trace"]
GROWING = TRIALS["growing", "hidden_states"]


@pytest.mark.parametrize(("name", "experiment"), [key for key, trial in TRIALS.items() if trial.answers])
def test_every_trial_holds(name: str, experiment: str) -> None:
    outcome = tried(name, TRIALS[name, experiment], quick=True)

    assert outcome.holds, "\n".join(outcome.lines())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "experiment"), [key for key, trial in TRIALS.items() if trial.answers])
def test_every_trial_holds_and_nothing_is_found_below_the_weakest(name: str, experiment: str) -> None:
    trial = TRIALS[name, experiment]

    outcome = tried(name, trial)

    printed = "\n".join(outcome.lines())
    assert outcome.holds, printed
    assert f"weakest strength found: {outcome.weakest:g}" in printed
    # Where all strengths are found, nothing at all is the next weaker one, and `holds` has looked at that.
    weaker = [strength for strength in trial.strengths if strength < outcome.weakest]
    assert not any(_run(trial, strength).found for strength in weaker[1:])


def test_workers_tell_the_same() -> None:
    here = [
        outcome for outcome in selftest(experiment="hidden_states", quick=True) if isinstance(outcome, Tried)
    ]

    with engine_of(1) as engine:
        there = list(selftest(experiment="hidden_states", quick=True, engine=engine))

    assert [list(outcome.lines()) for outcome in there] == [list(outcome.lines()) for outcome in here]
    assert here
    assert all(isinstance(outcome, Told) for outcome in there)


def test_an_instrument_that_counts_depths_wrongly_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.maths import transitions

    right = transitions.last_rise_through
    monkeypatch.setattr(transitions, "last_rise_through", lambda row, level: right(row, level) + 1)

    outcome = tried("mover", MOVER, quick=True)

    assert not outcome.holds
    assert "DOES NOT HOLD" in next(outcome.lines())
    assert "mean_transition near: 3.5" in "\n".join(outcome.lines())
    assert outcome.absent is not None
    assert outcome.absent.claims_nothing


def test_an_instrument_that_sees_growth_everywhere_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.experiments.hidden_states.conclude import curves

    right = curves.growth_rate
    monkeypatch.setattr(curves, "growth_rate", lambda *args, **more: right(*args, **more) + 0.05)

    outcome = tried("growing", GROWING)

    assert not outcome.holds
    assert math.isnan(outcome.weakest or 0)
    assert "nothing found at strength 0: NO" in "\n".join(outcome.lines())


def test_a_trial_of_an_experiment_to_come_waits_and_does_not_fail() -> None:
    outcome = tried("mover", replace(MOVER, experiment="not_yet_written"))

    assert outcome.holds
    assert next(outcome.lines()) == "not_yet_written on mover: waiting for not_yet_written"


def test_a_trial_without_answers_is_said_to_have_none() -> None:
    outcome = tried("mover", replace(MOVER, answers=()))

    assert "waiting for its answers" in next(outcome.lines())


def test_a_number_that_the_result_does_not_hold_is_not_found() -> None:
    lacking = replace(GROWING, answers=(Answer("no_such_number", 0.0, 1.0),), strengths=(0.05,))

    outcome = tried("growing", lacking)

    assert not outcome.holds
    assert math.isnan(outcome.weakest or 0)


def test_a_refusal_is_reported_and_finds_nothing() -> None:
    wrong = replace(MOVER, texts=lambda: {"prompts": [{"prompt": "a coat of anna", "subject": "anna"}]})

    outcome = tried("mover", wrong, quick=True)

    assert not outcome.holds
    assert "refused: " in "\n".join(outcome.lines())


def test_the_load_check_of_a_model_comes_first_with_what_it_takes_away() -> None:
    checked = next(selftest(zoo.layered("gptj")))
    sound = next(selftest(zoo.layered("gpt2")))

    printed = "\n".join(checked.lines())
    assert not checked.holds
    assert "FAILS  attention can be watched and edited" in printed
    assert "refused in consequence: head_out, q, k, v, pattern" in printed
    assert sound.holds
    assert "FAILS" not in "\n".join(sound.lines())


def _only(*trials: tuple[str, Trial]) -> Any:
    return lambda: list(trials)


def test_the_command_exits_with_0_and_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "trials", _only(("growing", GROWING)))
    sound = CliRunner().invoke(cli.cli, ["selftest", "--quick"])
    beyond = replace(GROWING, answers=(replace(GROWING.answers[0], expected=0.2),))
    monkeypatch.setattr(planted, "trials", _only(("growing", beyond)))
    broken = CliRunner().invoke(cli.cli, ["selftest", "--quick"])

    assert (sound.exit_code, broken.exit_code) == (0, 1)
    assert "all checks hold" in sound.output
    assert "NOT WITHIN TOLERANCE" in broken.output
    assert "some checks do not hold" in broken.output


def test_the_command_exits_with_1_when_the_instrument_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.maths import transitions

    monkeypatch.setattr(transitions, "last_rise_through", lambda row, level: 0.5)
    monkeypatch.setattr(planted, "trials", _only(("mover", MOVER)))

    assert CliRunner().invoke(cli.cli, ["selftest", "--quick"]).exit_code == 1


def test_a_model_that_cannot_be_loaded_is_a_mistake_in_words() -> None:
    with pytest.raises(LayerscopeError, match="no such model"):
        next(selftest("./nowhere/at-all"))


def test_weights_that_are_not_numbers_are_refused_by_name() -> None:
    module = zoo.make("gpt2")
    with torch.no_grad():
        module.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")

    with pytest.raises(LayerscopeError, match="weights are not numbers"):
        next(selftest(ls.load_model(module, tokenizer=zoo.tokenizer())))


def test_an_outcome_without_runs_prints_two_lines() -> None:
    assert len(list(Tried("mover", MOVER, waiting="waiting").lines())) == 2
