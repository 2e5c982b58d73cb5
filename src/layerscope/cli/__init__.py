"""The command line: parse, call, print the next step."""

from __future__ import annotations

import sys
import warnings
from io import TextIOWrapper
from typing import Any

from layerscope.cli import commands, comparing, looking, reproducing, taking_out
from layerscope.cli.ending import code_of
from layerscope.cli.program import cli, commands_page
from layerscope.cli.telling import say
from layerscope.errors import LayerscopeWarning

__all__ = [
    "cli",
    "commands",
    "commands_page",
    "comparing",
    "looking",
    "main",
    "reproducing",
    "taking_out",
]

_show_as_ever = warnings.showwarning


def main() -> None:
    """Run the command line; a user's mistake ends with 2 and words, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what no terminal can show
    warnings.showwarning = _show_warning
    sys.exit(code_of(lambda: cli(standalone_mode=False, prog_name="layerscope")))


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, LayerscopeWarning):
        say(f"layerscope: {message}", err=True)
    else:
        _show_as_ever(message, category, *where, **more)
