"""JSON whose every value can be used: finite numbers, whole characters, no deeper than the parser goes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_HALF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: broken JSON, nesting or a number that no parser takes, a number that is not finite, or half of a
            surrogate pair, which no file can be written with; told in one line.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if _HALF_A_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} ({line}column {error.colno})") from error
    except ValueError as error:  # of whole numbers of more digits than Python reads
        raise ValueError(str(error).partition(" for integer")[0]) from error
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no finite number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits[:20])
