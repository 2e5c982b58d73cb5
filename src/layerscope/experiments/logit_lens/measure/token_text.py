"""What a token reads as, in its stored form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from layerscope.results.escaping import stored


@lru_cache(maxsize=65536)
def text_of(tokenizer: Any, token: int) -> str:
    """A token's text; decoding each anew would take as long as a tenth of the model."""
    return stored(tokenizer.decode([token]))
