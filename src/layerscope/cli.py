"""The command line: parse, call, print the next step.

Heavy imports stay inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from layerscope.errors import LayerscopeError
from layerscope.question import Question, asking

if TYPE_CHECKING:
    from layerscope.jobs.checking import PromptCheck, Unreadable
    from layerscope.jobs.planning import Plan
    from layerscope.jobs.prepare import Job
    from layerscope.jobs.tracing import TracedPrompt
    from layerscope.results.store import RunFolder

cli = typer.Typer(
    name="layerscope",
    help="What does each layer of a decoder-only language model do?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option(help="The folder below which run folders go.")]
RunFolderPath = Annotated[Path, typer.Argument(help="A run folder.", metavar="DIR")]
NamedAgain = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The run's model, named by you: what its record names is never fetched. Its files must be the same.",
    ),
]
Trusted = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that comes with the weights; a record never decides that."
    ),
]


_STOPPED = 130


def main() -> None:
    """Run the command line; a user's mistake ends with 2 and words, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what no terminal can show
    try:
        cli(standalone_mode=True)
    except LayerscopeError as error:
        typer.echo(f"layerscope: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _STOPPED:  # which typer makes of Ctrl-C
            raise
        typer.echo(
            "layerscope: stopped; what was computed is kept. The same command goes on from there.", err=True
        )
        sys.exit(_STOPPED)


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
    _refuse_early(experiment, out)
    _keep_memory()
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    saved: list[str] = []
    for job in asked.jobs(experiment):
        with _told_of_a_twin(job, experiment):
            folder = running.run(job, out, for_this_terminal())
            _tell(folder)
            typer.echo(f"\nsaved {folder.path}")
            saved.append(str(folder.path))
    typer.echo(f"next: layerscope report {' '.join(saved)}")


@cli.command()
@asking()
def plan(
    asked: Question,
    experiment: Annotated[str, typer.Argument(help="A name from `layerscope list`, or 'all'.")],
    out: Out = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="What `report --quick` asks.")] = False,
) -> None:
    """What a run will cost. The first items are run for real, and kept for the run.

    layerscope plan causal_trace --model gpt2
    """
    every = experiment == "all"
    _refuse_early(None if every else experiment, out)
    _keep_memory()
    from layerscope import experiments
    from layerscope.jobs import planning

    refused: dict[str, LayerscopeError] = {}
    for name in experiments.names() if every else [experiment]:
        started = time.monotonic()
        with _going_on(name, refused) if every else nullcontext():
            for job in (asked.for_experiment(name, quick=quick) if every or quick else asked).jobs(name):
                whose = name if job.model.facts.untrained is None else f"{name}, untrained twin"
                with _told_of_a_twin(job, name):
                    _tell_plan(whose, planning.plan(job, out, load_seconds=time.monotonic() - started))
                started = time.monotonic()
    _end_with(refused)


@cli.command()
@asking(without=("settings", "limit", "longest"))
def report(
    asked: Question,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; none: run every experiment.", metavar="[DIR]...")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for runs and report.html.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer texts and draws: a first look.")] = False,
) -> None:
    """The main job: every experiment on one model, and one HTML file that shows it all.

    layerscope report --model gpt2
    """
    from layerscope.report.write import write_report
    from layerscope.results.files import make_folder
    from layerscope.results.store import RunFolder

    _refuse_early(None, out)
    refused: dict[str, LayerscopeError] = {}
    if runs:
        # A damaged run is shown as such on the page; what is no run at all is refused here.
        folders = [RunFolder(path) if RunFolder.is_one(path) else RunFolder.open(path) for path in runs]
    else:
        folders = _every_experiment(asked, out, quick, refused)
    path = write_report(folders, make_folder(out) / "report.html", refused=refused)
    for folder in folders:
        with _going_on(folder.path.name, refused):
            _tell(folder)
    typer.echo(f"\nwrote {path}\nnext: open it in a browser (it needs no network)")
    _end_with(refused)


def _every_experiment(
    asked: Question, out: Path, quick: bool, refused: dict[str, LayerscopeError]
) -> list[RunFolder]:
    """Run them all on one model; what stops one is told, and does not keep the others off the page."""
    from layerscope import experiments
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    _keep_memory()
    model = asked.loaded()
    folders = []
    for name in experiments.names():
        with _going_on(name, refused):
            for job in asked.for_experiment(name, quick=quick).jobs(name, loaded=model):
                with _told_of_a_twin(job, name):
                    folders.append(running.run(job, out, for_this_terminal()))
    if not folders:
        raise next(iter(refused.values()))
    return folders


