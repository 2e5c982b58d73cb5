"""Pairs of categories in sentences: each where there are few, and one for all the others where there are many."""

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import claims_of_pairs


def _said(p: list[float]) -> list[Claim]:
    n = len(p)
    result = xr.Dataset(
        {
            "difference": ("contrast", np.resize([2.0, -2.0], n), {"units": "layer"}),
            "difference_low": ("contrast", np.resize([1.5, -2.5], n)),
            "difference_high": ("contrast", np.resize([2.5, -1.5], n)),
            "p_adjusted": ("contrast", p),
        },
        coords={
            "contrast": [f"a{i} − b{i}" for i in range(n)],
            "contrast_first": ("contrast", [f"a{i}" for i in range(n)]),
            "contrast_second": ("contrast", [f"b{i}" for i in range(n)]),
        },
    )
    return list(
        claims_of_pairs(
            result,
            says=lambda gap, first, second: (
                f"{first} is {gap.size} {gap.which('later', 'earlier')} than {second}"
            ),
            nothing="difference",
        )
    )


def test_few_pairs_have_a_sentence_each_in_their_direction() -> None:
    later, earlier, quiet = _said([0.001, 0.001, 0.5])

    assert later.text.startswith("A0 is 2.0 layers later than b0 (95% CI 1.5 to 2.5")
    assert earlier.text.startswith("A1 is 2.0 layers earlier than b1 (95% CI 1.5 to 2.5")
    assert quiet.text.startswith("No detectable difference between a2 and b2 (2.0 layers")


def test_of_many_pairs_the_quiet_and_the_untested_ones_are_counted() -> None:
    first, quiet, untested = _said([0.001, *[0.5] * 10, np.nan])

    assert first.text.startswith("A0 is 2.0 layers later than b0")
    assert quiet.text == "No detectable difference in 10 of 11 pairs of categories."
    assert untested.text == "Too few prompts to test the difference in 1 of 12 pairs of categories."
