"""How several draws of noise are made together, and which of them depend on one another."""

from __future__ import annotations

from typing import Literal

Drawing = Literal["plain", "antithetic", "balanced", "sobol"]
"""Each draw alone, in mirrored pairs, in blocks that sum to zero, or in blocks of Sobol's points, scrambled."""

TOGETHER: dict[Drawing, int] = {"plain": 1, "antithetic": 2, "balanced": 8, "sobol": 8}
"""Draws of a unit: they depend on one another, so that any interval over draws counts them as one."""
