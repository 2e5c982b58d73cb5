"""Sinks of a hand-made text, with numpy and torch alike."""

import numpy as np
import torch

from layerscope.maths.sinks import sink_tokens

NORMS = np.array([[50.0, 1.0, 2.0, 4.0, 21.0], [9.0, 1.0, 1.0, 1.0, 1.0]], dtype=np.float32)


def test_a_sink_is_more_than_ten_times_the_median_of_its_own_text() -> None:
    # medians 4 and 1: 50 > 40 is a sink, 21 is not; 9 is not
    expected = [[True, False, False, False, False], [False] * 5]

    assert sink_tokens(NORMS).tolist() == expected
    assert sink_tokens(torch.tensor(NORMS)).tolist() == expected


def test_an_even_number_of_tokens_takes_the_lower_middle_value() -> None:
    norms = np.array([1.0, 2.0, 30.0, 15.0])  # sorted 1 2 15 30, lower middle 2

    assert sink_tokens(norms).tolist() == [False, False, True, False]
    assert sink_tokens(torch.tensor(norms)).tolist() == [False, False, True, False]
    assert sink_tokens(norms, times=5.0).tolist() == [False, False, True, True]


def test_states_of_length_zero_and_unknown_ones_make_no_sinks() -> None:
    assert not sink_tokens(np.array([0.0, 0.0, 0.0, 3.0, 0.0])).any()
    assert not sink_tokens(np.array([1.0, 1.0, np.nan, 1.0, 1.0]))[2]
