"""What is handed to the public functions, checked where it comes in: a wrong type is told by the argument's name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from layerscope.errors import LayerscopeError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_SHOWN = 80


@dataclass(frozen=True)
class Kind:
    """What an argument may be, in words, and whether a value is that."""

    words: str
    fits: Callable[[Any], bool]
    example: str

    def __or__(self, other: Kind) -> Kind:
        """Either."""
        return Kind(f"{self.words}, or {other.words}", lambda v: self.fits(v) or other.fits(v), self.example)


def whole(least: int) -> Kind:
    """A whole number; numpy's are taken, a switch is none."""

    def fits(value: Any) -> bool:
        return hasattr(value, "__index__") and not isinstance(value, bool) and value.__index__() >= least

    return Kind(f"a whole number of at least {least}", fits, str(max(least, 1)))


def word(one: str) -> Kind:
    """This word alone."""
    return Kind(repr(one), lambda value: isinstance(value, str) and value == one, repr(one))


def having(words: str, example: str, *names: str) -> Kind:
    """An object with these attributes."""
    return Kind(words, lambda value: all(hasattr(value, name) for name in names), example)


TEXT = Kind("a text", lambda value: isinstance(value, str), '"a text"')
PATH = Kind("a path", lambda value: isinstance(value, str) or _is_path(value), '"runs"')
SWITCH = Kind("True or False", lambda value: isinstance(value, bool), "True")
NOTHING = Kind("None", lambda value: value is None, "None")
SOMETHING = Kind("what the function is about", lambda value: value is not None, "...")
TEXTS = Kind(
    "a list of texts",
    lambda value: isinstance(value, Collection) and not isinstance(value, str) and all(map(TEXT.fits, value)),
    '["a text"]',
)


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)


def _is_numpys(value: Any) -> bool:
    """Whether it is a whole number that JSON would not take for one."""
    return hasattr(value, "__index__") and not isinstance(value, int)


def checked(**kinds: Kind) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Refuse arguments of a wrong type before a function begins.

    Args:
        kinds: what each argument may be; others are not looked at. A name that no argument has is an argument of
            `*name`, each of which is looked at.

    Raises:
        LayerscopeError: from the function, naming the argument.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        many = {name for name, one in signature.parameters.items() if one.kind is one.VAR_POSITIONAL}

        @wraps(function)
        def call(*positional: _P.args, **named: _P.kwargs) -> _R:
            bound = signature.bind(*positional, **named)
            for name, value in bound.arguments.items():
                for one in value if name in many else [value]:
                    if name in kinds and not kinds[name].fits(one):
                        raise _refused(function.__name__, name, one, kinds[name])
            whole = {n: v.__index__() for n, v in bound.arguments.items() if n in kinds and _is_numpys(v)}
            bound.arguments.update(whole)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _refused(function: str, name: str, value: object, kind: Kind) -> LayerscopeError:
    try:
        shown = repr(value)
    except Exception:  # of whatever was handed over
        shown = "something that cannot show itself"
    return LayerscopeError(
        f"{name} of layerscope.{function} cannot be this",
        found=f"{type(value).__name__}: {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}",
        expected=kind.words,
        hint=f"{name}={kind.example}",
    )
