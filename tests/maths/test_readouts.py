"""What is read from logits, by hand."""

import math

import pytest
import torch

from layerscope.maths.readouts import (
    answer_log_probability,
    group_log_probability,
    logit_difference,
    negative_divergence,
)

# Probabilities 1/2, 1/4, 1/4 and 1/8, 7/8, 0+.
FIRST = torch.log(torch.tensor([0.5, 0.25, 0.25]))
SECOND = torch.log(torch.tensor([0.125, 0.875 - 1e-9, 1e-9]))


def test_an_answer_of_two_tokens_is_the_product_of_both() -> None:
    logits = torch.stack([FIRST, SECOND])[None] + 3.0  # a shift of all logits changes nothing

    assert float(answer_log_probability(logits, [1, 0])[0]) == pytest.approx(math.log(0.25 * 0.125), abs=1e-5)
    assert float(answer_log_probability(logits[:, :1], [0])[0]) == pytest.approx(math.log(0.5), abs=1e-5)


def test_difference_of_logits() -> None:
    assert logit_difference(torch.tensor([[1.0, 4.0, -2.0]]), 1, 2).tolist() == [6.0]


def test_divergence_is_zero_at_the_clean_run_and_by_hand_elsewhere() -> None:
    other = torch.log(torch.tensor([0.25, 0.5, 0.25]))

    found = negative_divergence(torch.stack([FIRST, other]), FIRST)

    # 1/2 log 2 + 1/4 log 1/2 = 1/4 log 2
    assert found.tolist() == pytest.approx([0.0, -0.25 * math.log(2)], abs=1e-6)


def test_a_group_is_the_sum_of_its_probabilities() -> None:
    assert float(group_log_probability(FIRST[None], [1, 2])[0]) == pytest.approx(math.log(0.5), abs=1e-6)
