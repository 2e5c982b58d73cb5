"""Results whose numbers are put there, to see what claims make of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim


def put(
    result: xr.Dataset, name: str, value: float, *, p: str = "", seen: float = 0.001, **more: float
) -> xr.Dataset:
    """A result in which a variable, its ends and its p are the same in every cell.

    Args:
        result: of an experiment.
        name: the variable. Its interval is the value ± 0.04.
        value: what it is to be.
        p: name of its p, if it has one.
        seen: what that p is to be.
        more: further variables by name.
    """
    numbers = {name: value, f"{name}_low": value - 0.04, f"{name}_high": value + 0.04, **more}
    numbers |= {f"{name}_joint_low": value - 0.05, f"{name}_joint_high": value + 0.05}
    numbers |= {p: seen} if p else {}
    return result.assign(
        {
            one: xr.full_like(result[one], number, dtype=float)
            for one, number in numbers.items()
            if one in result
        }
    )


def said_of(claims: list[Claim], variable: str, **labels: Any) -> Claim:
    """The first claim on a variable, and on some of its labels."""
    wanted = labels.items()
    return next(
        one for one in claims if one.select.get("variable") == variable and wanted <= one.select.items()
    )


def compares(one: Claim, other: Claim, null: Claim, few: Claim, nothing: str, *, n: str = "") -> None:
    """Two opposite sentences are significant; the null's and that of too little say `nothing`, and are not.

    Args:
        one, other: what is said of two opposite effects.
        null: what is said of none.
        few: what is said of too few units.
        nothing: what was looked for.
        n: how the brackets of the last begin.
    """
    flags = [claim.significant for claim in (one, other, null, few)]
    assert flags == [True, True, False, False]
    assert null.text.startswith(f"No detectable {nothing} (")
    assert re.match(rf"Too few \w+ to test the {re.escape(f'{nothing} ({n}')}", few.text), few.text


NAN = float(np.nan)
