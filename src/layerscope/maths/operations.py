"""Floating-point operations of passes through a model."""

from __future__ import annotations


def operations_of_passes(
    token_layers: float, logits: float, *, layer_parameters: float, width: int, vocabulary: int
) -> float:
    """Multiplications and additions: two for every weight that a token's state meets.

    2 (t P + l w V). Attention between tokens, norms and activations are left out: below a twentieth, where texts
    are much shorter than a state is wide.

    Args:
        token_layers: tokens times the layers that each goes through.
        logits: states that are read out over the vocabulary.
        layer_parameters: weights of one layer that a token's state is multiplied by.
        width: entries of a state.
        vocabulary: tokens that there are.

    Source: Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1.
    """
    return 2.0 * (token_layers * layer_parameters + logits * width * vocabulary)
