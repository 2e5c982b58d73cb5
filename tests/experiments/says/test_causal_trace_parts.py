"""What causal_trace says of single subject tokens, doses and screens, from samples through its own conclusions."""

import numpy as np
import pytest
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import text_coordinate
from layerscope.experiments.causal_trace import Settings
from layerscope.experiments.causal_trace.claims import components
from layerscope.experiments.causal_trace.claims import screen as screened
from layerscope.experiments.causal_trace.conclude import variants
from layerscope.experiments.causal_trace.conclude.screen import _averages
from layerscope.experiments.causal_trace.measure.screen import KINDS
from layerscope.maths.permutation import least_p_of_signs, least_p_of_splits
from turned import NAN, compares, said_of

DEPTHS, CLEAN, CORRUPTED = 9, 0.9, 0.1
SETTINGS = Settings(resamples=200, doses=(0.5, 1.0))


def _prompts(categories: list[str]) -> xr.Dataset:
    n = len(categories)
    return xr.Dataset(
        {
            "clean_log_probability": ("prompt", np.full(n, np.log(CLEAN))),
            "noised_log_probability": (("prompt", "sample"), np.full((n, 1), np.log(CORRUPTED))),
            "left_out_because": ("prompt", np.full(n, "")),
            "prompt_category": ("prompt", categories),
        },
        coords={"prompt": [f"p{i}" for i in range(n)]},
    )


def _read(recovery: np.ndarray) -> np.ndarray:
    """The log-probability, of one draw, at which recovery is this."""
    return np.log(CORRUPTED + recovery * (CLEAN - CORRUPTED))[..., None]


# -- single tokens of the subject -----------------------------------------------------------------------


def _alone(prompts: int, height: float) -> xr.Dataset:
    """Two tokens a subject; of the first, the last one restores up to `height`, give or take, at depth 4."""
    wobble = np.random.default_rng(0).normal(scale=0.02, size=(2 * prompts, 1))
    depth = np.arange(DEPTHS)
    own, last = 1.0 * (depth < 3), 1.0 * (depth > 5)
    between = height * (depth == 4)
    places = np.stack([np.broadcast_to(row, (2 * prompts, DEPTHS)) for row in (own, between, last)], axis=1)
    return xr.Dataset(
        {
            "alone_log_probability": (
                ("subject_token", "place", "depth", "sample"),
                _read(np.clip(places + wobble[:, None] * (depth == 4), -0.1, 1)),
            ),
            "alone_noised_log_probability": (
                ("subject_token", "sample"),
                np.full((2 * prompts, 1), np.log(CORRUPTED)),
            ),
        },
        coords={
            "subject_token_prompt": ("subject_token", np.repeat([f"p{i}" for i in range(prompts)], 2)),
            "subject_token_position": ("subject_token", np.tile([1, 2], prompts)),
            "place": text_coordinate(
                ("the token itself", "the subject's last token", "the last token"), "place", "place"
            ),
            "depth": depth,
        },
    )


