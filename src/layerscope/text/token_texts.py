"""What each token of a vocabulary reads as."""

from __future__ import annotations

from typing import Any


def token_texts(tokenizer: Any, size: int) -> list[str]:
    """The text of every token id below `size`, a leading blank included where the vocabulary marks one.

    Ids that the tokenizer does not know read as "".
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    texts = []
    for token, piece in enumerate(pieces):
        text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        marked = str(piece).startswith("\u2581") and not text.startswith(" ")
        texts.append(f" {text}" if marked else text)
    return texts + [""] * (size - len(texts))
