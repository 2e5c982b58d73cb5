"""Commands that look at what there is: list, show, annotate, check-prompts, selftest."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from layerscope.cli.options import Question, asking
from layerscope.cli.program import RunFolderPath, RunPaths, RunsIn, Workers, cli
from layerscope.cli.telling import end_with, going_on, say, tell_checks, tell_layers, tell_run
from layerscope.errors import LayerscopeError
from layerscope.jobs.request import MOST_THREADS
from layerscope.results.files import typed


@cli.command("list")
def list_(
    what: Annotated[
        Literal["experiments", "models", "prompts", "runs", "commands"], typer.Argument(help="What to list.")
    ] = "experiments",
    out: Annotated[Path, typer.Option("--runs", "--out", help="The folder whose runs are listed.")] = Path(
        "runs"
    ),
) -> None:
    """What there is: experiments with their questions, models, prompts, saved runs, or all commands with their help.

    layerscope list runs --runs elsewhere
    """
    if what == "commands":
        from layerscope.cli.program import commands_page

        typer.echo(commands_page(), nl=False)
        return
    from layerscope import experiments
    from layerscope.jobs.listing import line_of_experiment, lines_of

    if what != "experiments":
        for line in lines_of(what, out):
            say(line)
        return
    refused: dict[str, LayerscopeError] = {}
    for name in experiments.names():
        with going_on(name, refused):
            say(line_of_experiment(name))
    end_with(refused)


@cli.command()
def show(
    folders: RunPaths,
    layers: Annotated[
        bool, typer.Option("--layers", help="Layer by layer: where each stands out in all measures together.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(help="With --layers: a file for every measure of every layer.", metavar="FILE"),
    ] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """What runs found, in the terminal; of one that was refused, why.

    layerscope show runs/causal_trace-gpt2-0123456789ab

    layerscope show --layers runs
    """
    if layers or csv is not None:
        tell_layers(folders, csv)
        return
    from layerscope.results.run_names import runs_meant

    refused: dict[str, LayerscopeError] = {}
    meant = runs_meant(folders)
    for run in meant:
        with going_on(str(run.path), refused) if len(meant) > 1 else nullcontext():
            tell_run(run, whole=True)
    end_with(refused)


@cli.command()
def annotate(
    folder: RunFolderPath,
    annotator: Annotated[str, typer.Option(help="Who will fill it in; names the file.")] = "first",
    runs: RunsIn = Path("runs"),
) -> None:
    """Write a sheet for a person to fill in; the report uses every sheet that lies in the run's annotations/.

    layerscope annotate runs/trigger_examples-0123 --annotator anna
    """
    from layerscope.jobs.annotating import annotate as write

    path = write(folder, annotator)
    typer.echo(f"wrote {path}\nnext: fill in its last columns, then: layerscope report {typed(folder)}")


@cli.command("check-prompts")
@asking(
    without=(
        "prompts",
        "passages",
        "treebank",
        "words",
        "settings",
        "seed",
        "limit",
        "longest",
        "twins",
        "untrained_twin",
    )
)
def check_prompts(
    asked: Question,
    prompts: Annotated[
        str, typer.Argument(help="A file, a bundled set, or text with *stars*.", metavar="FILE")
    ],
    out: Annotated[
        Path | None, typer.Option(help="A file for the checks of all prompts.", metavar="FILE")
    ] = None,
) -> None:
    """Which prompts meet the constraints of a causal trace on a model, and why not; exits with 1 if some do not.

    layerscope check-prompts prompts.jsonl --model gpt2
    """
    from layerscope.jobs.checking import check_prompts as check
    from layerscope.jobs.standing_first import standing_first
    from layerscope.text.prompts import prompts_of

    prompts_of(prompts)  # a file that is not there is told before a model is loaded
    model = asked.loaded()
    bos, chat = asked.request.bos, asked.request.chat
    first = standing_first(model, bos)
    typer.echo(first.said() if not chat else "the chat template says what stands first")
    checks = check(model, prompts, bos=bos if chat else first.used(needed=False), chat=chat)
    tell_checks(checks, out)
    used = sum(not one.left_out_because for one in checks)
    typer.echo(f"{used} of {len(checks)} prompts would be traced")
    if used < len(checks):
        raise typer.Exit(1)


@cli.command("new-experiment")
def new_experiment(
    name: Annotated[
        str, typer.Argument(help="Its name on the command line: small letters, digits and underscores.")
    ],
    out: Annotated[Path, typer.Option(help="The folder in which its package is made.")] = Path(),
) -> None:
    """Make the package of a new experiment: its roles, a planted model and tests; it works as it is made.

    layerscope new-experiment state_growth
    """
    from layerscope.jobs.new_experiment import new_experiment as make

    folder = make(name, out)
    typer.echo(f"wrote {folder}\nnext: pip install --editable {typed(folder)}, then: layerscope run {name}")


@cli.command()
def selftest(
    experiment: Annotated[
        str | None, typer.Argument(help="A name from `layerscope list`; none: every experiment.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Also the load check, on this folder, hub name or 'bundled'.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not look for the weakest effect found.")] = False,
    device: Annotated[str | None, typer.Option(help="Where that model runs.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Its type of numbers.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Processor threads.")] = None,
    workers: Workers = "0",
) -> None:
    """Does every instrument find what was planted in small models, and nothing where there is nothing?

    layerscope selftest --model gpt2

    Exits with 1 if a check does not hold.
    """
    from layerscope.jobs.selftest import selftest as outcomes
    from layerscope.jobs.workers import engine_of, number_of, read_workers

    many = read_workers(workers)
    Question(threads=threads, workers=many).use_threads()
    holds = True
    with engine_of(number_of(many, None, threads)) as engine:
        for outcome in outcomes(
            model, experiment=experiment, device=device, dtype=dtype, quick=quick, engine=engine
        ):
            holds &= outcome.holds
            typer.echo("\n".join(outcome.lines()))
    typer.echo("all checks hold" if holds else "some checks do not hold")
    if not holds:
        raise typer.Exit(1)
