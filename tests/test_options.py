"""What commands share: how a question is heard in a hurry."""

from __future__ import annotations

import pytest

from layerscope import LayerscopeError, experiments
from layerscope.cli.options import Question


def test_a_hurry_never_draws_more_than_an_experiment_does_by_itself() -> None:
    quick = {name: Question().for_experiment(name, quick=True) for name in ("causal_trace", "future_use")}

    assert quick["causal_trace"].chosen() == {"samples": 3}
    assert quick["future_use"].chosen() == {}  # it draws once
    assert {heard.request.limit for heard in quick.values()} == {10}


def test_samples_that_were_asked_for_count_in_a_hurry_too() -> None:
    asked = Question(settings=["samples=1", "metric=kl"])

    assert asked.for_experiment("causal_trace", quick=True).chosen() == {"samples": 1, "metric": "kl"}


@pytest.mark.parametrize(("drawn", "samples"), [("plain", 3), ("antithetic", 4), ("balanced", 8)])
def test_a_hurry_draws_whole_units_where_draws_depend_on_one_another(drawn: str, samples: int) -> None:
    heard = Question(settings=[f"noise_draws={drawn}"]).for_experiment("causal_trace", quick=True).chosen()

    assert heard["samples"] == samples
    assert experiments.settings_of(experiments.load("causal_trace"), heard)  # no refusal


def test_a_hurry_leaves_what_will_be_refused_to_be_refused() -> None:
    heard = Question(settings=["noise_draws=dice"]).for_experiment("causal_trace", quick=True).chosen()

    with pytest.raises(LayerscopeError, match="the setting noise_draws"):
        experiments.settings_of(experiments.load("causal_trace"), heard)
