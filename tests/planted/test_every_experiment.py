"""No instrument without a planted model on which its answer is known."""

import pytest

from layerscope import experiments, planted
from layerscope.planted._trial import Trial

TRIALS = planted.trials()


@pytest.mark.parametrize("experiment", experiments.names())
def test_every_experiment_is_calibrated_on_a_planted_model(experiment: str) -> None:
    calibrating = [name for name, trial in TRIALS if trial.experiment == experiment and trial.answers]

    assert calibrating, f"add a Trial with answers for {experiment} to a file in planted/"


@pytest.mark.parametrize(("name", "trial"), TRIALS, ids=[f"{n}-{t.experiment}" for n, t in TRIALS])
def test_a_trial_says_what_it_plants_and_sweeps_from_strong_to_weak(name: str, trial: Trial) -> None:
    assert trial.plants
    assert not trial.plants.endswith(".")
    assert list(trial.strengths) == sorted(trial.strengths, reverse=True)
    assert min(trial.strengths) > 0


@pytest.mark.parametrize(("name", "trial"), TRIALS, ids=[f"{n}-{t.experiment}" for n, t in TRIALS])
def test_trials_need_no_settings_of_their_own(name: str, trial: Trial) -> None:
    assert not trial.settings


@pytest.mark.parametrize(("name", "trial"), TRIALS, ids=[f"{n}-{t.experiment}" for n, t in TRIALS])
def test_every_planted_model_passes_the_load_check(name: str, trial: Trial) -> None:
    for strength in (trial.planted, 0.0):
        model = trial.model(strength)

        assert [check["name"] for check in model.checks if not check["holds"]] == []
        assert model.refused == {}


def test_every_planted_model_says_what_was_planted() -> None:
    from importlib import import_module

    for name in planted.names():
        doc = import_module(f"layerscope.planted.{name}").__doc__ or ""
        assert len(doc.split()) > 40, name
