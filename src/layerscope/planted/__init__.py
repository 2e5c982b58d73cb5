"""Small models whose answer is known, because somebody wrote their weights by hand.

The folder is the list: a file that holds `TRIALS` calibrates the experiments that its trials name.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerscope.planted._trial import Trial


def names() -> list[str]:
    """Names of the planted models: their files."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def trials() -> list[tuple[str, Trial]]:
    """Every trial, with the name of the planted model that it is made on."""
    return [
        (name, trial)
        for name in names()
        for trial in getattr(importlib.import_module(f"{__name__}.{name}"), "TRIALS", ())
    ]
