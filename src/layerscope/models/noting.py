"""What a check of a model found, written on the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.memory import ran_out


def note(model: LayeredModel, name: str, holds: bool, detail: str, refuses: tuple[str, ...] = ()) -> None:
    """Keep what one check found, and what it refuses where it does not hold."""
    model.checks.append({"name": name, "holds": holds, "detail": detail})
    if not holds:
        model.refused |= dict.fromkeys(refuses, detail)


@contextmanager
def failing_refuses(model: LayeredModel, name: str, *sites: str) -> Iterator[None]:
    """Whatever a model raises in a check that only some sites need refuses these, with what it said."""
    try:
        yield
    except Exception as error:
        if ran_out(error):
            raise
        note(model, name, False, reason(error), sites)


def reason(error: Exception) -> str:
    """What a model said while it was tried, on one line."""
    if isinstance(error, LayerscopeError):
        return str(error.found)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def refusal(model: LayeredModel, problem: str, found: str, expected: str, hint: str) -> LayerscopeError:
    """A model that is refused as a whole."""
    return LayerscopeError(f"{model.facts.name}: {problem}", found=found, expected=expected, hint=hint)
