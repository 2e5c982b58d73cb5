"""A result as plain tables, for R, a spreadsheet or a database."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

import pandas as pd
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import make_folder, write_atomically, write_text
from layerscope.results.findings_table import for_papers
from layerscope.results.latex import latex_of
from layerscope.results.spreadsheet import harmless_table

Format = Literal["csv", "parquet", "latex"]


def tables(result: xr.Dataset) -> dict[str, pd.DataFrame]:
    """One long table per set of dimensions, named by them: "token-depth-sample", "prompt", ...

    Each row is one cell; coordinates stand beside the quantities. Token text keeps its stored
    form (JSON escapes), so that every value survives a text file.
    """
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, variable in result.data_vars.items():
        groups[tuple(str(dimension) for dimension in variable.dims)].append(str(name))
    return {"-".join(dims) or "numbers": _table(result, names) for dims, names in groups.items()}


def _table(result: xr.Dataset, names: list[str]) -> pd.DataFrame:
    selected = result[names]
    if not selected.dims:
        return pd.DataFrame({name: [selected[name].item()] for name in names})
    return selected.to_dataframe().reset_index()


def export(
    result: xr.Dataset,
    folder: Path,
    format: Format,
    findings: pd.DataFrame | None = None,
    *,
    spreadsheet_safe: bool = False,
) -> list[Path]:
    """Write every table of a result into a folder, and its findings as one more; returns the files.

    LaTeX is written of the findings alone. With `spreadsheet_safe` an apostrophe stands before texts that a spreadsheet
    would take for a formula, so that they are no longer the texts themselves.

    Raises:
        LayerscopeError: parquet is asked for without pyarrow, or the folder cannot be written.
    """
    if format == "parquet":
        _need_pyarrow()
    make_folder(folder)
    written = []
    if format == "latex":
        return [_latex(folder / "findings.tex", pd.DataFrame() if findings is None else findings)]
    further = {} if findings is None else {"findings": findings}
    for name, table in (tables(result) | further).items():
        table = harmless_table(table) if spreadsheet_safe else table
        path = folder / f"{name}.{format}"
        write_atomically(path, lambda place, table=table: _write(table, place, format))  # type: ignore[misc]
        written.append(path)
    return written


def _write(table: pd.DataFrame, place: Path, format: Format) -> None:
    if format == "parquet":
        table.to_parquet(place, index=False)
    else:
        table.to_csv(place, index=False)


def _latex(path: Path, findings: pd.DataFrame) -> Path:
    write_text(path, latex_of(for_papers(findings)))
    return path


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise LayerscopeError(
            "parquet needs a package that is not installed",
            found="no pyarrow",
            expected="pyarrow",
            hint="pip install 'layerscope[parquet]'   (or --to csv)",
        ) from error
