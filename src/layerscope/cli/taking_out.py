"""Commands that take results out of Layerscope: export, figures, cite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from layerscope.cli.program import RunFolderPath, RunPaths, RunsIn, cli
from layerscope.cli.telling import say


@cli.command()
def export(
    folder: RunFolderPath,
    to: Annotated[Literal["csv", "parquet", "latex"], typer.Option(help="The format of the tables.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="Where tables go; by default DIR/tables.")] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """Write a result as plain tables, one for each set of dimensions, and its findings as one more.

    LaTeX holds the findings alone: it is for papers.

    layerscope export runs/causal_trace-gpt2-0123456789ab --to csv
    """
    from layerscope.jobs.listing import claims_of
    from layerscope.results import export as tables
    from layerscope.results.findings_table import findings_table
    from layerscope.results.store import RunFolder

    run = RunFolder.open(folder)
    result = run.result()
    findings = findings_table(claims_of(run, result))
    for path in tables.export(result, out or run.path / "tables", to, findings):
        typer.echo(path)


@cli.command()
def figures(
    folders: RunPaths,
    to: Annotated[Literal["svg", "pdf", "png"], typer.Option(help="The format.")] = "svg",
    only: Annotated[str, typer.Option(help="Only figures with these words in their title.")] = "",
    out: Annotated[Path | None, typer.Option(help="Where they go; by default DIR/figures.")] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """Write the figures of runs as files; of a figure with a menu, what it shows first.

    layerscope figures runs/causal_trace-gpt2-0123456789ab --to pdf
    """
    from layerscope.report.figure_files import figure_files
    from layerscope.results.store import RunFolder

    for folder in folders:
        run = RunFolder.open(folder)
        place = out / run.path.name if out is not None and len(folders) > 1 else out
        for written in figure_files(run, place or run.path / "figures", to, only):
            for path in written:
                say(str(path))


@cli.command()
def cite(
    out: Annotated[
        Path | None, typer.Option(help="A file to write it to, instead of the terminal.", metavar="FILE")
    ] = None,
) -> None:
    """How to cite Layerscope, as BibTeX.

    layerscope cite --out layerscope.bib
    """
    from layerscope import __version__
    from layerscope.results.citation import bibtex
    from layerscope.results.files import write_text

    entry = bibtex(__version__)
    if out is None:
        typer.echo(entry)
    else:
        write_text(out, entry + "\n")
        say(f"wrote {out}")
