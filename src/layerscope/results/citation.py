"""How Layerscope is cited."""

from __future__ import annotations

_ENTRY = """@software{{layerscope,
  title   = {{Layerscope: what does each layer of a decoder-only language model do?}},
  author  = {{{{The Layerscope developers}}}},
  version = {{{version}}},
  year    = {{{year}}},
}}"""
_YEAR = 2026


def bibtex(version: str) -> str:
    """A BibTeX entry of this version."""
    return _ENTRY.format(version=version, year=_YEAR)
