"""The command line: parse, call, print the next step."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from layerscope.cli import commands, comparing, looking
from layerscope.cli.program import cli, commands_page
from layerscope.cli.telling import say
from layerscope.errors import LayerscopeError

__all__ = ["cli", "commands", "commands_page", "comparing", "looking", "main"]

_STOPPED = 130


def main() -> None:
    """Run the command line; a user's mistake ends with 2 and words, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what no terminal can show
    try:
        cli(standalone_mode=True)
    except LayerscopeError as error:
        say(f"layerscope: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _STOPPED:  # which typer makes of Ctrl-C
            raise
        typer.echo(
            "layerscope: stopped; what was computed is kept. The same command goes on from there.", err=True
        )
        sys.exit(_STOPPED)
