"""Saved results to one self-contained HTML file. Knows no experiment by name."""

from __future__ import annotations

from layerscope.report.comparison import write_comparison
from layerscope.report.write import write_report

__all__ = ["write_comparison", "write_report"]
