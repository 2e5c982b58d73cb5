"""What final_token_attention says, from samples through its own conclusion: both ways, of nothing, of too little."""

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.final_token_attention import Settings, claims, conclude
from layerscope.experiments.final_token_attention.measure import WEIGHTINGS
from layerscope.results.escaping import stored

LAYERS, HEADS, TOKENS = 4, 2, 10
PLANTED = (2, 1)
"""The layer and head that look for the subject: positions 2 and 3."""


def _attention(
    factors: dict[str, float], *, prompts: int = 10, out: str = "", first: float = 1.0
) -> xr.Dataset:
    """Uniform attention give or take; one head gives the subject so many times as much, by category."""
    rng, parts = np.random.default_rng(0), []
    for category, factor in factors.items():
        for number in range(prompts):
            odds = np.exp(rng.normal(scale=0.05, size=(TOKENS, LAYERS, HEADS)))
            odds[0, 1] *= first
            odds[2:4, PLANTED[0], PLANTED[1]] *= factor
            parts.append((f"{category}-{number}", category, odds / odds.sum(axis=0)))
    shares = np.concatenate([share for _, _, share in parts])
    names = [name for name, _, _ in parts]
    return xr.Dataset(
        {
            "attention": (
                ("token", "weighting", "layer", "head"),
                np.stack([shares, shares], axis=1).astype(np.float32),
            ),
            "left_out_because": ("prompt", np.array([out] * len(names))),
            "value_source": ((), "written"),
        },
        coords={
            "prompt": names,
            "prompt_category": ("prompt", [category for _, category, _ in parts]),
            "token_prompt": ("token", np.repeat(names, TOKENS)),
            "noised": ("token", np.tile([2 <= place < 4 for place in range(TOKENS)], len(names))),
            "weighting": list(WEIGHTINGS),
            "layer": range(LAYERS),
        },
    )


def _result(attention: xr.Dataset, trace: xr.Dataset | None = None) -> xr.Dataset:
    stages = {"attention": attention, "trace": xr.Dataset() if trace is None else trace}
    return conclude(stages, Settings(resamples=200, permutations=499))


def _said(result: xr.Dataset, variable: str) -> list[Claim]:
    return [claim for claim in claims(result) if claim.select["variable"] == variable]


def _crossing(attention: xr.Dataset, depth: float) -> xr.Dataset:
    """A saved trace whose prompts cross over near one depth."""
    n = attention.sizes["prompt"]
    near = depth + np.random.default_rng(1).normal(scale=0.1, size=n)
    return xr.Dataset({"transition_layer": ("prompt", near)}, coords={"prompt": attention.prompt.values})


def test_a_head_that_gives_one_category_more_or_less_is_said_so() -> None:
    more, less = (
        _said(_result(_attention({"recall": a, "plain": b})), "head_difference")[0]
        for a, b in ((9, 3), (3, 9))
    )

    assert more.text.startswith(
        "L2H1 gives the corrupted tokens more attention for recall than for plain, by 0.4"
    )
    assert less.text.startswith(
        "L2H1 gives the corrupted tokens less attention for recall than for plain, by 0.4"
    )
    assert "in the natural logarithm of its share (95% CI 0.4" in less.text
    assert "p = 0.004)." in less.text
    assert more.value == pytest.approx(np.log((18 / 26) / (6 / 14)), abs=0.03)
    assert less.value == pytest.approx(-np.log((18 / 26) / (6 / 14)), abs=0.03)
    assert more.significant
    assert "significant in 1 of 8 heads" in more.caveat


def test_categories_alike_and_too_few_prompts_are_said_as_such() -> None:
    nothing = _said(_result(_attention({"recall": 9, "plain": 9})), "head_difference")[0]
    few = _said(_result(_attention({"recall": 9, "plain": 3}, prompts=3)), "head_difference")[0]

    assert nothing.text.startswith(
        "No detectable difference between recall and plain in any head's attention to the corrupted tokens ("
    )
    assert nothing.significant is False
    assert few.text.startswith(
        "Too few prompts to test the difference between recall and plain in any head's"
    )
    assert "(3 against 3; smallest possible p = 0.1" in few.text


def test_pairs_of_categories_are_corrected_for_one_another() -> None:
    two = _result(_attention({"recall": 9, "plain": 3}))
    four = _result(_attention({"recall": 9, "plain": 3, "code": 3, "song": 3}))
    cell = {"contrast": stored("recall − plain"), "kept_row": "noised tokens", "layer": 2, "head": 1}

    assert float(four.head_p_adjusted.sel(cell)) == pytest.approx(6 * float(two.head_p_adjusted.sel(cell)))
    least = four.head_difference_least_p_adjusted
    np.testing.assert_allclose(least, 6 * four.head_difference_least_p)


