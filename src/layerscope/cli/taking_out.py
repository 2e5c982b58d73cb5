"""Commands that take results out of Layerscope: export, figures, cite."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from layerscope.cli.program import GivenRuns, RunFolderPath, RunPaths, RunsIn, cli
from layerscope.cli.telling import end_with, going_on, say
from layerscope.errors import LayerscopeError


@cli.command()
def export(
    folder: RunFolderPath,
    to: Annotated[Literal["csv", "parquet", "latex"], typer.Option(help="The format of the tables.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="Where tables go; by default DIR/tables.")] = None,
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe", help="An apostrophe before texts that a spreadsheet takes for a formula."
        ),
    ] = False,
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
    findings = None
    try:
        record = run.record
        model = str(record.facts.get("name", record.asked.model))
        findings = findings_table(claims_of(run, result), record.asked.experiment, model)
    except LayerscopeError as error:  # a result of another version: its numbers can be had all the same
        if to == "latex":
            raise
        say(f"layerscope: the findings are left out: {error}", err=True)
    place = out or run.path / "tables"
    for path in tables.export(result, place, to, findings, spreadsheet_safe=spreadsheet_safe):
        say(str(path))


@cli.command()
def figures(
    folders: RunPaths,
    to: Annotated[Literal["svg", "pdf", "png"], typer.Option(help="The format.")] = "svg",
    only: Annotated[str, typer.Option(help="Only figures with these words in their title.")] = "",
    bare: Annotated[
        bool, typer.Option("--bare", help="Without title and caption, for texts that have their own.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where they go; by default DIR/figures.")] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """Write the figures of runs as files; of a figure with a menu, what it shows first.

    layerscope figures runs/causal_trace-gpt2-0123456789ab --to pdf
    """
    from layerscope.jobs.progress import for_this_terminal
    from layerscope.report.figure_files import figures_of, write_figures
    from layerscope.results.run_names import runs_meant

    meant, refused = runs_meant(folders), dict[str, LayerscopeError]()
    for run in meant:
        place = out or run.path / "figures"
        with going_on(str(run.path), refused) if len(meant) > 1 else nullcontext():
            drawn = figures_of(run, only)
            shown, written = for_this_terminal(), []
            shown.begin(
                run.path.name, items=len(drawn), size=len(drawn), done_items=0, done_size=0, noun="figures"
            )
            try:
                for path in write_figures(
                    drawn, place / run.path.name if out and len(meant) > 1 else place, to, bare=bare
                ):
                    shown.finished(path.name, 1)
                    written.append(path)
            finally:
                shown.end()
            say("\n".join(map(str, written)))
    end_with(refused)


@cli.command()
def cite(
    given: GivenRuns = None,
    out: Annotated[
        Path | None, typer.Option(help="A file to write it to, instead of the terminal.", metavar="FILE")
    ] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """How to cite Layerscope, and with runs the sources of their methods, as BibTeX.

    layerscope cite runs/causal_trace-gpt2-0123456789ab --out references.bib
    """
    from layerscope.results.citation import bibtex, sources_of
    from layerscope.results.files import write_text

    entries = bibtex()
    if given:
        from layerscope import experiments
        from layerscope.results.run_names import runs_meant

        asked = {run.record.asked.experiment for run in runs_meant(given)}
        entries += "\n" + sources_of({name: experiments.load(name).doc for name in sorted(asked)})
    if out is None:
        typer.echo(entries)
    else:
        write_text(out, entries + "\n")
        say(f"wrote {out}")