def _one_by_one(stage: xr.Dataset) -> xr.Dataset:
    return variants.one_by_one(_prompts(["towns"] * (stage.sizes["subject_token"] // 2)), stage, SETTINGS)


def _handed(prompts: int, height: float) -> list[Claim]:
    return list(components.handover(_one_by_one(_alone(prompts, height))))


def test_a_token_whose_corruption_alone_changes_little_is_unknown() -> None:
    stage = _alone(6, 0.6)
    stage["alone_noised_log_probability"][:4] = np.log(CLEAN - 0.02)

    unknown = _one_by_one(stage).alone_recovery.isnull()

    assert unknown[:4].all()
    assert not unknown[4:].any()


def test_a_peak_is_where_most_is_restored_and_unknown_where_nothing_is() -> None:
    recoveries = np.array([[0.1, 0.3, 0.2], [-0.1, -0.2, 0.0], [NAN] * 3, [0.1, 0.2, 0.3]])

    peaks = variants._peaks(recoveries, np.array([True, True, True, False]))

    np.testing.assert_array_equal(peaks, [1, NAN, NAN, NAN])


def test_what_a_subjects_last_token_restores_of_another_is_said_with_its_depth() -> None:
    said, takes_over = _handed(12, 0.6)

    assert said.text.startswith(
        "The subject's last token brings back 59.3% of the subject's token 1 before its last at depth 4 (95% CI "
    )
    assert said.significant
    assert takes_over.text.startswith(
        "The prompt's last token takes over from the subject's token 1 before its last at depth "
    )
    assert takes_over.value == pytest.approx(
        4.0, abs=0.1
    )  # half way from where one falls to where the other rises


def test_a_subjects_last_token_that_restores_nothing_and_too_few_tokens_are_said_as_such() -> None:
    nothing, few = _handed(12, 0.0)[0], _handed(4, 0.6)[0]

    what = "recovery of the subject's token 1 before its last by the subject's last token"
    assert nothing.text.startswith(f"No detectable {what} (")
    assert few.text.startswith(f"Too few tokens to test the {what} (4 tokens; ")
    assert (nothing.significant, few.significant) == (False, False)
    assert _handed(2, 0.6) == []


# -- doses ----------------------------------------------------------------------------------------------


def _dosed(near: int, far: int, *, each: int = 8, harm: float = 0.0, turns: bool = False) -> list[Claim]:
    """Crossovers at the depths of two categories, give or take a layer, at two doses."""
    at = np.array([near] * each + [far] * each) + np.tile([0, 1], each)
    categories = ["near"] * each + ["far"] * each
    return list(components.doses(_at_doses(categories, at, at[::-1] if turns else at, harm)))


def _at_doses(categories: list[str], at: np.ndarray, other: np.ndarray, harm: float = 0.0) -> xr.Dataset:
    """Crossovers at these depths, at the first dose and at the other."""
    depth = np.arange(DEPTHS)
    rows = np.stack([[depth < place for place in places] for places in (at, other)], axis=1).astype(float)
    pair = np.stack([rows, 1 - rows], axis=2)
    stage = xr.Dataset(
        {
            "dose_log_probability": (
                ("prompt", "dose", "dose_row", "depth", "sample"),
                _read(np.where(pair == 0, -harm, pair)),
            ),
            "dose_noised_log_probability": (
                ("prompt", "dose", "sample"),
                np.full((len(at), 2, 1), np.log(CORRUPTED)),
            ),
        },
        coords={"prompt": [f"p{i}" for i in range(len(at))], "dose": [0.5, 1.0]},
    )
    return variants.doses(_prompts(categories), stage, SETTINGS)


def test_p_at_a_dose_counts_every_pair_of_categories() -> None:
    at = np.repeat([2, 4, 6], 4) + np.tile([0, 1], 6)
    found = _at_doses([name for name in ("near", "far", "other") for _ in range(4)], at, at)

    assert found.sizes["dose_contrast"] == 3
    np.testing.assert_allclose(found.dose_least_p, least_p_of_splits(4, 4))
    np.testing.assert_allclose(found.dose_least_p_adjusted, 3 * least_p_of_splits(4, 4))


def test_categories_at_every_dose_are_said_both_ways() -> None:
    earlier, later = (said_of(_dosed(*at), "dose_difference") for at in ((2, 5), (5, 2)))

    assert earlier.text.startswith(
        "Crossover comes earlier for near than for far at every dose of noise, by at least 3.0"
    )
    assert later.text.startswith(
        "Crossover comes later for near than for far at every dose of noise, by at least 3.0"
    )
    assert (earlier.significant, later.significant) == (True, True)
    assert "significant at doses: 0.5, 1" in earlier.caveat


def test_doses_that_show_nothing_and_too_few_prompts_are_said_as_such() -> None:
    nothing = said_of(_dosed(3, 3), "dose_difference")
    few = said_of(_dosed(2, 5, each=3), "dose_difference")
    unknown = said_of(_dosed(2, 5, each=1), "dose_difference")

    what = "difference in crossover depth between near and far at every dose of noise"
    assert nothing.text.startswith(f"No detectable {what} (")
    assert few.text.startswith(f"Too few prompts to test the {what} (3 against 3; smallest possible p = 0.1;")
    assert unknown.text.startswith(f"No estimate of the {what} (too few prompts cross over")
    assert not any(one.significant for one in (nothing, few, unknown))


def test_a_direction_that_changes_with_the_dose_is_said() -> None:
    assert (
        "its direction changes with the dose" in said_of(_dosed(2, 5, turns=True), "dose_difference").caveat
    )


def test_harm_is_the_share_of_patches_that_lower_the_metric() -> None:
    some, none = (said_of(_dosed(4, 4, harm=harm), "mean_dose_harmful", dose=0.5) for harm in (0.1, 0.0))

    assert some.text.startswith("At 0.5 times the noise, 50% of patches lower the answer's probability")
    assert none.text.startswith("At 0.5 times the noise, 0% of patches lower the answer's probability")


# -- screens --------------------------------------------------------------------------------------------


def _screen(change: float, *, prompts: int = 12, spread: float = 0.02) -> list[Claim]:
    return list(screened.claims(_screened(change, prompts=prompts, spread=spread)))


def _screened(change: float, *, prompts: int = 12, spread: float = 0.02, both: bool = False) -> xr.Dataset:
    """A screen of states that misses 50%, and with GradDrop `change` more, give or take."""
    wobble = np.random.default_rng(0).normal(scale=spread, size=prompts)
    missed = np.full((prompts, len(KINDS), 3), NAN)
    missed[:, 0, 0], missed[:, 0, 2] = 0.5, 0.5 + change + wobble
    missed[:, 0, 1] = 0.5 if both else NAN
    known = np.full((prompts, len(KINDS)), NAN)
    known[:, 0] = 0.8
    numbers = {"missed": missed, "order": 0 * missed + 0.7, "best_missed": 0 * missed}
    return _averages(numbers, known, known / 4, SETTINGS)


def test_p_of_a_fix_counts_every_fix_and_its_change_is_against_plain_gradients() -> None:
    one, two = _screened(-0.2), _screened(-0.2, both=True)

    np.testing.assert_allclose(one.screen_gain_least_p, least_p_of_signs(12))
    np.testing.assert_allclose(two.screen_gain_least_p, 2 * least_p_of_signs(12))
    np.testing.assert_allclose(two.screen_gain, [0, -0.2], atol=0.02)


def test_a_fix_of_a_screen_is_said_both_ways_or_not_detected_or_untested() -> None:
    fewer, more, nothing, few = (
        said_of(said, "screen_gain")
        for said in (_screen(-0.2), _screen(0.2), _screen(0.0), _screen(-0.2, prompts=4))
    )

    kind = next(iter(KINDS.values()))
    assert fewer.text.startswith(f"GradDrop lowers the share of {kind} that a screen misses by ")
    assert more.text.startswith(f"GradDrop raises the share of {kind} that a screen misses by ")
    what = f"change by GradDrop of the share of {kind} that a screen misses"
    compares(fewer, more, nothing, few, what, n="4 prompts; smallest possible p = 0.12")


def test_what_a_screen_misses_stands_beside_random_picks_and_its_error() -> None:
    said = _screen(-0.2)

    kind = next(iter(KINDS.values()))
    missed = said_of(said, "screen_missed", screened_by="gradients").text
    assert missed.startswith(
        f"Screening by gradients misses 50% of the 10 {kind} of the largest exact effect; random "
    )
    assert "random picks miss 80%" in missed
    assert said_of(said, "screen_error").text.startswith(
        f"Estimates of the {kind} that the screen picks are off by 20% of the exact effect"
    )


def test_of_several_doses_the_smallest_difference_is_the_one_that_is_said() -> None:
    dims, each = (
        ("dose", "dose_contrast"),
        {"p_adjusted": 0.001, "least_p": 1e-4, "n_first": 8, "n_second": 8},
    )
    differences = np.array([[3.0], [1.0]])
    numbers = {"difference": differences, "low": differences - 0.5, "high": differences + 0.5} | each
    result = xr.Dataset(
        {f"dose_{name}": (dims, np.broadcast_to(value, (2, 1))) for name, value in numbers.items()},
        coords={"dose": [0.5, 1.0], "dose_contrast": ["near − far"]},
    )

    said = components._at_every_dose(result, "near − far")

    assert "at every dose of noise, by at least 1.0 layers" in said.text
    assert said.select["dose"] == 1.0
