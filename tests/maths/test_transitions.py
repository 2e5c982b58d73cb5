import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope.maths.transitions import last_rise_through, routed_elsewhere, transition

UNKNOWN = pytest.approx(np.nan, nan_ok=True)


def row(*values):
    return np.array(values, dtype=float)


def test_a_hand_worked_handover():
    # last − noised: −1, −.8, −.2, .6, 1: zero is a quarter of the way from depth 2 to 3.
    # .1 is reached at depth 1; .9 is 2/3 of the way from .7 at depth 3 to 1 at depth 4.
    noised, last = row(1, 0.9, 0.5, 0.1, 0), row(0, 0.1, 0.3, 0.7, 1)

    found = transition(noised, last)

    assert found.layer == pytest.approx(2.25)
    assert found.onset == pytest.approx(1)
    assert found.width == pytest.approx(3 + 2 / 3 - 1)
    assert found.crossings == 1


@given(st.floats(8, 24), st.floats(0.7, 1.5))
def test_a_logistic_handover_is_found_at_its_centre_with_its_width(centre, scale):
    last = 1 / (1 + np.exp(-(np.arange(33) - centre) / scale))

    found = transition(1 - last, last)

    assert found.layer == pytest.approx(centre, abs=0.02)
    assert found.onset == pytest.approx(centre - np.log(9) * scale, abs=0.15)
    assert found.width == pytest.approx(2 * np.log(9) * scale, abs=0.3)
    assert found.crossings == 1


@given(st.integers(1, 10))
def test_shifting_both_rows_shifts_the_handover_and_keeps_the_width(shift):
    last = np.concatenate([[0, 0.2, 0.05, 0.4, 0.95], np.ones(12)])
    later = np.concatenate([np.zeros(shift), last])

    here, there = transition(1 - last, last), transition(1 - later, later)

    assert there.layer == pytest.approx(here.layer + shift)
    assert there.onset == pytest.approx(here.onset + shift)
    assert there.width == pytest.approx(here.width)


def test_numpy_torch_and_half_precision_agree():
    last = np.linspace(0, 1, 9) ** 2
    expected = transition(1 - last, last)

    assert transition(torch.tensor(1 - last), torch.tensor(last)) == expected
    assert transition((1 - last).astype(np.float32), last.astype(np.float32)).layer == pytest.approx(
        expected.layer, abs=1e-5
    )


def test_a_model_of_one_block_hands_over_in_its_middle():
    found = transition(row(1, 0), row(0, 1))

    assert (found.layer, found.onset, found.crossings) == (0.5, 0.1, 1)
    assert found.width == pytest.approx(0.8)


def test_of_several_crossings_the_last_upward_one_counts():
    noised = row(0, 0, 0, 0, 0, 0)

    found = transition(noised, row(-1, 1, -1, -1, 1, 1))

    assert (found.layer, found.crossings) == (3.5, 3)
    assert transition(noised, row(-1, 1, -1, -1, -1, -1)).layer == 0.5
    assert transition(noised, row(-1, 1, -1, -1, -1, -1)).crossings == 2


@pytest.mark.parametrize(
    ("ahead", "layer", "crossings"),
    [
        ((-1, 0, 1), 1, 1),  # exactly at a depth, counted once
        ((-1, 0, 0, 0, 1), 2, 1),  # a plateau: its middle
        ((-1, 0, -1, 1), 2.5, 1),  # a touch from below is no crossing
        ((1, 0, 1), np.nan, 0),  # nor from above
        ((0, 0, 1, 1), np.nan, 0),  # starts on zero
        ((-1, -1, 0), np.nan, 0),  # ends on zero
        ((1, 0, -1), np.nan, 1),  # downwards only
        ((0, 0, 0), np.nan, 0),
        ((-1, np.nan, 1), np.nan, np.nan),
        ((1,), np.nan, 0),
    ],
)
def test_zeros_and_touches(ahead, layer, crossings):
    found = transition(np.zeros(len(ahead)), row(*ahead))

    assert found.layer == pytest.approx(layer, nan_ok=True)
    assert found.crossings == pytest.approx(crossings, nan_ok=True)


def test_constant_rows_have_no_handover():
    found = transition(row(0.5, 0.5, 0.5), row(0.5, 0.5, 0.5))

    assert (found.layer, found.onset, found.width, found.crossings) == (UNKNOWN, UNKNOWN, UNKNOWN, 0)


def test_the_width_is_unknown_without_a_last_rise_to_nine_tenths():
    assert transition(row(1, 1, 0), row(0, 0.5, 0.8)).width == UNKNOWN
    fell_back = transition(np.zeros(5), row(0, 1, 0, 0, 0.5))
    assert fell_back.onset == pytest.approx(3.2)
    assert fell_back.width == UNKNOWN


def test_onset_is_the_last_rise_through_a_tenth():
    assert last_rise_through(row(0, 0.2, 0.05, 0.15, 1), 0.1) == pytest.approx(2.5)
    assert transition(np.ones(5), row(0, 0.2, 0.05, 0.15, 1)).onset == pytest.approx(2.5)


# tokens 0 and 1 are noised, 3 is last; depths 0 and 3 are the ends
RECOVERIES = np.array(
    [
        [0.7, 0.1, 0.0, 0.0],
        [0.3, 0.5, 0.2, 0.0],
        [0.0, 0.1, 0.1, 0.0],
        [0.0, -0.4, 1.0, 1.0],
    ]
)


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_share_routed_through_other_tokens_of_a_hand_worked_case(library):
    # between the ends: .1 + .7 noised, .2 elsewhere, 1 last (the negative cell counts as none)
    found = routed_elsewhere(library(RECOVERIES), noised=[0, 1], last=3)

    assert found == pytest.approx(0.2 / 2.0)
    assert routed_elsewhere(library(RECOVERIES), noised=np.array([0, 1]), last=-1) == pytest.approx(0.1)


def test_the_trivial_ends_are_left_out():
    changed = RECOVERIES.copy()
    changed[:, [0, -1]] = 99

    assert routed_elsewhere(changed, noised=[0, 1], last=3) == pytest.approx(0.1)


def test_all_and_nothing_elsewhere():
    assert routed_elsewhere(RECOVERIES, noised=[0, 1, 2], last=3) == 0
    assert routed_elsewhere(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0.0]]), noised=[0], last=2) == 1


@pytest.mark.parametrize(
    "recoveries",
    [np.zeros((3, 4)), -np.ones((3, 4)), np.ones((3, 2)), np.where(np.eye(3, 4, 1) > 0, np.nan, 1.0)],
    ids=["nothing", "harm only", "one block", "missing cells"],
)
def test_an_unknown_share_is_nan(recoveries):
    assert np.isnan(routed_elsewhere(recoveries, noised=[0], last=2))
