"""The digest that a record and its inputs carry of what was asked.

It finds accidental edits, such as a seed that was changed by hand, and authenticates nothing: whoever means to
deceive writes another digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from layerscope.results.record import digest

SEAL = "seal"


def sealed(content: Mapping[str, Any], changing: Collection[str] = ()) -> dict[str, Any]:
    """The same with its digest.

    Args:
        content: plain JSON.
        changing: names of what may change while a run goes on, which the digest leaves out.
    """
    return {**content, SEAL: _seal(content, changing)}


def is_edited(content: Mapping[str, Any], changing: Collection[str] = ()) -> bool:
    """Whether the content carries a digest, and not its own."""
    carried = content.get(SEAL)
    return carried is not None and carried != _seal(content, changing)


def _seal(content: Mapping[str, Any], changing: Collection[str]) -> str:
    return digest({name: value for name, value in content.items() if name != SEAL and name not in changing})
