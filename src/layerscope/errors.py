"""The one error that a person can put right, and the one warning that a run goes on after."""

from __future__ import annotations

_LONGEST = 600


class LayerscopeError(ValueError):
    """Something a person can put right: what was found, what was expected, what to try.

    The command line prints it without a traceback and exits with 2. A bug stays an ordinary
    exception, with its traceback.

    It is told in four lines, of which each is cut in its middle where it is very long; the attributes hold all.
    """

    def __init__(self, problem: str, *, found: object, expected: object, hint: str) -> None:
        self.problem, self.found, self.expected, self.hint = problem, found, expected, hint
        said = (_in_a_line(part) for part in (problem, found, expected, hint))
        super().__init__("{}\n  found     {}\n  expected  {}\n  try       {}".format(*said))

    @property
    def short(self) -> str:
        """Problem and finding in one line."""
        return _in_a_line(f"{self.problem}: {self.found}")

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send errors to the driver by pickle, which would otherwise call __init__(message).
        return _rebuild, (self.problem, self.found, self.expected, self.hint)


class LayerscopeWarning(UserWarning):
    """Something that costs time or memory and changes no number. The command line prints it in one line."""


def _in_a_line(part: object) -> str:
    text = " ".join(str(part).split("\n"))
    if len(text) <= _LONGEST:
        return text
    end = _LONGEST // 4
    return f"{text[: _LONGEST - end]} … {text[-end:]}"


def _rebuild(problem: str, found: object, expected: object, hint: str) -> LayerscopeError:
    return LayerscopeError(problem, found=found, expected=expected, hint=hint)
