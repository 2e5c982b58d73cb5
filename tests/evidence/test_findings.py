"""What a finding says: opposite data gives the opposite sentence, nothing the null's, too little "too few"."""

import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from layerscope.evidence import Finding, along, cell_by_cell, finding, measure, named, strongest
from layerscope.maths.depth_profile import centroid

LATER = Finding(
    3.31, 3.08, 3.52, "layer", n=(12,), units="prompts", tested=True, p=0.0004, least_p=0.0002,
    least_alone=0.0002, select={"variable": "gap"},
)  # fmt: skip


def _said(found: Finding) -> str:
    return found.claim(
        f"recall crosses over {found.size} {found.which('later', 'earlier')} than regurgitation",
        nothing="difference in crossover between recall and regurgitation",
        unknown="no prompt crosses over",
    ).text


def test_a_significant_finding_says_size_direction_interval_and_p() -> None:
    assert (
        _said(LATER)
        == "Recall crosses over 3.3 layers later than regurgitation (95% CI 3.1 to 3.5, p < 0.001)."
    )


def test_the_opposite_data_give_the_opposite_sentence() -> None:
    opposite = replace(LATER, value=-3.31, low=-3.52, high=-3.08)

    assert (
        _said(opposite)
        == "Recall crosses over 3.3 layers earlier than regurgitation (95% CI 3.1 to 3.5, p < 0.001)."
    )


def test_nothing_gives_the_null_s_sentence_with_its_estimate() -> None:
    nothing = replace(LATER, value=0.52, low=-0.12, high=1.1, p=0.2)

    assert _said(nothing) == (
        "No detectable difference in crossover between recall and regurgitation (0.5 layers, 95% CI −0.1 to 1.1)."
    )


def test_too_little_says_so_however_clear_the_numbers_look() -> None:
    little = replace(LATER, n=(4, 2), p=0.2, least_p=0.2, least_alone=1 / 15)

    assert _said(little) == (
        "Too few prompts to test the difference in crossover between recall and regurgitation "
        "(4 against 2; smallest possible p = 0.067, adjusted 0.2; estimate 3.3 layers)."
    )
    assert little.claim("...", nothing="x").significant is False
    untold = replace(
        LATER, n=(1,), p=math.nan, low=math.nan, high=math.nan, least_p=math.nan, least_alone=math.nan
    )
    assert _said(untold).startswith("Too few prompts to test the difference in crossover")
    assert "(1 prompt; estimate 3.31 layers)" in _said(untold)


def test_without_a_value_there_is_no_estimate() -> None:
    assert _said(replace(LATER, value=math.nan)) == (
        "No estimate of the difference in crossover between recall and regurgitation (no prompt crosses over)."
    )


def test_where_nothing_is_tested_by_p_the_interval_decides() -> None:
    plain = replace(LATER, tested=False, p=math.nan, least_p=math.nan)

    assert plain.significant
    assert not replace(plain, low=-0.1).significant
    assert not replace(plain, n=(5,)).significant  # of five units no interval of this kind reaches 95 %
    assert "(5 prompts; estimate 3.3 layers)" in _said(replace(plain, n=(5,), least_alone=math.nan))
    assert not replace(plain, beyond=False).significant
    assert not replace(plain, null=3.2).significant
    assert replace(plain, value=1.0, low=0.5, high=1.5, null=2.0).which("above", "below") == "below"


def test_a_p_decides_and_not_the_interval() -> None:
    assert not replace(LATER, p=0.06).significant
    assert replace(LATER, low=-1.0).significant


