"""What is read from the logits of a run: one number for each run."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def answer_log_probability(
    logits: Float[Tensor, "run token vocabulary"], answer: Sequence[int]
) -> Float[Tensor, "run"]:
    """Log-probability of an answer of one or several tokens, read by teacher forcing, in nats.

    The sum over the answer's tokens of log p(token | all before it).

    Args:
        logits: at the positions that predict the answer's tokens, in their order.
        answer: ids of the answer's tokens.
    """
    log_probabilities = logits.float().log_softmax(-1)
    parts = [log_probabilities[:, place, token] for place, token in enumerate(answer)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def logit_difference(
    logits: Float[Tensor, "run vocabulary"], answer: int, rival: int
) -> Float[Tensor, "run"]:
    """Logit of the answer less that of its rival, which no softmax saturates.

    Source: Zhang & Nanda 2023, "Towards Best Practices of Activation Patching", section 2.
    """
    return logits[:, answer].float() - logits[:, rival].float()


def negative_divergence(
    logits: Float[Tensor, "run vocabulary"], clean: Float[Tensor, "vocabulary"]
) -> Float[Tensor, "run"]:
    """Minus the Kullback-Leibler divergence from the clean distribution, −Σ p log(p / q), in nats.

    0 where the run says what the clean run says; below 0 elsewhere, so that noise lowers it as it lowers
    a probability.

    Args:
        logits: of the runs, q.
        clean: logits of the clean run, p.
    """
    reference = clean.float().log_softmax(-1)
    return -(reference.exp() * (reference - logits.float().log_softmax(-1))).sum(-1)


def group_log_probability(
    logits: Float[Tensor, "run vocabulary"], group: Sequence[int]
) -> Float[Tensor, "run"]:
    """Log of the summed probability of a group of tokens, in nats."""
    return logits.float().log_softmax(-1)[:, list(group)].logsumexp(-1)
