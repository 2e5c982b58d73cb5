"""Parts of a prompt, as ROME names them."""

from __future__ import annotations

from layerscope.text.tokenised import TokenisedPrompt

TOKEN_CLASSES = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)


def token_class(prompt: TokenisedPrompt, position: int) -> str:
    """ROME's six classes of tokens, and what stands before the subject.

    A subject of one token counts as its last; a token right after it that ends the prompt, as the last.

    Source: Meng et al. 2022, figure 2.
    """
    first, last = prompt.noised[0], prompt.noised[-1]
    if position == prompt.last:
        return TOKEN_CLASSES[6]
    if position < first:
        return TOKEN_CLASSES[0]
    if position == last:
        return TOKEN_CLASSES[3]
    if position < last:
        return TOKEN_CLASSES[1] if position == first else TOKEN_CLASSES[2]
    return TOKEN_CLASSES[4] if position == last + 1 else TOKEN_CLASSES[5]
