"""What is read from predictions, by hand."""

import math

import pytest
import torch

from layerscope.maths.readouts import answer_log_probability, group_log_probability, logit_difference


def test_an_answer_of_two_tokens_is_the_product_of_both() -> None:
    logs = torch.log(torch.tensor([[0.25, 0.125], [0.5, 1.0]]))

    found = answer_log_probability(logs)

    assert found.tolist() == pytest.approx([math.log(0.25 * 0.125), math.log(0.5)], abs=1e-6)


def test_difference_of_logits() -> None:
    assert logit_difference(torch.tensor([[4.0, -2.0]])).tolist() == [6.0]


def test_a_group_is_the_sum_of_its_probabilities() -> None:
    logs = torch.log(torch.tensor([[0.25, 0.125]]))

    assert float(group_log_probability(logs)[0]) == pytest.approx(math.log(0.375), abs=1e-6)
