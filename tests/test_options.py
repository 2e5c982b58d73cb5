"""What commands share: how a question is heard in a hurry."""

from __future__ import annotations

from layerscope.cli.options import Question


def test_a_hurry_never_draws_more_than_an_experiment_does_by_itself() -> None:
    quick = {name: Question().for_experiment(name, quick=True) for name in ("causal_trace", "future_use")}

    assert quick["causal_trace"].chosen() == {"samples": 3}
    assert quick["future_use"].chosen() == {}  # it draws once
    assert {heard.limit for heard in quick.values()} == {10}


def test_samples_that_were_asked_for_count_in_a_hurry_too() -> None:
    asked = Question(settings=["samples=1", "metric=kl"])

    assert asked.for_experiment("causal_trace", quick=True).chosen() == {"samples": 1, "metric": "kl"}
