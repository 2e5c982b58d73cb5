"""Saved results to one self-contained HTML file. Knows no experiment by name.

The package can be called: `layerscope.report(runs, path)` writes a page, whether or not it was imported before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from layerscope.report.comparison import write_comparison
from layerscope.report.write import report_on, write_report

__all__ = ["report_on", "write_comparison", "write_report"]


class _Callable(ModuleType):
    def __call__(self, runs: Any, path: str | Path = "report.html") -> Path:
        return report_on(runs, path)


sys.modules[__name__].__class__ = _Callable
