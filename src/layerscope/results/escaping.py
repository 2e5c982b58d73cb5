"""How text that people or tokenizers wrote is stored, and how it is shown.

Token text may hold anything: control characters, half of a character, markup. It is *stored*
as the inside of a JSON string, so that every value survives netCDF, csv and npz; it is *shown*
with visible stand-ins for what a reader could not see.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

_SURROGATE = re.compile("[\ud800-\udfff]")
_VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
# Zero-width marks, bidirectional controls and other format characters would hide or reorder a label.
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@lru_cache(maxsize=65536)  # the same tokens come again and again
def stored(text: str) -> str:
    """Text as it is written to files: JSON escapes for quotes, controls and lone surrogates."""
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", inside)


def restored(text: str) -> str:
    """The text that `stored` was given."""
    return str(json.loads(f'"{text}"'))


def visible(text: str, *, blanks: bool = True) -> str:
    """Text for a person's eyes: blanks as ·, line ends as ⏎, anything unseen as <U+202E>.

    Not safe for HTML by itself: escape the result where it reaches a page.

    Args:
        text: the true text, not its stored form.
        blanks: whether ordinary spaces become · (wanted for tokens, not for sentences).
    """
    return text.translate(_SHOWN if blanks else _SHOWN_IN_SENTENCES)


class _StandIns(dict[int, str]):
    """What is shown of each character, by its code; worked out when it is first seen."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        hidden = unicodedata.category(character) in _HIDDEN_CATEGORIES or character == "\u00a0"
        self[code] = f"<U+{code:04X}>" if hidden else character
        return self[code]


_SHOWN = _StandIns({ord(character): shown for character, shown in _VISIBLE.items()})
_SHOWN_IN_SENTENCES = _StandIns(_SHOWN | {ord(" "): " "})
