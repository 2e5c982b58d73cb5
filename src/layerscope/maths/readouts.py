"""What is read of a run's next-token predictions: one number for each run."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def answer_log_probability(log_probabilities: Float[Tensor, "run token"]) -> Float[Tensor, "run"]:
    """Log-probability of an answer of one or several tokens, read by teacher forcing, in nats.

    The sum over the answer's tokens of log p(token | all before it).

    Args:
        log_probabilities: of the answer's tokens, each after all before it.
    """
    return log_probabilities.sum(-1)


def logit_difference(logits: Float[Tensor, "run two"]) -> Float[Tensor, "run"]:
    """Logit of the answer less that of its rival, which no softmax saturates.

    Source: Zhang & Nanda 2023, "Towards Best Practices of Activation Patching", section 2.

    Args:
        logits: of the answer and of its rival.
    """
    return logits[:, 0] - logits[:, 1]


def group_log_probability(log_probabilities: Float[Tensor, "run member"]) -> Float[Tensor, "run"]:
    """Log of the summed probability of a group of tokens, in nats."""
    return log_probabilities.logsumexp(-1)
