"""The command line: parse, call, print the next step.

Heavy imports stay inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from layerscope.errors import LayerscopeError

if TYPE_CHECKING:
    from layerscope.jobs.checking import PromptCheck
    from layerscope.jobs.planning import Plan
    from layerscope.jobs.prepare import Job
    from layerscope.results.store import RunFolder

cli = typer.Typer(
    name="layerscope",
    help="What does each layer of a decoder-only language model do?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Option(help="A folder, a hub name, or 'bundled'.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        help="A .jsonl, .csv or .json file, a bundled set, or text with *stars* round what is noised."
    ),
]
Passages = Annotated[str | None, typer.Option(help="A file or folder of passages, or a bundled set.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting as key=value; may be repeated.")]
Out = Annotated[Path, typer.Option(help="The folder below which run folders go.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default a GPU where there is one.")
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16; by default float32 on CPU.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw; the same as --set seed=N.")]
Bos = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(help="Whether BOS goes before every text.", show_choices=True),
]
Chat = Annotated[bool, typer.Option("--chat", help="Put prompts into the tokenizer's chat template.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many texts of each category.")]
Longest = Annotated[int, typer.Option(min=2, help="Length to which passages are cut, in tokens.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; by default all cores.")]
Revision = Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub model.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the weights.")]
RunFolderPath = Annotated[Path, typer.Argument(help="A run folder.", metavar="DIR")]


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
def run(
    experiment: Annotated[str, typer.Argument(help="A name from `layerscope list`.")],
    model: Model = "bundled",
    prompts: Prompts = None,
    passages: Passages = None,
    settings: Set = None,
    out: Out = Path("runs"),
    engine: Annotated[Literal["local"], typer.Option(help="Where work runs.")] = "local",
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    bos: Bos = "auto",
    chat: Chat = False,
    limit: Limit = None,
    longest: Longest = 256,
    threads: Threads = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
) -> None:
    """Run one experiment and save its result.

    layerscope run causal_trace --model gpt2 --prompts english --set samples=10

    The same command, given again, goes on where it stopped.
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal
    from layerscope.results.files import refuse_unwritable

    _refuse_unused(experiment, prompts=prompts, passages=passages)
    refuse_unwritable(out)
    _use_threads(threads)
    job = _prepared(
        experiment, model, prompts, passages, settings, device, dtype, seed, bos, chat, limit, longest, revision,
        trust_remote_code,
    )  # fmt: skip
    folder = running.run(job, out, for_this_terminal())
    _tell(folder)
    typer.echo(f"\nsaved {folder.path}\nnext: layerscope report {folder.path}")


@cli.command()
def plan(
    experiment: Annotated[str, typer.Argument(help="A name from `layerscope list`, or 'all'.")],
    model: Model = "bundled",
    prompts: Prompts = None,
    passages: Passages = None,
    settings: Set = None,
    out: Out = Path("runs"),
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    bos: Bos = "auto",
    chat: Chat = False,
    limit: Limit = None,
    longest: Longest = 256,
    threads: Threads = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
) -> None:
    """What a run will cost. The first items are run for real, and kept for the run.

    layerscope plan causal_trace --model gpt2
    """
    from layerscope import experiments
    from layerscope.jobs import planning
    from layerscope.results.files import refuse_unwritable

    if experiment != "all":
        _refuse_unused(experiment, prompts=prompts, passages=passages)
    refuse_unwritable(out)
    _use_threads(threads)
    for name in experiments.names() if experiment == "all" else [experiment]:
        started = time.monotonic()
        job = _prepared(
            name, model, prompts, passages, settings, device, dtype, seed, bos, chat, limit, longest, revision,
            trust_remote_code,
        )  # fmt: skip
        _tell_plan(name, planning.plan(job, out, load_seconds=time.monotonic() - started))


