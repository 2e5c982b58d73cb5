"""Depths whose probes are fitted together."""

from __future__ import annotations


def depth_chunks(depths: int, cases: int, width: int, *, most_bytes: int = 2**28) -> list[range]:
    """Depths that are fitted together, so that their states fit in memory.

    Args:
        depths: how many there are, n_layers + 1.
        cases: states of each depth.
        width: entries of a state, of four bytes each.
        most_bytes: of the states of one chunk; a single depth may have more.
    """
    size = max(1, most_bytes // (4 * cases * width))
    return [range(start, min(start + size, depths)) for start in range(0, depths, size)]
