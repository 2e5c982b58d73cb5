"""Saved results to one self-contained HTML file. Knows no experiment by name."""

from __future__ import annotations

from layerscope.report.write import write_report

__all__ = ["write_report"]
