"""Models side by side: how their layers align, what their indices differ by, and what cannot be compared."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import layerscope as ls
from layerscope.atlas.compare import Comparison, compare
from layerscope.atlas.indices import indices_of
from layerscope.atlas.layers import layers
from layerscope.cli import cli
from layerscope.errors import LayerscopeError
from layerscope.planted.first_token import first_token
from layerscope.planted.looks_back import WORDS

TEXTS = [" ".join(np.random.default_rng(seed).choice(WORDS, size=16)) for seed in range(6)]


@cache
def sink(layer: int, n_layers: int, strength: float = 1.0) -> xr.Dataset:
    """A model in which one head of one layer rests on the first token."""
    model = first_token(layer=layer, n_layers=n_layers, strength=strength)
    return ls.run("attention_patterns", model, passages=TEXTS, resamples=100, progress=False)


def of(first: xr.Dataset, second: xr.Dataset) -> Comparison:
    return compare(layers(first), layers(second))


@pytest.mark.parametrize(("there", "factor"), [(4, 2.0), (2, 1.0)])
def test_models_agree_by_fraction_or_by_number_as_planted(there: int, factor: float) -> None:
    found = of(sink(2, 6), sink(there, 12))

    row = found.stretches.isel(model=1)
    assert float(row.stretch) == pytest.approx(factor, rel=0.05)
    assert float(row.stretch_low) <= factor * 1.05
    assert float(row.stretch_high) >= factor * 0.95
    assert float(row.by_fraction) == 2
    assert f"multiplied by {factor:g}" in list(found.lines())[-1]


def test_curves_lie_on_the_fraction_of_depth() -> None:
    found = of(sink(2, 6), sink(4, 12))
    sinks = found.curves.value.sel(measure="attention_patterns.first_token_share")

    tops = [float(row.fraction[int(row.argmax("fraction"))]) for row in sinks]
    assert tops == pytest.approx([2.5 / 6, 4.5 / 12], abs=0.013)
    assert np.isnan(sinks.values[:, [0, -1]]).all(), (
        "nothing is made up beyond the first and the last layer's middle"
    )


def test_an_index_in_layers_becomes_a_fraction_and_differs_by_what_was_planted() -> None:
    first, second = sink(2, 6), sink(5, 12)
    name = next(name for name in indices_of({"attention_patterns": first}) if "block_end" in name)

    found = of(first, second).indices.sel(index=name)

    ends = [float(one.block_end.sel(threshold=0.3, sink_measure="first token")) for one in (first, second)]
    assert str(found.unit.values) == "fraction of depth"
    np.testing.assert_allclose(found.value, [ends[0] / 6, ends[1] / 12])
    assert float(found.difference[1]) == pytest.approx(ends[1] / 12 - ends[0] / 6)
    assert np.isnan(float(found.difference[0])), "the first is not held against itself"


def test_models_of_one_name_are_numbered_and_every_index_is_said() -> None:
    found = of(sink(2, 6), sink(2, 12))

    assert found.models[0].endswith(" (1)")
    assert found.models[1].endswith(" (2)")
    said = "\n".join(found.lines())
    assert all(str(label) in said for label in found.indices.label.values)


def test_the_command_reads_folders(tmp_path: Path, tiny: Path) -> None:
    runs, csv = tmp_path / "runs", tmp_path / "indices.csv"
    ls.run("hidden_states", str(tiny), passages=TEXTS, resamples=100, progress=False, out=runs)

    told = CliRunner().invoke(cli, ["compare", str(runs), str(runs), "--csv", str(csv)])

    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0] == "growth of the norm per layer"
    assert "  tiny (2): " in told.output
    assert len(csv.read_text().splitlines()) == 1 + 2


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(LayerscopeError, match="nothing to compare with"):
        compare(layers(sink(2, 6)))
    other = ls.run(
        "hidden_states", first_token(layer=1, n_layers=6), passages=TEXTS, resamples=100, progress=False
    )
    with pytest.raises(LayerscopeError, match="no measure in common"):
        of(sink(2, 6), other)
