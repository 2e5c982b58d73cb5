"""Claims beside those of untrained twins: what is the same claim, and what twins decide."""

from __future__ import annotations

import pytest
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import Finding, strongest
from layerscope.evidence.twins import beside_twins

EFFECT = ("effect", "random weights mix, too")


def gap(value: float, *, n: int = 12, untrained: tuple[str, str] = EFFECT, **select: object) -> Claim:
    found = Finding(
        value, value - 0.4, value + 0.4, "layer", n=(n,), units="texts", select={"variable": "gap", **select}
    )
    return found.claim(
        f"far is read {found.size} {found.which('later', 'earlier')} than near",
        nothing="difference in depth",
        caveat="centroids",
        untrained=untrained,  # type: ignore[arg-type]
    )


def beside(own: Claim, values: list[float]) -> Claim:
    return beside_twins([own], [[gap(value)] for value in values])[0]


# 0.5, 0.6, 0.7, 0.8, 0.9: mean 0.7, SD 0.158, t 2.776 with four degrees of freedom: 0.7 ± 2.776 × 0.158 × √1.2
TWINS = [0.5, 0.6, 0.7, 0.8, 0.9]


def test_an_effect_inside_the_range_of_twins_is_not_significant_and_says_why() -> None:
    found = beside(gap(1.1), TWINS)

    assert gap(1.1).significant
    assert found.significant is False
    assert found.twins == tuple(TWINS)
    assert found.text == (
        "Far is read 1.1 layers later than near (95% CI 0.7 to 1.5), within the range of untrained twins (95% "
        "prediction interval 0.2 to 1.2)."
    )
    assert found.twins_range == pytest.approx((0.7 - 0.4809, 0.7 + 0.4809), abs=1e-4)


def test_an_effect_outside_it_is_significant_and_its_caveat_says_so() -> None:
    found = beside(gap(1.3), TWINS)

    assert gap(1.3).caveat == "centroids; untrained twins show an effect too: random weights mix, too"
    assert found.significant
    assert found.text == gap(1.3).text
    assert (
        found.caveat
        == "centroids; outside the range of 5 untrained twins (95% prediction interval 0.2 to 1.2)"
    )


def test_twins_never_make_significant_what_is_not() -> None:
    found = beside(gap(0.1), [value + 5 for value in TWINS])

    assert found.significant is False
    assert found.text == gap(0.1).text


def test_a_value_said_without_its_sign_has_its_twins_turned_round_too() -> None:
    found = beside(gap(-1.1), [-value for value in TWINS])

    assert found.text == (
        "Far is read 1.1 layers earlier than near (95% CI 0.7 to 1.5), within the range of untrained twins (95% "
        "prediction interval 0.2 to 1.2)."
    )
    assert beside(gap(-1.1), TWINS).significant  # as large, and on the other side


def test_fewer_than_five_twins_are_known_and_decide_nothing() -> None:
    found = beside(gap(0.7), TWINS[:4])

    assert found.significant
    assert found.twins == tuple(TWINS[:4])
    assert found.text == gap(0.7).text


@pytest.mark.parametrize("declared", ["null", "not applicable"])
def test_only_what_is_declared_an_effect_is_decided_by_twins(declared: str) -> None:
    own = gap(0.7, untrained=(declared, "random weights"))

    assert beside(own, TWINS) == own.model_copy(update={"twins": tuple(TWINS)})


def test_the_same_claim_is_that_of_the_same_quantity_at_the_same_labels() -> None:
    own = [gap(1.0, category="a"), gap(2.0, category="b")]
    twin = [gap(5.0, category="b"), gap(4.0, category="a"), gap(6.0, category="c")]

    assert [claim.twins for claim in beside_twins(own, [twin])] == [(4.0,), (5.0,)]
    assert beside_twins([gap(1.0, category="d")], [twin])[0].twins == ()


def test_the_best_of_many_is_held_against_each_twin_s_own_best() -> None:
    def best(*heights: float) -> Claim:
        attrs = {"long_name": "height", "units": "1"}
        result = xr.Dataset(
            {"height": ("layer", list(heights), attrs)}, coords={"layer": range(len(heights))}
        )
        found = strongest(result, "height", "layer")
        return found.claim(f"highest in layer {found.select['layer']}", nothing="height", untrained=EFFECT)

    own = best(0.1, 0.9)

    assert own.select["layer"] == 1
    assert beside_twins([own], [[best(0.5, 0.2)], [best(0.3, 0.4)]])[0].twins == (0.5, 0.4)


def test_of_several_of_one_quantity_the_first_is_the_first() -> None:
    own = [gap(1.0), gap(2.0)]

    assert [one.twins for one in beside_twins(own, [[gap(3.0), gap(4.0)], [gap(5.0)]])] == [
        (3.0, 5.0),
        (4.0,),
    ]


def test_a_twin_without_a_number_is_no_witness() -> None:
    unknown = gap(float("nan"))

    assert beside_twins([gap(1.0)], [[unknown], [gap(2.0)]])[0].twins == (2.0,)
