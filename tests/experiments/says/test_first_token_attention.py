"""What first_token_attention says, from samples through its own conclusion: both ways, of nothing, of too little."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.first_token_attention import Settings, claims, conclude
from layerscope.experiments.first_token_attention.conclude import stretches
from layerscope.experiments.first_token_attention.measure import READINGS

LAYERS, HEADS, POSITIONS = 3, 2, 32
SINK = (1, 0)
"""The layer and head whose share differs from uniform attention."""


def _shares(factors: tuple[float, float, float], *, passages: int = 8, bos: bool = True) -> xr.Dataset:
    """One head gives the first token so many times uniform attention in each reading, give or take."""
    rng = np.random.default_rng(0)
    uniform = 1 / (1 + np.arange(POSITIONS))
    shares = np.broadcast_to(uniform, (passages, 3, LAYERS, HEADS, POSITIONS)).copy()
    shares *= 1 + rng.normal(scale=0.02, size=(passages, 1, LAYERS, HEADS, 1))
    shares[:, :, SINK[0], SINK[1]] *= np.array(factors)[:, None] * (
        1 + rng.normal(scale=0.02, size=(passages, 3, 1))
    )
    shares[:, 1, ..., -1] = np.nan  # nothing added: the text ends a position earlier
    if not bos:
        shares[:, 0] = np.nan
    return xr.Dataset(
        {"attention_to_first": (("passage", "reading", "layer", "head", "position"), shares)},
        coords={
            "passage": [f"p{i}" for i in range(passages)],
            "reading": list(READINGS),
            "layer": range(LAYERS),
            "position": range(POSITIONS),
        },
    )


def _result(*factors: float, passages: int = 8, bos: bool = True) -> xr.Dataset:
    given = (factors[0], factors[1], factors[2])
    return conclude({"attention": _shares(given, passages=passages, bos=bos)}, Settings(resamples=200))


def _said(*factors: float, passages: int = 8, bos: bool = True) -> list[Claim]:
    return list(claims(_result(*factors, passages=passages, bos=bos)))


def _about(said: list[Claim], variable: str) -> list[Claim]:
    return [claim for claim in said if claim.select["variable"] == variable]


def test_the_layer_and_the_head_that_give_most_are_named_with_what_they_give() -> None:
    result = _result(5, 5, 5)
    said = list(claims(result))
    layer, head = _about(said, "late_share")[0], _about(said, "head_late_share")[0]

    late = np.mean(1 / np.arange(POSITIONS // 2 + 1, POSITIONS))
    assert layer.value == pytest.approx(late * (5 + 1) / 2, rel=0.03)
    assert head.value == pytest.approx(late * 5, rel=0.03)
    assert layer.text.startswith(
        "Late in the text, layer 1 gives the first token the most attention of any layer: 1"
    )
    assert head.text.startswith(
        "Late in the text, L1H0 gives the first token the most attention of any head: 2"
    )
    assert "best of 3, interval for all of them at once" in layer.caveat
    assert "best of 6, interval for all of them at once" in head.caveat
    assert (
        result.head_late_share_joint_low.sel(reading=READINGS[0])[SINK] <= result.head_late_share_low[0][SINK]
    )


def test_late_in_the_text_is_the_share_of_positions_that_is_asked_for() -> None:
    result = conclude({"attention": _shares((1, 1, 1))}, Settings(resamples=50, late_share=0.25))

    late = np.mean(1 / np.arange(25, POSITIONS))  # without the last position, which one reading has not
    np.testing.assert_allclose(result.uniform_late_share, late)
    np.testing.assert_allclose(result.late_share, late, rtol=0.05)


def test_passages_that_agree_to_the_last_bit_have_intervals_of_what_float32_rounds() -> None:
    alike = _shares((2, 2, 2))
    alike["attention_to_first"] = alike.attention_to_first.copy(
        data=np.broadcast_to(alike.attention_to_first.values[:1], alike.attention_to_first.shape)
    )
    result = conclude({"attention": alike}, Settings(resamples=50))

    for name in ("late_excess", "head_late_excess"):
        np.testing.assert_allclose(result[f"{name}_high"] - result[name], 1e-6, rtol=0.01)
        np.testing.assert_allclose(result[name] - result[f"{name}_low"], 1e-6, rtol=0.01)


def test_more_or_less_than_uniform_attention_is_said_so() -> None:
    more = _about(_said(5, 5, 5), "late_excess")[0]
    every = _shares((1, 1, 1))
    every["attention_to_first"] = 0.5 * every.attention_to_first
    less = _about(list(claims(conclude({"attention": every}, Settings(resamples=200)))), "late_excess")[0]

    assert more.text.startswith("Late in the text, layer 1 gives the first token 8")
    assert "percentage points more of its attention than uniform attention does (95% CI 8" in more.text
    assert "percentage points less of its attention than uniform attention does (95% CI " in less.text
    assert more.significant
    assert less.significant
    assert more.value is not None
    assert less.value is not None
    assert more.value > 0 > less.value


def test_uniform_attention_and_too_few_passages_are_said_as_such() -> None:
    nothing, few = (
        _about(_said(1, 1, 1), "late_excess")[0],
        _about(_said(5, 5, 5, passages=4), "late_excess")[0],
    )

    assert nothing.text.startswith("No detectable difference between attention to the first token in layer ")
    assert nothing.significant is False
    assert few.text.startswith(
        "Too few passages to test the difference between attention to the first token in"
    )
    assert "(4 passages; smallest possible p = 0.12; estimate 8" in few.text


def test_what_stands_first_makes_more_less_or_no_difference() -> None:
    word, token = _about(_said(5, 1, 9), "overall_change")
    nothing = _about(_said(5, 5, 5), "overall_change")[0]
    few = _about(_said(5, 1, 9, passages=4), "overall_change")[0]

    assert "less of the attention with an ordinary word first than with BOS first (95% CI" in word.text
    assert "more of the attention with a random token first than with BOS first (95% CI" in token.text
    assert word.significant
    assert token.significant
    assert nothing.text.startswith(
        "No detectable difference in attention to the first token between an ordinary"
    )
    assert few.text.startswith(
        "Too few passages to test the difference in attention to the first token between"
    )
    assert "smallest possible p = 0.12, adjusted 0.25" in few.text or "smallest possible p = 0.25" in few.text


def test_a_family_of_readings_is_corrected_by_holm() -> None:
    result = _result(5, 1, 9)

    smallest = 2 / 2**8
    np.testing.assert_allclose(result.overall_change_p, 2 * smallest, rtol=1e-6)
    np.testing.assert_allclose(result.overall_change_least_p, 2 * smallest, rtol=1e-6)


def test_layers_are_corrected_by_the_largest_statistic() -> None:
    result = _result(1.02, 1, 1, passages=12)
    alone = Settings(resamples=200)
    one = _shares((1.02, 1, 1), passages=12).isel(layer=[1])
    own = conclude({"attention": one}, alone).late_excess_p.sel(reading=READINGS[0], layer=1)

    assert float(result.late_excess_p.sel(reading=READINGS[0], layer=1)) > float(own)


def test_where_attention_to_the_first_token_is_least_is_a_position_in_the_text() -> None:
    least = _about(_said(5, 5, 5), "overall_along")[0]

    middle = sum(stretches(POSITIONS)[-1]) / 2 - 0.5
    assert least.select["stretch"] == middle
    assert least.text.startswith(f"Attention to the first token is least near position {middle:.0f}: 5.")


def test_without_bos_the_next_reading_is_the_main_one() -> None:
    result = _result(5, 3, 9, bos=False)
    said = list(claims(result))

    assert result.attrs["main_reading"] == "nothing added"
    assert "Nothing stands first" in result.attrs["cautions"]
    change = _about(said, "overall_change")
    assert len(change) == 1
    assert (
        "more of the attention with a random token first than with an ordinary word first" in change[0].text
    )


def test_positions_that_one_reading_lacks_count_in_none() -> None:
    """A share that falls like 1 / position must not change with the length of the text."""
    assert float(np.abs(_result(1, 1, 1).overall_change).max()) < 1e-4


def test_stretches_cover_every_position_but_the_first_once() -> None:
    parts = stretches(100)

    assert parts[0][0] == 1
    assert parts[-1][1] == 100
    assert all(before[1] == after[0] for before, after in pairwise(parts))


def test_its_measure_over_depth_has_replicates_of_the_whole_curve_and_its_null() -> None:
    result = _result(5, 5, 5)

    measured = experiments.load("first_token_attention").over_depth(result)["late_share"]

    assert measured.draws.sizes == {"draw": 200, "layer": LAYERS}
    np.testing.assert_allclose(measured.draws.mean("draw"), measured.value, rtol=0.02)
    np.testing.assert_allclose(
        measured.null, np.mean(1 / np.arange(POSITIONS // 2 + 1, POSITIONS)), rtol=1e-6
    )
    assert int(measured.value.values.argmax()) == SINK[0]


def test_what_rounding_alone_makes_is_nothing_however_alike_in_all_passages() -> None:
    rounded = _shares((1, 1, 1))
    uniform = 1 / (1 + np.arange(POSITIONS))
    rounded["attention_to_first"] = rounded.attention_to_first.where(
        rounded.attention_to_first.isnull(), uniform + 1e-8
    )

    said = list(claims(conclude({"attention": rounded}, Settings(resamples=200))))

    assert _about(said, "late_excess")[0].text.startswith(
        "No detectable difference between attention to the first"
    )
