"""The screen of a causal trace: estimates, exact runs of the strongest, and what is missed."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.experiments import load
from layerscope.experiments.causal_trace.measure.screen import best_scores, strongest
from layerscope.planted.mover import SUBJECTS, mover, prompts_about

PROMPTS = [
    {"id": "fox", "prompt": "the red *fox met* the old dog in the town of", "answer": ""},
    {"id": "bird", "prompt": "a small *bird* sang and the dog ran to the red town", "answer": ""},
    {"id": "stone", "prompt": "the town of *stone* and the old fox met the dog", "answer": ""},
]


def traced(model: Any, prompts: Any, **settings: Any) -> xr.Dataset:
    choices = {"samples": 2, "progress": False, "screen": True} | settings
    return ls.run("causal_trace", model, prompts, **choices)


@pytest.fixture(scope="module")
def everything() -> xr.Dataset:
    """A random model, on which every screened exchange was also run exactly."""
    return traced(
        zoo.layered("llama"),
        PROMPTS,
        noise="9sd",
        smallest_range=1e-9,
        metric="log_probability",
        confirm="all",
    )


def test_exact_effects_of_states_are_those_of_the_trace(everything: xr.Dataset) -> None:
    result = everything
    checked = 0
    nothing = result.noised_log_probability.mean("sample")
    for cell in np.flatnonzero(result.screened_site == "state"):
        name = str(result.screened_prompt.values[cell])
        row = (result.token_prompt == name) & (result.position == result.screened_position[cell])
        depth = int(result.screened_layer[cell])
        traced_value = result.restored_log_probability.mean("sample").values[row.values, depth]
        effect = float(result.screen_exact[cell].mean())
        assert effect == pytest.approx(float(traced_value[0] - nothing.sel(prompt=name)), abs=1e-4)
        checked += 1
    assert checked > 60


def test_misses_by_hand_from_the_saved_samples(everything: xr.Dataset) -> None:
    from scipy.stats import spearmanr

    result = everything
    for kind, site in (("states", "state"), ("keys", "k"), ("MLP outputs", "mlp_out")):
        for prompt in ("fox", "bird"):
            own = ((result.screened_site == site) & (result.screened_prompt == prompt)).values
            exact = np.abs(result.screen_exact.values[own].mean(axis=1))
            for method, column in (("gradients", "plain"), ("gradients, GradDrop", "dropped")):
                score = np.abs(result[f"screen_{column}"].values[own].mean(axis=1))
                best = set(np.argsort(-exact)[:10].tolist())
                missed = len(best - set(np.argsort(-score)[:10].tolist())) / 10
                here = result.sel(prompt=prompt, kind=kind, screened_by=method)
                assert float(here.prompt_screen_missed) == pytest.approx(missed)
                assert float(here.prompt_screen_order) == pytest.approx(spearmanr(exact, score)[0], abs=1e-3)


def test_screens_of_every_kind_miss_less_than_blind_draws_and_claims_say_so(everything: xr.Dataset) -> None:
    result = everything

    assert (result.screen_missed_n.sel(screened_by="gradients") == 3).all()
    assert result.screen_missed_n.sel(screened_by="gradients, patterns anew").values.tolist() == [
        0,
        0,
        0,
        0,
        3,
        3,
    ]
    assert (
        float(result.screen_missed.sel(screened_by="gradients").mean())
        < float(result.screen_chance.mean()) - 0.2
    )
    texts = [claim.text for claim in load("causal_trace").claims(result)]
    assert any(
        text.startswith("Screening by gradients misses ") and " of the 10 states of the largest" in text
        for text in texts
    )
    assert any(
        "omputing attention patterns anew" in text and " share of keys that a screen misses" in text
        for text in texts
    )
    assert {
        "Effects estimated by gradients and measured exactly",
        "Which effects does a gradient screen miss?",
    } <= set(ls.draw(result))


def test_only_the_strongest_are_confirmed_and_the_planted_key_is_among_them() -> None:
    result = traced(mover(layer=2), prompts_about(SUBJECTS[:3]), confirm=4, positions="rows")

    for site in ("state", "head_out", "k"):
        of_site = (result.screened_site == site).values
        for prompt in result.prompt.values:
            own = of_site & (result.screened_prompt == prompt).values
            assert np.isfinite(result.screen_exact.values[own]).all(axis=1).sum() == 4
    heads = (result.screened_site == "head_out").values & np.isfinite(result.screen_exact.values).all(axis=1)
    moved = heads & (result.screened_layer == 2).values & (result.screened_head == 1).values
    moved &= (result.screened_class == "last token").values
    assert moved.sum() == 6
    assert (result.screen_exact.values[moved].mean(axis=1) > 0.1).all()
    # Other kinds were not run whole, so their misses are not known; those of states are.
    assert int(result.screen_missed_n.sel(kind="heads", screened_by="gradients")) == 0
    assert int(result.screen_missed_n.sel(kind="states", screened_by="gradients")) == 6


def test_a_family_outside_the_attention_interface_is_screened_by_its_states() -> None:
    result = traced(zoo.layered("bloom"), PROMPTS[:2], noise="9sd", smallest_range=1e-9, confirm=3)

    assert "q" not in set(result.screened_site.values.tolist())
    assert int(result.screen_missed_n.sel(kind="states", screened_by="gradients")) == 2


@pytest.mark.parametrize("direction", ["restore", "corrupt"])
def test_estimates_have_the_sign_of_what_exchanges_do(direction: str) -> None:
    result = traced(
        mover(layer=1), prompts_about(SUBJECTS[:3]), direction=direction, metric="logit_difference"
    )

    last = (result.screened_site == "state").values & (result.screened_class == "last token").values
    last &= (result.screened_layer.values > 1) & np.isfinite(result.screen_exact.values).all(axis=1)
    exact, plain = (
        result.screen_exact.values[last].mean(axis=1),
        result.screen_plain.values[last].mean(axis=1),
    )
    assert last.sum() >= 12
    assert (np.sign(exact) == (1 if direction == "restore" else -1)).all()
    assert (np.sign(plain) == np.sign(exact)).all()


def test_without_a_screen_nothing_of_it_is_there() -> None:
    result = traced(mover(layer=1), prompts_about(SUBJECTS[:2]), screen=False)

    assert not any("screen" in str(name) for name in result.variables)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confirm": 0}, "at least 1"),
        ({"metric": "kl", "direction": "corrupt"}, "no gradient at the clean run"),
    ],
)
def test_choices_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LayerscopeError, match=message):
        traced(mover(layer=1), prompts_about(SUBJECTS[:2]), **settings)


def test_the_strongest_and_the_best_scores_by_hand() -> None:
    columns = {
        "plain": np.array([[1.0, -1.0], [2.0, 2.0], [3.0, np.nan]]),
        "recomputed": np.array([[5.0, 5.0], [np.nan, np.nan], [np.nan, np.nan]]),
        "dropped": np.array([[np.nan, np.nan], [np.nan, np.nan], [7.0, np.nan]]),
    }

    scores = best_scores(columns)

    np.testing.assert_allclose(scores, [5, 2, 7])
    assert strongest(np.array([0, 1, 2]), scores, 2).tolist() == [2, 0]
