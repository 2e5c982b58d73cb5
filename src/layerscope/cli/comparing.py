"""Several models side by side: `compare`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from layerscope.cli.every_experiment import every_experiment
from layerscope.cli.options import Question, asking
from layerscope.cli.program import GivenModels, Out, RunsIn, cli
from layerscope.cli.telling import end_with, tell_comparison
from layerscope.errors import LayerscopeError


@cli.command()
@asking(without=("model", "settings", "limit", "longest"), workers="auto")
def compare(
    asked: Question,
    given: GivenModels = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--models", help="A model; give several: what is missing is run first."),
    ] = None,
    out: Out = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="What `report --quick` runs.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="The page; by default compare.html below --out.", metavar="FILE"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="A file for every index of every model.", metavar="FILE")
    ] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """Several models side by side: headline indices with intervals, how their layers align, and a page that shows both.

    The first model is the one that differences are taken from. Where `layerscope reproduce` has judged the posts'
    claims on these runs, they stand beside one another, too.

    layerscope compare runs-of-gpt2 runs-of-gpt2-medium

    layerscope compare --models gpt2 --models gpt2-medium
    """
    from layerscope.atlas.compare import compare as side_by_side
    from layerscope.atlas.layers import layers
    from layerscope.atlas.reproduced import joined, saved
    from layerscope.jobs.workers import engine_of
    from layerscope.report.comparison import write_comparison

    refused: dict[str, LayerscopeError] = {}
    shown: list[Any] = list(given or [])
    for name in models or []:
        question = replace(asked, request=replace(asked.request, model=name))
        own: dict[str, LayerscopeError] = {}
        model = question.loaded()
        with engine_of(question.processes(model)) as engine:
            folders = every_experiment(question, model, engine, out, quick, own)
        refused |= {f"{experiment} on {name}": error for experiment, error in own.items()}
        shown.append(layers([one for one in folders if one.record.asked.untrained is None]))
    found = side_by_side(*shown)
    posts = joined((saved(folder) for folder in (*(given or []), out)), found.models)
    tell_comparison(found, csv, posts)
    typer.echo(f"\nwrote {write_comparison(found, page or out / 'compare.html', posts)}")
    end_with(refused)