@cli.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; none: run every experiment.", metavar="[DIR]...")
    ] = None,
    model: Model = "bundled",
    prompts: Prompts = None,
    passages: Passages = None,
    out: Annotated[Path, typer.Option(help="The folder for runs and report.html.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer texts and draws: a first look.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """The main job: every experiment on one model, and one HTML file that shows it all.

    layerscope report --model gpt2
    """
    from layerscope.report.write import write_report
    from layerscope.results.files import make_folder, refuse_unwritable
    from layerscope.results.store import RunFolder

    folders = [RunFolder.open(path) for path in runs or []]
    refuse_unwritable(out)
    problems: list[LayerscopeError] = []
    if not runs:
        _use_threads(threads)
        folders = _every_experiment(model, prompts, passages, out, quick, device, dtype, problems)
    path = write_report(folders, make_folder(out) / "report.html")
    for folder in folders:
        _tell(folder)
    typer.echo(f"\nwrote {path}\nnext: open it in a browser (it needs no network)")
    if problems:
        typer.echo(f"{len(problems)} of the experiments could not be run, see above", err=True)
        raise typer.Exit(2)


def _every_experiment(
    model: str, prompts: str | None, passages: str | None, out: Path, quick: bool, device: str | None,
    dtype: str | None, problems: list[LayerscopeError],
) -> list[RunFolder]:  # fmt: skip
    """Run them all on one model; what stops one is told, and does not keep the others off the page."""
    from layerscope import experiments
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    loaded: Any = None
    folders = []
    for name in experiments.names():
        try:
            job = _prepared(
                name, loaded or model, prompts, passages, _quick_settings(name) if quick else None, device, dtype,
                None, "auto", False, 10 if quick else None, 128 if quick else 256, None, False,
            )  # fmt: skip
            loaded = job.model
            folders.append(running.run(job, out, for_this_terminal()))
        except LayerscopeError as error:
            if loaded is None:
                raise
            typer.echo(f"layerscope: {name}: {error}", err=True)
            problems.append(error)
    if not folders:
        raise problems[-1]
    return folders


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
def show(folder: RunFolderPath) -> None:
    """What a run found, in the terminal.

    layerscope show runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.results.store import RunFolder

    _tell(RunFolder.open(folder), whole=True)


@cli.command()
def resume(folder: RunFolderPath) -> None:
    """Go on with a run that was interrupted.

    layerscope resume runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    done = running.resume(folder, for_this_terminal())
    _tell(done)
    typer.echo(f"\nsaved {done.path}\nnext: layerscope report {done.path}")


@cli.command()
def replay(folder: RunFolderPath) -> None:
    """Run a complete run once more and compare every number; exits with 1 if some changed.

    layerscope replay runs/causal_trace-gpt2-0123456789ab
    """
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    found = running.replay(folder, for_this_terminal())
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


@cli.command("check-prompts")
def check_prompts(
    prompts: Annotated[
        str, typer.Argument(help="A file, a bundled set, or text with *stars*.", metavar="FILE")
    ],
    model: Model = "bundled",
    bos: Bos = "auto",
    chat: Chat = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Which prompts meet the constraints of a causal trace on a model, and why not; exits with 1 if some do not.

    layerscope check-prompts prompts.jsonl --model gpt2
    """
    from layerscope.jobs.checking import check_prompts as check
    from layerscope.models.load import load_model

    checks = check(load_model(model, device=device, dtype=dtype), prompts, bos=bos, chat=chat)
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
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Does every instrument find what was planted in small models, and nothing where there is nothing?

    layerscope selftest --model gpt2

    Exits with 1 if a check does not hold.
    """
    from layerscope.jobs.selftest import selftest as outcomes

    _use_threads(threads)
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


def _prepared(
    name: str, model: Any, prompts: str | None, passages: str | None, settings: list[str] | None, device: str | None,
    dtype: str | None, seed: int | None, bos: Any, chat: bool, limit: int | None, longest: int, revision: str | None,
    trust: bool,
) -> Job:  # fmt: skip
    from layerscope import experiments
    from layerscope.jobs.prepare import prepare

    experiments.question(name)  # an unknown name is told before torch is imported
    chosen = _parsed(settings or []) | ({} if seed is None else {"seed": seed})
    return prepare(
        name, model=model, prompts=prompts, passages=passages, settings=chosen, bos=bos, chat=chat, limit=limit,
        longest=longest, device=device, dtype=dtype, revision=revision, trust_remote_code=trust,
    )  # fmt: skip


def _refuse_unused(name: str, **given: str | None) -> None:
    """Texts that the experiment would not read: running on its default ones instead would surprise."""
    from layerscope import experiments

    experiments.question(name)
    takes = experiments.load(name).takes
    for kind, source in given.items():
        if source is not None and kind not in takes:
            raise LayerscopeError(
                f"{name} does not read {kind}",
                found=f"--{kind} {source}",
                expected=" and ".join(f"--{kind}" for kind in sorted(takes)) or "no texts",
                hint=f"layerscope list experiments   (or leave --{kind} out)",
            )


def _parsed(settings: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise LayerscopeError(
                "a setting cannot be read", found=setting, expected="key=value", hint="--set samples=10"
            )
        try:
            values[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[name.strip()] = value
    return values


def _quick_settings(name: str) -> list[str]:
    from layerscope import experiments

    return ["samples=3"] if "samples" in experiments.load(name).settings.model_fields else []


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _tell(folder: RunFolder, *, whole: bool = False) -> None:
    from layerscope.jobs.listing import summary_of

    for line in summary_of(folder, whole=whole):
        typer.echo(line)


def _tell_plan(name: str, found: Plan) -> None:
    from layerscope.jobs.listing import lines_of_plan

    for line in lines_of_plan(name, found):
        typer.echo(line)


def _tell_check(check: PromptCheck) -> None:
    from layerscope.jobs.listing import lines_of_check

    for line in lines_of_check(check):
        typer.echo(line)
