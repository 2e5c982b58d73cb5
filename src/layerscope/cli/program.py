"""The program that commands are added to, and what several commands take."""

from __future__ import annotations

from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

cli = typer.Typer(
    name="layerscope",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"layerscope {metadata.version('layerscope')}")
        raise typer.Exit
    return asked


@cli.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="The version, and nothing else.", callback=_tell_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What does each layer of a decoder-only language model do?"""


Out = Annotated[Path, typer.Option(help="The folder below which run folders go.")]
_looked_in: ContextVar[Path] = ContextVar("_looked_in", default=Path("runs"))
"""Where runs are looked for: --runs is read before any name of a run."""


def _remembered(below: Path) -> Path:
    _looked_in.set(below)
    return below


def _meant(given: Any) -> Any:
    """A run's name, or the beginning of one, as the folder that it means."""
    from layerscope.results.run_names import run_named

    if isinstance(given, list):
        return [run_named(one, _looked_in.get()) for one in given]
    return given if given is None else run_named(given, _looked_in.get())


RunsIn = Annotated[
    Path,
    typer.Option(
        "--runs",
        help="The folder in which runs are looked for by name, or by its beginning.",
        is_eager=True,
        callback=_remembered,
    ),
]
RunFolderPath = Annotated[
    Path, typer.Argument(help="A run folder, a run's name or its beginning.", metavar="DIR", callback=_meant)
]
RunPaths = Annotated[
    list[Path],
    typer.Argument(
        help="Run folders, names of runs, or a folder above some.", metavar="DIR...", callback=_meant
    ),
]
GivenRuns = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run folders, names of runs, or a folder above some.", metavar="[DIR]...", callback=_meant
    ),
]
GivenModels = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Folders of saved runs, or names below --runs; one for each model.",
        metavar="[DIR]...",
        callback=_meant,
    ),
]
NamedAgain = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The run's model, named by you: what its record names is never fetched. Its files must be the same.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(help="Worker processes: a number, 0 for none, or auto for what the machine has room for."),
]
Trusted = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that comes with the weights; a record never decides that."
    ),
]


def commands_page() -> str:
    """The page docs/commands.md: every command with its help, as the program prints it."""
    program = typer.main.get_command(cli)
    pieces = ["# Commands\n\nPrinted by `layerscope list commands`.\n"]
    with typer.Context(program, info_name="layerscope", terminal_width=100, max_content_width=100) as context:
        for name, command in program.commands.items():  # type: ignore[attr-defined]
            with typer.Context(command, info_name=name, parent=context) as inner:
                pieces.append(f"\n## layerscope {name}\n\n```\n{command.get_help(inner)}\n```\n")
    return "".join(pieces)
