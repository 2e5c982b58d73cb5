"""Commands that measure: run, plan, report, trace, resume, replay.

Heavy imports stay inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from layerscope.cli.every_experiment import every_experiment
from layerscope.cli.options import Question, asking
from layerscope.cli.program import GivenRuns, NamedAgain, Out, RunFolderPath, RunsIn, Trusted, Workers, cli
from layerscope.cli.telling import (
    end_with,
    going_on,
    keep_memory,
    open_page,
    refuse_early,
    say,
    tell_costs,
    tell_plan,
    tell_plans,
    tell_run,
    tell_trace,
    told_of_a_twin,
)
from layerscope.errors import LayerscopeError
from layerscope.results.files import typed


@cli.command()
@asking()
def run(
    asked: Question,
    experiment: Annotated[str, typer.Argument(help="A name from `layerscope list`.")],
    out: Out = Path("runs"),
    engine: Annotated[Literal["local"], typer.Option(help="Where work runs.")] = "local",
) -> None:
    """Run one experiment and save its result.

    layerscope run causal_trace --model gpt2 --prompts english --set samples=10

    The same command, given again, goes on where it stopped.
    """
    refuse_early(experiment, out)
    keep_memory()
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    saved: list[str] = []
    for job in asked.jobs(experiment):
        with told_of_a_twin(job.model, experiment):
            folder = running.run(job, out, for_this_terminal(), asked.workers)
            tell_run(folder)
            typer.echo(f"\nsaved {folder.path}")
            saved.append(str(folder.path))
    typer.echo(f"next: layerscope report {typed(saved[0])}")  # its twins are found beside it


@cli.command()
@asking()
def plan(
    asked: Question,
    experiment: Annotated[str, typer.Argument(help="A name from `layerscope list`, or 'all'.")],
    out: Out = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="What `report --quick` asks.")] = False,
    config_only: Annotated[
        bool,
        typer.Option(
            "--config-only", help="From config.json alone, without weights: operations, bytes, seconds."
        ),
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="With --config-only: operations a second of a device; by default measured here."
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --config-only: devices of that speed; else the workers.")
    ] = None,
) -> None:
    """What a run will cost. A few items are run for real, and kept for the run.

    layerscope plan causal_trace --model gpt2

    Can this machine do a model, and how long does it take? Its config.json is enough:

    layerscope plan all --model FOLDER --config-only
    """
    refuse_early(None if experiment == "all" else experiment, out)
    each = _asked_of_each(asked, experiment, quick)
    if config_only:
        end_with(tell_costs(each, speed=speed, devices=devices))
        return
    if speed is not None or devices is not None:
        raise LayerscopeError(
            "a speed is only asked for where nothing is run",
            found=f"--speed {speed}" if speed is not None else f"--devices {devices}",
            expected="--config-only beside it",
            hint="add --config-only, or leave it out: a plan measures the speed",
        )
    _measure_plans(each, out)


def _asked_of_each(asked: Question, experiment: str, quick: bool) -> dict[str, Question]:
    """What an experiment is asked, or each of all of them as one of many."""
    from layerscope import experiments

    if experiment != "all" and not quick:
        return {experiment: asked}
    names = experiments.names() if experiment == "all" else [experiment]
    return {name: asked.for_experiment(name, quick=quick) for name in names}


def _measure_plans(each: Mapping[str, Question], out: Path) -> None:
    """Plan one experiment, or all of them and together; of untrained twins one is measured and stands for all."""
    keep_memory()
    from layerscope.jobs import planning
    from layerscope.jobs.plans import Plan

    refused: dict[str, LayerscopeError] = {}
    plans: list[Plan] = []
    for name, asked in each.items():
        started = time.monotonic()
        with going_on(name, refused) if len(each) > 1 else nullcontext():
            for job in replace(asked, twins=min(1, asked.n_twins)).jobs(name):
                twin = job.model.facts.untrained is not None
                workers = asked.processes(job.model)
                with told_of_a_twin(job.model, name):
                    found = planning.plan(job, out, load_seconds=time.monotonic() - started)
                    plans += [found] * (asked.n_twins if twin else 1)
                    tell_plan(name + f", each of {asked.n_twins} untrained twins" * twin, found, workers)
                started = time.monotonic()
    if len(each) > 1 and plans:
        tell_plans(plans, workers)
    end_with(refused)


@cli.command()
@asking(without=("settings", "limit", "longest"), workers="auto")
def report(
    asked: Question,
    given: GivenRuns = None,
    out: Annotated[Path, typer.Option(help="The folder for runs and report.html.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer texts and draws: a first look.")] = False,
    runs: RunsIn = Path("runs"),
) -> None:
    """The main job: every experiment on one model, and one HTML file that shows it all.

    layerscope report --model gpt2
    """
    from layerscope.jobs.workers import engine_of
    from layerscope.report.write import apart, sections_of, write_report
    from layerscope.results.files import make_folder
    from layerscope.results.run_names import runs_meant

    refuse_early(None, out)
    refused: dict[str, LayerscopeError] = {}
    page = make_folder(out) / "report.html"
    if given:
        # A damaged run is shown as such on the page; what is no run at all is refused here.
        folders = runs_meant(given)
        sections = sections_of(folders, page)
    else:
        model = asked.loaded()
        with engine_of(asked.processes(model)) as engine:
            folders = every_experiment(asked, model, engine, out, quick, refused)
            sections = sections_of(folders, page, engine)
    write_report(folders, page, refused=refused, sections=sections)
    for folder, section in zip(apart(folders)[0], sections, strict=True):
        with going_on(folder.path.name, refused):
            tell_run(folder, claims=[card.claim for card in section.claims] or None)
    typer.echo(f"\nwrote {page}\nnext: open it in a browser (it needs no network)")
    end_with(refused)


@cli.command()
@asking(
    without=(
        "prompts",
        "passages",
        "treebank",
        "words",
        "limit",
        "longest",
        "twins",
        "untrained_twin",
        "workers",
    ),
)
def trace(
    asked: Question,
    prompt: Annotated[
        str, typer.Argument(help="One prompt, with *stars* round what is corrupted.", metavar="PROMPT")
    ],
    json_: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead.")] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Keep the run, write its figures as a page, and open it.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --open: the folder below which the run goes.")] = Path(
        "runs"
    ),
) -> None:
    """One prompt: its causal trace as a map in the terminal, the top predictions, and the answer's path by logit lens.

    layerscope trace "The *Eiffel* Tower is in the city of" --model gpt2
    """
    from layerscope.text.stars import refuse_unstarred

    refuse_unstarred(prompt)
    if open_:
        refuse_early("causal_trace", out)
    keep_memory()
    from layerscope.jobs.progress import Silent, for_this_terminal
    from layerscope.jobs.tracing import traced

    small = ["smallest_range=0.01", *(asked.settings or [])]  # one prompt has no average to protect
    one = replace(asked, request=replace(asked.request, prompts=prompt), settings=small)
    job = one.job("causal_trace")
    found = traced(job, Silent() if json_ else for_this_terminal(), out=out if open_ else None)
    if json_:
        typer.echo(json.dumps(found.plain(), allow_nan=False))
    else:
        tell_trace(found)
    if found.folder is not None:
        open_page(Path(found.folder))
    elif not json_:
        typer.echo(
            "next: the same with --open for its figures; many prompts: layerscope run causal_trace --prompts FILE"
        )


@cli.command()
def resume(
    folder: RunFolderPath,
    model: NamedAgain = None,
    trust_remote_code: Trusted = False,
    workers: Workers = "0",
    runs: RunsIn = Path("runs"),
) -> None:
    """Go on with a run that was interrupted.

    layerscope resume runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal
    from layerscope.jobs.workers import read_workers

    keep_memory()
    done = running.resume(
        folder,
        for_this_terminal(),
        model=model,
        trust_remote_code=trust_remote_code,
        workers=read_workers(workers),
    )
    tell_run(done)
    typer.echo(f"\nsaved {done.path}\nnext: layerscope report {typed(done.path)}")


@cli.command()
def replay(
    folder: RunFolderPath,
    model: NamedAgain = None,
    trust_remote_code: Trusted = False,
    workers: Workers = "0",
    runs: RunsIn = Path("runs"),
) -> None:
    """Run a complete run once more and compare every number; exits with 1 if some changed.

    layerscope replay runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal
    from layerscope.jobs.workers import read_workers

    keep_memory()
    found = running.replay(
        folder,
        for_this_terminal(),
        model=model,
        trust_remote_code=trust_remote_code,
        workers=read_workers(workers),
    )
    typer.echo(
        f"{found.verdict}" + (f" (largest relative difference {found.largest:.2g})" if found.largest else "")
    )
    for line in found.changed:
        say(f"  {line}")
    say("since the run: " + ("; ".join(found.since) or "nothing recorded has changed"))
    if found.verdict == "changed":
        raise typer.Exit(1)