@cli.command()
@asking(
    without=("prompts", "passages", "treebank", "words", "limit", "longest", "untrained_twin"),
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

    layerscope trace "The *Eiffel* Tower is located in the city of" --model gpt2
    """
    from layerscope.text.stars import refuse_unstarred

    refuse_unstarred(prompt)
    if open_:
        _refuse_early("causal_trace", out)
    _keep_memory()
    from layerscope.jobs.progress import Silent, for_this_terminal
    from layerscope.jobs.tracing import traced

    small = ["smallest_range=0.01", *(asked.settings or [])]  # one prompt has no average to protect
    job = replace(asked, prompts=prompt, settings=small).job("causal_trace")
    found = traced(job, Silent() if json_ else for_this_terminal(), out=out if open_ else None)
    if json_:
        typer.echo(json.dumps(found.plain(), allow_nan=False))
    else:
        _draw(found)
    if found.folder is not None:
        _open_page(Path(found.folder))
    elif not json_:
        typer.echo(
            "next: the same with --open for its figures; many prompts: layerscope run causal_trace --prompts FILE"
        )


@cli.command("list")
def list_(
    what: Annotated[
        Literal["experiments", "models", "prompts", "runs", "commands"], typer.Argument(help="What to list.")
    ] = "experiments",
    out: Out = Path("runs"),
) -> None:
    """What there is: experiments with their questions, models, prompts, saved runs, or all commands with their help.

    layerscope list runs --out runs
    """
    if what == "commands":
        typer.echo(commands_page(), nl=False)
        return
    from layerscope.jobs.listing import lines_of

    for line in lines_of(what, out):
        typer.echo(line)


@cli.command()
def show(
    folders: Annotated[
        list[Path], typer.Argument(help="Run folders, or a folder above some.", metavar="DIR...")
    ],
) -> None:
    """What runs found, in the terminal; of one that was refused, why.

    layerscope show runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.results.store import RunFolder, runs_below

    refused: dict[str, LayerscopeError] = {}
    for folder in folders:
        below = [] if RunFolder.is_one(folder) else runs_below(folder)
        for path in [run.path for run in below] or [folder]:
            with _going_on(str(path), refused) if len(folders) > 1 or below else nullcontext():
                _tell(RunFolder.open(path), whole=True)
    _end_with(refused)


@cli.command()
def resume(folder: RunFolderPath, model: NamedAgain = None, trust_remote_code: Trusted = False) -> None:
    """Go on with a run that was interrupted.

    layerscope resume runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    _keep_memory()
    done = running.resume(folder, for_this_terminal(), model=model, trust_remote_code=trust_remote_code)
    _tell(done)
    typer.echo(f"\nsaved {done.path}\nnext: layerscope report {done.path}")


@cli.command()
def replay(folder: RunFolderPath, model: NamedAgain = None, trust_remote_code: Trusted = False) -> None:
    """Run a complete run once more and compare every number; exits with 1 if some changed.

    layerscope replay runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    _keep_memory()
    found = running.replay(folder, for_this_terminal(), model=model, trust_remote_code=trust_remote_code)
    typer.echo(
        f"{found.verdict}" + (f" (largest relative difference {found.largest:.2g})" if found.largest else "")
    )
    for line in found.changed:
        typer.echo(f"  {line}")
    typer.echo("since the run: " + ("; ".join(found.since) or "nothing recorded has changed"))
    if found.verdict == "changed":
        raise typer.Exit(1)


@cli.command()
def export(
    folder: RunFolderPath,
    to: Annotated[Literal["csv", "parquet"], typer.Option(help="The format of the tables.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="Where tables go; by default DIR/tables.")] = None,
) -> None:
    """Write a result as plain tables, one for each set of dimensions.

    layerscope export runs/causal_trace-gpt2-0123456789ab --to csv
    """
    from layerscope.results import export as tables
    from layerscope.results.store import RunFolder

    run = RunFolder.open(folder)
    for path in tables.export(run.result(), out or run.path / "tables", to):
        typer.echo(path)


@cli.command()
def annotate(
    folder: RunFolderPath,
    annotator: Annotated[str, typer.Option(help="Who will fill it in; names the file.")] = "first",
) -> None:
    """Write a sheet for a person to fill in; the report uses every sheet that lies in the run's annotations/.

    layerscope annotate runs/trigger_examples-0123 --annotator anna
    """
    from layerscope.jobs.annotating import annotate as write

    path = write(folder, annotator)
    typer.echo(f"wrote {path}\nnext: fill in its last columns, then: layerscope report {folder}")


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
        "untrained_twin",
    )
)
def check_prompts(
    asked: Question,
    prompts: Annotated[
        str, typer.Argument(help="A file, a bundled set, or text with *stars*.", metavar="FILE")
    ],
) -> None:
    """Which prompts meet the constraints of a causal trace on a model, and why not; exits with 1 if some do not.

    layerscope check-prompts prompts.jsonl --model gpt2
    """
    from layerscope.jobs.checking import check_prompts as check
    from layerscope.jobs.standing_first import standing_first
    from layerscope.text.prompts import prompts_of

    prompts_of(prompts)  # a file that is not there is told before a model is loaded
    model = asked.loaded()
    first = standing_first(model, asked.bos)
    typer.echo(first.said() if not asked.chat else "the chat template says what stands first")
    checks = check(model, prompts, bos=asked.bos if asked.chat else first.used(needed=False), chat=asked.chat)
    for one in checks:
        _tell_check(one)
    used = sum(not one.left_out_because for one in checks)
    typer.echo(f"{used} of {len(checks)} prompts would be traced")
    if used < len(checks):
        raise typer.Exit(1)


@cli.command()
def selftest(
    model: Annotated[
        str | None, typer.Option(help="Also the load check, on this folder, hub name or 'bundled'.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not look for the weakest effect found.")] = False,
    device: Annotated[str | None, typer.Option(help="Where that model runs.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Its type of numbers.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
) -> None:
    """Does every instrument find what was planted in small models, and nothing where there is nothing?

    layerscope selftest --model gpt2

    Exits with 1 if a check does not hold.
    """
    from layerscope.jobs.selftest import selftest as outcomes

    Question(threads=threads).use_threads()
    holds = True
    for outcome in outcomes(model, device=device, dtype=dtype, quick=quick):
        holds &= outcome.holds
        typer.echo("\n".join(outcome.lines()))
    typer.echo("all checks hold" if holds else "some checks do not hold")
    if not holds:
        raise typer.Exit(1)


def commands_page() -> str:
    """The page docs/commands.md: every command with its help, as the program prints it."""
    program = typer.main.get_command(cli)
    pieces = ["# Commands\n\nPrinted by `layerscope list commands`.\n"]
    with typer.Context(program, info_name="layerscope", terminal_width=100, max_content_width=100) as context:
        for name, command in program.commands.items():  # type: ignore[attr-defined]
            with typer.Context(command, info_name=name, parent=context) as inner:
                pieces.append(f"\n## layerscope {name}\n\n```\n{command.get_help(inner)}\n```\n")
    return "".join(pieces)


# -- what the commands share ----------------------------------------------------------------------


def _keep_memory() -> None:
    """What only a process of our own may do: memory that it frees stays, ready for the next tensors."""
    from layerscope.runs.machine import keep_freed_memory

    keep_freed_memory()


def _refuse_early(experiment: str | None, out: Path) -> None:
    """What can be told before torch is imported: an unknown name, a folder that cannot be written."""
    from layerscope import experiments
    from layerscope.results.files import refuse_unwritable

    refuse_unwritable(out)
    if experiment is not None:
        experiments.question(experiment)


@contextmanager
def _told_of_a_twin(job: Job, experiment: str) -> Iterator[None]:
    """An experiment that has nothing to measure on an untrained twin says so; that is no mistake of the user's."""
    try:
        yield
    except LayerscopeError as error:
        if job.model.facts.untrained is None:
            raise
        typer.echo(f"layerscope: {experiment} on the untrained twin: {error}", err=True)


def _tell(folder: RunFolder, *, whole: bool = False) -> None:
    from layerscope.jobs.listing import summary_of

    for line in summary_of(folder, whole=whole):
        typer.echo(line)


@contextmanager
def _going_on(name: str, refused: dict[str, LayerscopeError]) -> Iterator[None]:
    """What is refused is told and remembered, and keeps nothing else back."""
    try:
        yield
    except LayerscopeError as error:
        typer.echo(f"layerscope: {name}: {error}", err=True)
        refused[name] = error


def _end_with(refused: dict[str, LayerscopeError]) -> None:
    """List once more what was refused, where all can be seen together; the exit code says so too."""
    if refused:
        typer.echo(f"{len(refused)} refused:", err=True)
        for name, error in refused.items():
            typer.echo(f"  {name}: {error.short}", err=True)
        raise typer.Exit(2)


def _draw(found: TracedPrompt) -> None:
    from rich.console import Console

    from layerscope.jobs.heat_map import lines_of_trace

    console = Console(highlight=False)
    for line in lines_of_trace(found, width=console.width):
        console.print(line)


def _open_page(folder: Path) -> None:
    import webbrowser

    from layerscope.report.write import write_report
    from layerscope.results.store import RunFolder

    page = write_report([RunFolder.open(folder)], folder / "trace.html")
    shown = webbrowser.open(page.resolve().as_uri())
    typer.echo(
        f"wrote {page}\nnext: {'it opens in the browser' if shown else 'open it in a browser'}", err=True
    )


def _tell_plan(name: str, found: Plan) -> None:
    from layerscope.jobs.listing import lines_of_plan

    for line in lines_of_plan(name, found):
        typer.echo(line)


def _tell_check(check: PromptCheck | Unreadable) -> None:
    from layerscope.jobs.listing import lines_of_check

    for line in lines_of_check(check):
        typer.echo(line)
