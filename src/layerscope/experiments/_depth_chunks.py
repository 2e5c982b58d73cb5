"""`layerscope.evidence.probing` by the name that flat files still import it by; goes with the last of them."""

from layerscope.evidence.probing import (
    depth_chunks,
)

__all__ = [
    "depth_chunks",
]
