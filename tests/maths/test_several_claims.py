"""Intervals for several claims at once, worked by hand."""

from __future__ import annotations

import math

import pytest

from layerscope.maths.several_claims import is_above, is_within, widened


def test_ends_move_out_by_the_ratio_of_normal_quantiles_each_on_its_own_side() -> None:
    # 5 claims at 95 %: 99 % each, 2.5758 against 1.9600.
    low, high = widened(1.0, 0.0, 3.0, level=0.95, claims=5)

    assert (low, high) == pytest.approx((1 - 2.5758 / 1.95996, 1 + 2 * 2.5758 / 1.95996), abs=1e-4)
    assert widened(1.0, 0.0, 3.0, level=0.95, claims=1) == pytest.approx((0.0, 3.0))


def test_an_effect_is_above_the_smallest_of_interest_below_it_or_undecided() -> None:
    assert [is_above(low, low + 0.2, 0.1) for low in (0.11, -0.2, 0.0)] == [True, False, None]
    assert is_above(math.nan, 1.0, 0.1) is None


def test_an_effect_is_within_a_margin_by_two_one_sided_tests() -> None:
    assert [is_within(*ends, 0.1) for ends in ((-0.05, 0.09), (0.11, 0.3), (-0.3, -0.11), (0.0, 0.2))] == [
        True,
        False,
        False,
        None,
    ]
