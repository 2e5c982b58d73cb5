"""The run-time type checker of the tests: beartype, with an int allowed where a float is meant (PEP 484).

A function inside another is left unchecked: it is a new one at each call of the outer, and a check costs a
compilation (half of all the time of a trial was that).
"""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, checked at each call; one inside another as it is."""
    return function if "<locals>" in function.__qualname__ else _checked(function)
