"""How far is one distribution over the vocabulary from another, and where in it does a token stand?

Distributions are given as logits, so that none need be normalised twice: every formula here reads each
logit once or twice, because over a whole vocabulary and every depth that is what takes the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int

from layerscope.maths.arrays import (
    Array,
    at_least,
    at_least_float32,
    chosen,
    count,
    exp,
    largest,
    log_softmax,
    log_sum_exp,
    log_sum_exp_above,
    product,
)

_ROUNDING = 5e-7


@dataclass(frozen=True, eq=False)
class Distribution:
    """A distribution over the vocabulary for each of some tokens, ready to be compared with others.

    Attributes:
        probabilities: [token vocabulary].
        negative_entropy: Σ p log p in nats [token].
    """

    probabilities: Float[Array, "token vocabulary"]
    negative_entropy: Float[Array, "token"]


def distribution(logits: Float[Array, "token vocabulary"]) -> Distribution:
    """Softmax of logits, and what a divergence from it needs once."""
    return distribution_of(log_probabilities(logits))


def distribution_of(logs: Float[Array, "token vocabulary"]) -> Distribution:
    """The same of log-probabilities, which are logits of which nothing need be taken any more."""
    probabilities = exp(logs)
    return Distribution(probabilities, product(logs, probabilities).sum(-1))


@dataclass(frozen=True, eq=False)
class Normaliser:
    """What turns logits into log-probabilities, in two parts, since float32 holds their sum to few digits.

    Attributes:
        highest: the largest logit, m [token].
        excess: ln Σ exp (z − m), from 0 to the log of the vocabulary's size [token].
    """

    highest: Float[Array, "token"]
    excess: Float[Array, "token"]

    @property
    def total(self) -> Float[Array, "token"]:
        """ln Σ exp z."""
        return self.highest + self.excess

    def log_probability(self, logits: Float[Array, "token k"]) -> Float[Array, "token k"]:
        """ln p of some tokens of the vocabulary, in nats, from their logits."""
        return (logits - self.highest[:, None]) - self.excess[:, None]


def normaliser(logits: Float[Array, "token vocabulary"]) -> Normaliser:
    """Of logits over a vocabulary, or over a part of it."""
    logits = at_least_float32(logits)
    return Normaliser(largest(logits), log_sum_exp_above(logits))


def joined(highest: Float[Array, "token part"], excess: Float[Array, "token part"]) -> Normaliser:
    """The normaliser over a whole vocabulary, from those over parts of it that do not overlap.

    Σ exp z over all parts is Σ exp (m of the part + its excess).
    """
    most = largest(highest)
    return Normaliser(most, log_sum_exp((highest - most[:, None]) + excess))


def log_total(logits: Float[Array, "*token vocabulary"]) -> Float[Array, "*token"]:
    """ln Σ exp z: what is taken from a logit to give a log-probability. Safe for logits of any size."""
    return log_sum_exp(at_least_float32(logits))


def log_probabilities(logits: Float[Array, "*token vocabulary"]) -> Float[Array, "*token vocabulary"]:
    """ln p of every token of the vocabulary, in nats."""
    return log_softmax(at_least_float32(logits))


def divergence(
    there: Distribution,
    logits: Float[Array, "token vocabulary"],
    totals: Float[Array, "token"] | float = 0.0,
    *,
    overwrite: bool = False,
) -> Float[Array, "token"]:
    """Kullback-Leibler divergence KL(p ‖ q) = Σ p log p − Σ p z + ln Σ exp z, for q given by logits z.

    How many nats it costs to expect q where p holds. It is a difference of sums of float32 numbers: where
    it is no larger than their rounding, it is 0.

    Args:
        there: p, for every token.
        logits: z of q.
        totals: `log_total(logits)`; 0 where the logits are `log_probabilities` already.
        overwrite: whether the logits may be used up (in float32 or finer), which spares a copy of them.

    Returns:
        Nats ≥ 0.

    Source: Kullback & Leibler 1951.
    """
    crossed = product(at_least_float32(logits), there.probabilities, overwrite=overwrite).sum(-1)
    return divergence_of_sums(there.negative_entropy, crossed, totals)


def divergence_of_sums(
    negative_entropy: Float[Array, "token"],
    crossed: Float[Array, "token"],
    totals: Float[Array, "token"] | float,
) -> Float[Array, "token"]:
    """The same from its three sums: Σ p log p, Σ p z and ln Σ exp z."""
    found = negative_entropy - crossed + totals
    rounding = _ROUNDING * (abs(negative_entropy) + abs(crossed) + abs(totals))
    return found * (found > rounding)


def rank(
    logits: Float[Array, "token vocabulary"], token: Int[Array, "token"], *, overwrite: bool = False
) -> Int[Array, "token"]:
    """Where a token stands in the vocabulary: 1 for the most probable. Ties count against it.

    But rank 1 always has one holder: of several equally probable tokens at the top the first has it, as
    `argmax` says, and the others have rank 2. So an even choice has no more than one leader.

    Args:
        logits: of the whole vocabulary.
        token: the token's id.
        overwrite: whether the logits may be used up, which spares a copy of them.
    """
    own = chosen(logits, token[:, None])
    leads = own[:, 0] == largest(logits)
    as_high = at_least(logits, own, overwrite=overwrite)
    found = count(as_high)
    tied = leads & (found > 1)
    found[tied] = 1 + (as_high[tied].argmax(-1) != token[tied])
    return found
