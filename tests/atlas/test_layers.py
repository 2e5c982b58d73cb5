"""From runs to layers: a planted head is found at its layer, with its role; sentences, table, command, refusals."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import layerscope as ls
from layerscope.atlas.layers import Layers, layers
from layerscope.cli import cli
from layerscope.errors import LayerscopeError
from layerscope.planted.first_token import first_token
from layerscope.planted.looks_back import WORDS

TEXTS = [" ".join(np.random.default_rng(seed).choice(WORDS, size=16)) for seed in range(6)]


READ = ["the red fox met the old dog in the town"] * 3 + ["an old town of stone and a red dog sang"] * 3


@cache
def sink(layer: int, strength: float = 1.0) -> xr.Dataset:
    """A model of six layers in which one head of one layer rests on the first token, as `attention_patterns` has it."""
    model = first_token(layer=layer, n_layers=6, strength=strength)
    return ls.run("attention_patterns", model, passages=TEXTS, progress=False)


@pytest.fixture(scope="module")
def at_four() -> Layers:
    return layers([sink(4)])


def test_a_planted_sink_stands_out_at_its_layer_and_nowhere_else(at_four: Layers) -> None:
    assert [layer for layer in range(6) if at_four.findings(layer)] == [4]
    said = at_four.describe(4)
    assert "Layer 4 has the highest attention to the first token: " in said
    assert "on average in the 5 other layers (95% CI" in said


def test_one_planted_elsewhere_is_found_there() -> None:
    found = layers([sink(1)])

    assert [layer for layer in range(6) if found.findings(layer)] == [1]


def test_without_it_nothing_stands_out_and_that_is_said() -> None:
    found = layers([sink(4, strength=0.0)])

    assert not any(found.findings(layer) for layer in range(6))
    assert found.describe(4) == "Layer 4\n  Nothing stands out in the 1 measure that could be tested."


def test_its_head_has_the_role_and_no_other_head_has_one(at_four: Layers) -> None:
    assert [(head.role.name, head.layer, head.head) for head in at_four.roles] == [("first-token head", 4, 1)]
    assert "  L4H1 is a first-token head: " in at_four.describe(4)
    assert "L4H1" not in at_four.describe(3)


def test_a_finding_s_numbers_are_those_of_the_result(at_four: Layers) -> None:
    claim = at_four.findings(4)[0]
    cell = at_four.data.sel(measure="attention_patterns.first_token_share", layer=4)

    assert (claim.value, claim.low, claim.high) == (float(cell.value), float(cell.low), float(cell.high))
    assert claim.select == {"measure": "attention_patterns.first_token_share", "layer": 4}
    assert claim.p_adjusted == float(cell.p_adjusted)


def test_the_table_has_a_row_for_each_measure_of_each_layer(at_four: Layers) -> None:
    table = at_four.table()

    assert len(table) == 6
    assert {"measure", "layer", "value", "low", "high", "null", "rank", "stands_out"} <= set(table.columns)
    assert table.value.tolist() == at_four.data.value.values.ravel().tolist()


def test_the_command_says_the_same_of_saved_runs(tmp_path: Path, tiny: Path) -> None:
    settings: dict[str, Any] = {"resamples": 100, "progress": False, "out": tmp_path}
    ls.run("hidden_states", str(tiny), passages=READ, **settings)
    ls.run("first_token_attention", str(tiny), passages=READ, **settings)
    csv = tmp_path / "layers.csv"

    told = CliRunner().invoke(cli, ["show", "--layers", str(tmp_path), "--csv", str(csv)])

    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0].startswith("tiny: 4 measures of 4 layers, ")
    assert "\n".join(layers(tmp_path).lines()) in told.output
    assert len(csv.read_text().splitlines()) == 1 + 4 * 4


def test_what_cannot_be_read_is_refused(at_four: Layers, tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="no complete run"):
        layers(tmp_path)
    with pytest.raises(LayerscopeError, match="does not say which experiment"):
        layers([xr.Dataset()])
    with pytest.raises(LayerscopeError, match="not runs of one model"):
        layers([sink(4), sink(1)])
    for layer in (6, -1, True):
        with pytest.raises(LayerscopeError, match="no such layer"):
            at_four.describe(layer)


def test_measures_without_resamples_stand_out_nowhere() -> None:
    """Weights have no texts to be resampled: of them alone there is a map, and nothing that could be tested."""
    found = layers(sink(4).drop_vars([name for name in sink(4) if str(name).endswith("_draws")]))

    assert not any(found.findings(layer) for layer in range(6))
    assert found.describe(3).splitlines()[1] == "  Nothing stands out in the 0 measures that could be tested."
    assert found.phases.said() == "No phases: no measure that was resampled is known in every layer."
