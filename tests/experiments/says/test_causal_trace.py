# ruff: noqa: E501
"""What causal_trace says, of numbers that are put into a result: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.evidence import text_coordinate
from layerscope.experiments.causal_trace import Settings
from layerscope.experiments.causal_trace.conclude.readouts import ROWS
from layerscope.experiments.causal_trace.conclude.rows import averages_of_rows
from turned import NAN, compares, put, said_of

_DIMS: dict[str, tuple[str, ...]] = {
    "mean_transition": ("category",),
    "difference": ("contrast",),
    "mean_routed_elsewhere": (),
    "total_effect": (),
    "depth_difference": ("category_pair", "depth"),
    "paired_difference": ("matched",),
    "regression": ("explanation",),
    "output_recovery": ("token_class_name", "site", "layer"),
    "severed_loss": ("token_class_name", "site", "layer"),
    "head_recovery": ("token_class_name", "layer", "head"),
    "agreement": ("measures",),
}
_P = {
    "difference": "p_adjusted",
    "depth_difference": "depth_p",
    "paired_difference": "paired_p",
    "regression": "regression_p_adjusted",
    "head_recovery": "head_p",
}


def _result() -> xr.Dataset:
    """Everything that claims read, all of it 0.3 [0.26, 0.34] over twelve prompts, p = .001."""
    coords = {
        "category": ["near", "far"],
        "contrast": ["near − far"],
        "category_pair": ["near − far"],
        "matched": ["near − far"],
        "explanation": ["near (against far)"],
        "token_class_name": ["last subject token", "last token"],
        "site": ["attn_out", "mlp_out"],
        "measures": ["transition and attention's window peak"],
        "layer": range(4),
        "head": range(2),
        "depth": range(5),
    }
    sizes = {name: len(values) for name, values in coords.items()}
    found: dict[str, Any] = {}
    for name, dims in _DIMS.items():
        shape = [sizes[dim] for dim in dims]
        attrs = {"units": "1" if name == "agreement" else "block", "long_name": name}
        for ending, value in (("", 0.3), ("_low", 0.26), ("_high", 0.34), ("_n", 12)):
            found[f"{name}{ending}"] = (dims, np.full(shape, float(value)), attrs)
        if name in _P:
            found[_P[name]] = (dims, np.full(shape, 0.001))
            found[f"{name}_least_p"] = (dims, np.full(shape, 1e-4))
    found |= {"regression_n": 40, "window": 1}
    found |= {f"difference_n_{which}": (("contrast",), [12.0]) for which in ("first", "second")}
    names = {f"contrast_{which}": ("contrast", [which]) for which in ("first", "second")}
    return xr.Dataset(found, coords=coords | names)


def _said(name: str, value: float, *, seen: float = 0.001, **more: float) -> Claim:
    result = put(_result(), name, value, p=_P.get(name, ""), seen=seen, **more)
    return said_of(experiments.load("causal_trace").claims(result), name)


@pytest.mark.parametrize(
    ("name", "above", "below", "nothing"),
    [
        ("difference", "Crossover comes 0.30 layers later for first than for second",
         "Crossover comes 0.30 layers later for second than for first",
         "difference in crossover depth between first and second"),
        ("depth_difference", "Recovery at the last token is 30 percentage points higher for near than for far at depth 0",
         "Recovery at the last token is 30 percentage points lower for near than for far at depth 0",
         "difference between near and far in recovery at the last token, at any depth"),
        ("paired_difference", "Within matched pairs, crossover comes 0.30 layers later for near than for far",
         "Within matched pairs, crossover comes 0.30 layers earlier for near than for far",
         "difference in crossover depth between near and far within matched pairs"),
        ("regression", "With the others held fixed, crossover comes 0.30 layers later for near than for far",
         "With the others held fixed, crossover comes 0.30 layers earlier for near than for far",
         "effect of near (against far) on crossover depth, the others held fixed"),
    ],
)  # fmt: skip
def test_comparisons_are_said_both_ways(name: str, above: str, below: str, nothing: str) -> None:
    later, earlier = _said(name, 0.3), _said(name, -0.3)
    null, few = _said(name, 0.3, seen=0.2), _said(name, 0.3, seen=0.2, **{f"{name}_least_p": 0.2})

    assert later.text.startswith(above)
    assert earlier.text.startswith(below)
    compares(later, earlier, null, few, nothing)
    assert "smallest possible p = 0.2" in few.text


@pytest.mark.parametrize(
    ("name", "some", "nothing"),
    [
        ("output_recovery", "Restoring MLPs at the last subject token brings back most round layer 0: 30% of the answer",
         "recovery by MLPs at the last subject token, in any window"),
        ("severed_loss", "Severing the subject's own later attention lowers what its state at depth 0 brings back by 30",
         "change of what the subject's early states bring back by severing its own later attention"),
        ("head_recovery", "L0H0 restores most of all single heads at the last token: 30% of the answer",
         "recovery by any single head at the last token"),
        ("agreement", "Crossover depth and attention's peak layer are positively related over prompts: rank correlation 0.30",
         "relation between crossover depth and attention's peak layer over prompts"),
    ],
)  # fmt: skip
def test_parts_are_said_or_not_detected(name: str, some: str, nothing: str) -> None:
    said = _said(name, 0.3)
    null = _said(name, 0.01, seen=0.5)
    few = _said(name, 0.3, seen=0.5, **{f"{name}_n": 4, f"{name}_least_p": 0.25})

    assert said.text.startswith(some)
    assert said.significant
    assert null.text.startswith(f"No detectable {nothing} (")
    assert few.text.startswith(f"Too few prompts to test the {nothing} (4 prompts; ")


def test_a_negative_relation_keeps_its_sign() -> None:
    assert (
        "negatively related over prompts: rank correlation −0.30 (95% CI −0.34 to −0.26)"
        in _said("agreement", -0.3).text
    )


def test_descriptions_are_said_as_they_are() -> None:
    assert (
        _said("mean_transition", 2.3).text
        == "Crossover comes at depth 2.30 of 4 for near (95% CI 2.26 to 2.34)."
    )
    assert _said("total_effect", 0.81).text == (
        "Corruption lowers the answer's probability by 0.81 on average (95% CI 0.77 to 0.85)."
    )
    assert "raises the answer's probability by 0.81" in _said("total_effect", -0.81).text
    assert _said("mean_routed_elsewhere", 0.3).text.startswith(
        "30% of the recovery lies at tokens that are neither"
    )


def test_a_regression_of_too_few_prompts_says_what_is_needed() -> None:
    result = put(_result(), "regression", NAN, p="regression_p_adjusted")

    said = said_of(experiments.load("causal_trace").claims(result), "regression_n")

    assert said.text == (
        "No estimate of the effects of 1 term on crossover depth, the others held fixed (40 prompts; at least ten a "
        "term are needed, and terms that vary)."
    )


def test_categories_without_a_crossover_are_named() -> None:
    claims = experiments.load("causal_trace").claims(put(_result(), "mean_transition", NAN))

    assert said_of(claims, "mean_transition_n").text.startswith(
        "No estimate of the crossover depth of near, far ("
    )


def test_its_measures_over_depth_have_replicates_of_the_whole_curve() -> None:
    levels = np.random.default_rng(0).normal(scale=0.1, size=(12, 1, 1))
    rows = np.stack([np.linspace(1, 0, 5), np.linspace(0, 1, 5), np.zeros(5)]) + levels
    prompts = xr.Dataset(
        {
            "prompt_recovery": (("prompt", "row", "depth"), rows),
            "transition_layer": ("prompt", np.full(12, 2.0)),
            "routed_elsewhere": ("prompt", np.zeros(12)),
            "left_out_because": ("prompt", np.full(12, "")),
            "prompt_category": ("prompt", np.full(12, "towns")),
        },
        coords={"prompt": [f"p{i}" for i in range(12)], "row": text_coordinate(ROWS, "row", "row")},
    )
    averages = averages_of_rows(prompts, Settings(resamples=300)).assign_coords(row=prompts.row)

    measures = experiments.load("causal_trace").over_depth(averages)

    assert list(measures) == ["recovery_last", "recovery_subject"]
    last = measures["recovery_last"]
    assert last.draws.sizes == {"draw": 200, "depth": 5}
    np.testing.assert_allclose(last.draws.mean("draw"), last.value, atol=0.02)
    # A prompt's level moves all of its curve, so that every replicate of a whole curve rises as the mean does.
    np.testing.assert_allclose(last.draws.diff("depth"), 0.25)
    assert float(last.draws.std("draw").min()) > 0


def test_only_early_states_are_said_to_be_severed() -> None:
    result = _result()
    late = xr.where(result.layer == 3, 0.9, result.severed_loss)
    result["severed_loss"] = late.transpose(*result.severed_loss.dims).assign_attrs(result.severed_loss.attrs)

    assert said_of(experiments.load("causal_trace").claims(result), "severed_loss").select["layer"] == 0
