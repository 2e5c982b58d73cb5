"""How a command ends: its exit code and, where it cannot go on, four lines instead of a traceback.

What a person can put right ends with 2: a LayerscopeError, words on the command line that fit no option, and what the
system refuses, whichever file or stream it was. A bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from layerscope.cli.telling import say
from layerscope.errors import LayerscopeError

STOPPED, _MISTAKE = 130, 2
"""Exit codes of a command that Ctrl-C stopped, and of one that a person can put right."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def code_of(command: Callable[[], Any]) -> int:
    """The exit code of a command that is carried out here; why it failed is told on standard error."""
    try:
        code = int(command() or 0)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return _MISTAKE
        mistake = _mistake(error)
        if mistake is None:
            raise
        _tell(f"layerscope: {mistake}")
        return _MISTAKE
    except KeyboardInterrupt:
        code = STOPPED
    if code == STOPPED:
        _tell("layerscope: stopped; what was computed is kept. The same command goes on from there.")
    return code


def _mistake(error: Exception) -> LayerscopeError | None:
    """What a person can put right of an exception; None of a bug."""
    if isinstance(error, LayerscopeError):
        return error
    if hasattr(error, "format_message"):  # typer's, of which versions differ in where it stands
        return _of_usage(error)
    if isinstance(error, MemoryError):
        return LayerscopeError(
            "there is not enough memory for this",
            found=str(error) or "the system gives no more",
            expected="what is asked, in the memory of this machine",
            hint="fewer or shorter texts (--limit, --longest), or smaller settings; layerscope plan tells the need",
        )
    return _of_the_system(error) if isinstance(error, OSError) else None


def _of_usage(error: Any) -> LayerscopeError:
    said = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    usage = context.get_usage().partition(":")[2] if context is not None else "layerscope COMMAND [OPTIONS]"
    path = context.command_path if context is not None else "layerscope"
    return LayerscopeError(
        said[:1].lower() + said[1:],
        found=shlex.join(["layerscope", *sys.argv[1:]]),
        expected=" ".join(usage.split()),
        hint=f"{path} --help",
    )


def _of_the_system(error: OSError) -> LayerscopeError:
    from layerscope.results.files import unreadable, unwritable

    if error.filename is not None:
        where = (
            os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        )
        return (unwritable if error.errno in _FULL else unreadable)(where, error)
    if "temporary" in str(error):
        return LayerscopeError(
            "there is no folder for temporary files",
            found=str(error.strerror or error),
            expected="a folder that can be written",
            hint="TMPDIR=FOLDER before the command",
        )
    full = error.errno in _FULL
    return LayerscopeError(
        "the output cannot be written" if full else "the system refuses what this command needs",
        found="the device that it goes to is full" if full else str(error.strerror or error),
        expected="standard output that takes what is printed" if full else "a system that goes on",
        hint="free some space, or another file behind >; what was computed is kept"
        if full
        else "the command again",
    )


def _tell(text: str) -> None:
    """Write to standard error, if that can be written; what a stream still holds and cannot be written is let go."""
    with suppress(OSError, ValueError):
        say(text, err=True)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)


def _let_go(stream: Any) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # else Python itself would fail at it on its way out
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