def test_a_claim_carries_its_numbers_as_they_are() -> None:
    claim = replace(LATER, value=-3.31, low=-3.52, high=-3.08).claim("x", nothing="y")

    assert (claim.value, claim.low, claim.high) == (-3.31, -3.52, -3.08)
    assert (claim.unit, claim.n, claim.p_adjusted, claim.significant) == ("layer", 12, 0.0004, True)
    assert LATER.claim("layer 3 reads most").significant is None


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "text"),
    [
        (0.137, 0.06, 0.23, "share", "14%"),
        (0.31, 0.29, 0.33, "nat", "0.31 nats"),
        (1.0, 1.0, 1.0, "layer", "1 layer"),
        (0.132, 0.11, 0.15, "point", "13 percentage points"),
        (0.0578, 0.042, 0.072, "1", "0.058"),
    ],
)
def test_units_are_written_in_one_way(value: float, low: float, high: float, unit: str, text: str) -> None:
    assert Finding(value, low, high, unit).estimate == text


def test_a_p_at_its_floor_is_written_as_less() -> None:
    assert "p < 0.02)" in _said(replace(LATER, p=1 / 64, least_p=1 / 64))
    assert "p = 0.016)" in _said(replace(LATER, p=1 / 64, least_p=1 / 128))


def test_a_finding_holds_its_untrained_twin_where_the_result_does() -> None:
    result = xr.Dataset(
        {
            "gain": ("depth", [0.1, 0.3]),
            "untrained_gain": ("depth", [0.0, 0.2]),
            "loss": ("depth", [1.0, 2.0]),
        },
        coords={"depth": [0, 1]},
    )

    assert finding(result, "gain", depth=1).twins == (0.2,)
    assert strongest(result, "gain", "depth").twins == (0.2,)
    assert finding(result, "loss", depth=1).twins == ()


def _scores(p: list[float]) -> xr.Dataset:
    attrs = {"long_name": "score", "units": "share", "over": "prompt"}
    values = {"": [0.1, 0.2, 0.9, 0.3], "_low": [0, 0.1, 0.2, 0.2], "_high": [0.2, 0.3, 1, 0.4]}
    columns = {f"score{end}": ("depth", np.array(row, dtype=float), attrs) for end, row in values.items()}
    return xr.Dataset(columns | {"score_p_adjusted": ("depth", np.array(p))}, coords={"depth": range(4)})


def test_the_best_is_the_best_of_those_that_are_significant_and_says_where_else() -> None:
    best = strongest(_scores([0.9, 0.01, 0.2, 0.01]), "score", over="depth")

    assert best.select["depth"] == 3  # depth 2 scores more, but not significantly
    assert best.where == "depths 1 and 3"
    assert "best of 4, interval of this one alone" in best.claim("x").caveat
    assert strongest(_scores([0.9] * 4), "score", over="depth").select["depth"] == 2
    assert strongest(_scores([0.9] * 4), "score", over="depth", by=np.negative).select["depth"] == 0


def test_a_result_of_an_older_version_is_read_without_what_it_lacks() -> None:
    old = _scores([0.01] * 4).drop_vars(["score_low", "score_high"])

    found = finding(old, "score", depth=1)

    assert found.significant
    assert (found.low, found.n) == (pytest.approx(math.nan, nan_ok=True), ())


def test_formulas_run_along_named_dimensions_in_whatever_order_they_stand() -> None:
    heights = xr.DataArray(
        np.array([[0.0, 1], [0, 1], [1, 0]]), dims=("layer", "range"), coords={"range": ["a", "b"]}
    )

    place = named(along("layer", centroid, heights), "place", "centroid", "layer")

    assert place.dims == ("range",)
    np.testing.assert_array_equal(place, [2, 0.5])
    np.testing.assert_array_equal(
        along("layer", lambda row: np.cumsum(row, axis=-1), heights).sel(range="b"), [1, 2, 2]
    )
    assert float(cell_by_cell(np.subtract, place.sel(range="a"), place.sel(range="b"))) == 1.5


def test_a_measure_has_a_short_label() -> None:
    with pytest.raises(ValueError, match="at most 6 words"):
        measure(
            _scores([0.1] * 4),
            "score",
            label="one two three four five six seven",
            sense="x",
            questions="state",
        )
    curve = measure(
        _scores([0.1] * 4), "score", label="word index decodable", sense="x", questions="state", null=0.0
    )
    assert {"value", "low", "high", "null"} == set(curve.data_vars)
