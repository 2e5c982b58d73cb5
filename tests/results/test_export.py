from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.escaping import restored, stored
from layerscope.results.export import export
from layerscope.results.schema import quantity

RESULT = xr.Dataset(
    {
        "value": quantity(np.array([[0.1, np.nan], [1e-300, 3.0]]), "token depth", "value"),
        "flag": quantity([True, False], "token", "flag"),
        "mean": quantity(2.5, "", "mean"),
    },
    coords={"depth": [0, 1], "token_text": ("token", [stored(' a,"\n'), stored("\ud800")])},
)
READ = {"csv": pd.read_csv, "parquet": pd.read_parquet}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_number_is_in_the_tables(tmp_path: Path, form: str) -> None:
    paths = export(RESULT, tmp_path, form)  # type: ignore[arg-type]

    tables = {path.stem: READ[form](path) for path in paths}
    assert set(tables) == {"token-depth", "token", "numbers"}
    np.testing.assert_array_equal(tables["token-depth"]["value"], RESULT.value.values.ravel())
    assert list(tables["token-depth"]["depth"]) == [0, 1, 0, 1]
    assert list(tables["token"]["flag"]) == [True, False]
    assert list(tables["numbers"]["mean"]) == [2.5]
    assert [restored(text) for text in tables["token"]["token_text"]] == [' a,"\n', "\ud800"]


def test_tables_are_not_written_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(LayerscopeError, match="cannot write"):
        export(RESULT, tmp_path / "file", "csv")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("safe", [False, True])
def test_a_spreadsheet_finds_no_formula_and_numbers_stay(tmp_path: Path, safe: bool) -> None:
    texts = ["=1+1", "+1", "-2", "@x", "\t=1", "plain", "a=1"]
    result = xr.Dataset(
        {"value": quantity(np.arange(7) - 3.0, "token", "value")}, coords={"token_text": ("token", texts)}
    )

    (path,) = export(result, tmp_path, "csv", spreadsheet_safe=safe)

    table = pd.read_csv(path, dtype={"token_text": str})
    expected = [f"'{text}" for text in texts[:5]] + texts[5:] if safe else texts
    assert list(table["token_text"]) == expected
    assert list(table["value"]) == list(np.arange(7) - 3.0)
