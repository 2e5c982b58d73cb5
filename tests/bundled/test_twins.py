"""Untrained twins of the bundled model, as they ship: found by what is asked, and what a twin gives now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layerscope as ls
from layerscope import experiments
from layerscope.bundled import bundled_folder
from layerscope.evidence.twins import beside_twins
from layerscope.jobs.prepare import prepare
from layerscope.jobs.request import Request
from layerscope.maths.prediction import FEWEST
from layerscope.results.shipped_twins import read_twins, shipped_path, shipped_twins

FILES = sorted(bundled_folder("twins").glob("*.xz"))
OF_RIGHT_ANSWERS = {"causal_trace"}
"""A twin has a result only where it guesses an answer."""


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 1_000_000


def test_what_ships_is_what_a_twin_gives_now() -> None:
    name = "final_token_attention"
    found = shipped_twins(prepare(Request(name)).record)

    assert len(found) >= FEWEST
    now = ls.run(name, ls.untrained_twin(ls.load_model("bundled"), seed=2), progress=False)

    assert found[2].data_vars
    for variable in found[2].variables:
        values = found[2][variable].values
        if values.dtype.kind == "f":
            np.testing.assert_allclose(
                values, now[variable].values, rtol=1e-4, atol=1e-5, err_msg=str(variable)
            )
        else:
            np.testing.assert_array_equal(values, now[variable].values, err_msg=str(variable))
    first, second = (experiments.load(name).claims(result) for result in (found[2], now))
    assert [(one.about, one.significant) for one in first] == [(one.about, one.significant) for one in second]


@pytest.mark.parametrize("changed", [{"seed": 1}, {"level": 0.9}])
def test_a_changed_setting_finds_none(changed: dict[str, Any]) -> None:
    assert shipped_twins(prepare(Request("final_token_attention", settings=changed)).record) == {}
    assert shipped_twins(prepare(Request("final_token_attention", limit=2)).record) == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_and_curves_can_be_had_from_what_ships(path: Path) -> None:
    name = path.name.rpartition("-")[0]
    experiment, twins = experiments.load(name), read_twins(path)

    assert len(twins) >= FEWEST
    for seed, twin in twins.items():
        assert twin.attrs["experiment"] == name
        assert experiment.claims(twin), seed
        measures = experiment.over_depth(twin)  # of what twins cannot do, such as answer, all cells are empty
        assert measures, seed
        assert all({"value", "low", "high"} <= set(one.data_vars) for one in measures.values()), seed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_claim_that_is_an_effect_finds_the_same_claim_in_every_twin(path: Path) -> None:
    experiment, twins = experiments.load(path.name.rpartition("-")[0]), list(read_twins(path).values())
    first, *others = (experiment.claims(twin) for twin in twins)

    for claim in beside_twins(first, others):
        if claim.untrained is not None and claim.untrained[0] == "effect" and claim.value is not None:
            assert len(claim.twins) == len(others), claim.text


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
def test_the_default_question_of_every_experiment_finds_its_twins(name: str) -> None:
    assert shipped_path(prepare(Request(name)).record).is_file() == (name not in OF_RIGHT_ANSWERS)
