"""One prompt under every draw of its corruption, and where the corruption falls."""

from __future__ import annotations

from layerscope.contract import WorkItem
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.text.tokenised import TokenisedPrompt


class NoisedItem(WorkItem):
    """One prompt, to be run under every draw of its corruption.

    Attributes:
        answer: ids of the answer's tokens that are read.
        rival: id that the answer is compared with in logit_difference.
        sd: size of the noise in units of the residual stream.
        partners: ids of the noised tokens in each replaced run.
        samples: draws of this prompt.
        slots: draws of the prompt that has most of them; results of others are padded to as many by NaN.
    """

    prompt: TokenisedPrompt
    answer: tuple[int, ...]
    rival: int
    sd: float
    tokens_per_pass: int
    partners: tuple[tuple[int, ...], ...] = ()
    samples: int
    slots: int


def noised_positions(prompt: TokenisedPrompt, settings: Settings) -> tuple[int, ...]:
    """Where the corruption falls."""
    return prompt.noised if settings.noised == "subject" else prompt.noised[-1:]
