"""The program that commands are added to, and what several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
