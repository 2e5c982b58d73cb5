"""Small models whose answer is known, because somebody wrote their weights by hand.

The folder is the list: a file that holds `TRIALS` calibrates the experiments that its trials name. Other packages
write theirs with the same tools: `from layerscope.planted import Answer, Trial, Canvas`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from layerscope.first_use import imported_at_first_use

if TYPE_CHECKING:
    from layerscope.planted._trial import Answer as Answer
    from layerscope.planted._trial import Trial as Trial
    from layerscope.planted._writing import Canvas as Canvas
    from layerscope.planted._writing import gpt2 as gpt2
    from layerscope.planted._writing import head_of as head_of
    from layerscope.planted._writing import pieces_tokenizer as pieces_tokenizer
    from layerscope.planted._writing import silence as silence
    from layerscope.planted._writing import word_tokenizer as word_tokenizer


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


__getattr__ = imported_at_first_use(__name__)