def _longer(factor: float, other: float) -> xr.Dataset:
    """Prompts with a subject of six tokens, and with one of two, to which one head gives so many times as much."""
    long, short = (_attention({name: times}) for name, times in (("long", factor), ("short", other)))
    noised = long.noised.values.reshape(-1, TOKENS)
    noised[:, 4:8] = True
    long = long.assign_coords(noised=("token", noised.ravel()))
    both = xr.concat([long, short], dim="prompt", data_vars="minimal", coords="minimal", compat="override")
    tokens = xr.concat(
        [long.drop_dims("prompt"), short.drop_dims("prompt")], dim="token", data_vars="minimal"
    )
    return _result(both.drop_dims("token").merge(tokens, compat="override"))


def test_a_difference_that_turns_over_uniform_attention_is_none() -> None:
    """A subject of more tokens gets more as a share, and less than its tokens are worth."""
    result = _longer(1.0, 1.5)

    assert float(result.head_difference.sel(kept_row="noised tokens", layer=2, head=1).item()) > 0.5
    np.testing.assert_array_equal(result.head_p_adjusted.sel(kept_row="noised tokens", layer=2, head=1), 1)


def test_a_difference_that_is_none_over_uniform_attention_is_not_significant_in_any_head() -> None:
    result = _longer(1.0, 1.0)

    assert (result.head_difference.sel(kept_row="noised tokens") > 0.5).all()
    assert (result.head_p_adjusted.sel(kept_row="noised tokens") > 0.05).all()


def test_the_layer_in_which_attention_to_the_subject_peaks_is_said_for_each_category() -> None:
    recall, plain = _said(_result(_attention({"recall": 9, "plain": 0.01})), "mean_spike")

    assert recall.text.startswith("The last token's attention to the corrupted tokens peaks in layer 2")
    assert "for recall" in recall.text
    assert recall.value == 2
    assert plain.value != 2


def test_attention_that_is_nowhere_above_uniform_has_no_peak() -> None:
    flat = _attention({"recall": 1})
    flat["attention"] = xr.full_like(flat.attention, 1 / TOKENS)
    said = _said(_result(flat), "mean_spike")[0]

    assert said.text == (
        "No estimate of the layer in which attention to the corrupted tokens peaks, for recall (no prompt has such a "
        "peak)."
    )


def test_the_layer_that_gives_the_first_token_most_is_named() -> None:
    most = _said(_result(_attention({"recall": 9}, first=20.0)), "overall_attention")[0]

    assert most.text.startswith("The last token gives the first token the most attention in layer 1: 68.9%")
    assert most.n == 10
    assert "best of 4, interval for all of them at once" in most.caveat


def test_where_every_prompt_is_left_out_there_is_no_estimate() -> None:
    result = _result(_attention({"recall": 9}, out="wrong"))

    assert _said(result, "overall_attention")[0].text == (
        "No estimate of the last token's attention to the first token (no prompt is left to average over)."
    )
    assert "Every prompt was left out" in result.attrs["cautions"]


def test_crossover_later_or_earlier_than_the_peak_and_at_it_is_said_so() -> None:
    attention = _attention({"recall": 9, "plain": 9}, prompts=6)
    later, earlier, same = (
        _said(_result(attention, _crossing(attention, depth)), "transition_less_spike")[0]
        for depth in (3.5, 1.0, 2.5)
    )

    assert later.text.startswith("Crossover comes 1.0")
    assert (
        "layers later than the middle of the layer in which attention to the corrupted tokens peaks"
        in later.text
    )
    assert "layers earlier than the middle of the layer" in earlier.text
    assert later.value == pytest.approx(1.0, abs=0.1)
    assert earlier.value == pytest.approx(-1.5, abs=0.1)
    assert same.text.startswith(
        "No detectable difference in depth between crossover and the peak of attention"
    )
    assert "100% of 12 prompts cross over within that layer" in same.caveat
    assert "0% of 12 prompts cross over within that layer" in later.caveat


def test_a_trace_of_few_prompts_is_said_to_be_too_few() -> None:
    attention = _attention({"recall": 9}, prompts=3)
    few = _said(_result(attention, _crossing(attention, 3.5)), "transition_less_spike")[0]

    assert few.text.startswith(
        "Too few prompts to test the difference in depth between crossover and the peak"
    )
    assert "rank correlation unknown" in few.caveat


def test_its_measure_over_depth_is_attention_to_the_subject_beside_uniform() -> None:
    result = _result(_attention({"recall": 9}))

    measured = experiments.load("final_token_attention").over_depth(result)["attention_to_corrupted"]

    np.testing.assert_allclose(measured.null, 2 / TOKENS)
    assert int(measured.value.values.argmax()) == PLANTED[0]
    assert measured.draws.sizes == {"draw": 200, "layer": LAYERS}
    np.testing.assert_allclose(measured.draws.mean("draw"), measured.value, atol=0.02)
