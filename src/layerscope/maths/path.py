"""The residual stream's path through depth: how far it moves at each block, and which way.

States lie on the axis `depth`: 0 is the embedding, l the stream after l blocks. With n blocks there
are n + 1 depths, n steps and n − 1 turns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, at_least_float32, divide, to_float64
from layerscope.maths.similarity import cosine, norm


def steps(states: Float[Array, "*batch depth width"]) -> Float[Array, "*batch depth-1 width"]:
    """What each block added: v_l = h_{l+1} − h_l.

    Subtracted in float32 or finer: late states are long and late steps short, so half precision
    would leave little of the difference.

    Returns:
        Vectors in the units of the state, one per block.

    Source: Kinniment 2022, "Recall and Regurgitation in GPT2", states through depth.
    """
    states = at_least_float32(states)
    return states[..., 1:, :] - states[..., :-1, :]


def relative_step(states: Float[Array, "*batch depth width"]) -> Float[Array, "*batch depth-1"]:
    """Length of each step beside the state it starts from: ‖v_l‖ / ‖h_l‖.

    The stream grows with depth, so a step of constant length matters less and less; this ratio says
    how much, where a cosine between depths would call the same fact stability.

    Returns:
        A pure number ≥ 0; NaN where the step starts from a zero state.

    Source: Kinniment 2022; Csordás et al. 2025 (relative contribution of a layer).
    """
    return divide(norm(steps(states)), norm(states[..., :-1, :]))


def turn(states: Float[Array, "*batch depth width"]) -> Float[Array, "*batch depth-2"]:
    """Cosine between one step and the next: cos(v_l, v_{l+1}).

    1: the next block goes on in the same direction; 0: a new direction; −1: it takes back what the
    last one wrote. Two random directions in a wide stream give about 0.

    Returns:
        A pure number in [-1, 1] per pair of neighbouring blocks (none for a model of one block);
        NaN where a block added nothing.

    Source: Kinniment 2022, change of step direction.
    """
    moves = steps(states)
    return cosine(moves[..., :-1, :], moves[..., 1:, :])


def successive_cosine(states: Float[Array, "*batch depth width"]) -> Float[Array, "*batch depth-1"]:
    """Cosine between the states before and after each block: cos(h_l, h_{l+1}).

    Rises with depth merely because the state grows while steps keep their length; read it beside
    `relative_step`.

    Returns:
        A pure number in [-1, 1], one per block; NaN where either state is zero.

    Source: Kinniment 2022.
    """
    return cosine(states[..., :-1, :], states[..., 1:, :])


def growth_rate(
    norms: Float[Array, "*batch depth"], *, first: int = 0, last: int | None = None
) -> Float[np.ndarray, "*batch"]:
    """Least-squares slope of log norm over depth, from depth `first` to depth `last`, both included.

    exp(rate) − 1 is the growth per block: 0.044 is 4.5 % per block. The first and last blocks often
    do something else; leave them out by the range.

    Args:
        norms: length of the state at each depth; position 0 is best left out of averages.
        first: first depth used.
        last: last depth used; None is the final depth.

    Returns:
        A rate per block, of either sign, in float64; NaN where a norm in the range is zero or NaN.

    Raises:
        ValueError: the range holds fewer than two depths, or reaches outside the states.

    Source: Heimersheim & Turner 2023, "Residual stream norms grow exponentially over the forward pass".
    """
    final = norms.shape[-1] - 1
    last = final if last is None else last
    if not 0 <= first < last <= final:
        raise ValueError(f"expected 0 <= first < last <= {final}, found first={first}, last={last}")
    lengths = to_float64(norms)[..., first : last + 1]
    logs = np.log(np.where(lengths > 0, lengths, np.nan))
    depths = np.arange(last - first + 1) - (last - first) / 2
    return np.asarray((logs * depths).sum(-1) / (depths**2).sum())


def direction(
    added: Float[Array, "*batch width"], states: Float[Array, "*batch width"]
) -> Float[Array, "*batch"]:
    """Does what is added lie along the state or against it: cos(a, h).

    Above 0 it strengthens what is there, below 0 it takes some of it away, at 0 it writes something new.

    Args:
        added: a block's step, or what its attention or MLP adds.
        states: the state before the block.

    Returns:
        A pure number in [-1, 1]; NaN where either is zero.

    Source: Csordás et al. 2025, "Do language models use their depth efficiently?".
    """
    return cosine(added, states)


def share_of_step(
    part: Float[Array, "*batch width"], step: Float[Array, "*batch width"]
) -> Float[Array, "*batch"]:
    """How much of a step one of its parts makes: a·v / ‖v‖².

    The shares of parts that sum to the step sum to 1. A part that works against the rest has a share
    below 0, and another then one above 1.

    Returns:
        A pure number; NaN where the step is zero.

    Source: ours; projection on the step, as in Csordás et al. 2025 on the state.
    """
    part, step = at_least_float32(part), at_least_float32(step)
    return divide((part * step).sum(-1), (step * step).sum(-1))
