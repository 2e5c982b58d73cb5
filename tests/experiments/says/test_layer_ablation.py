# ruff: noqa: E501
"""What layer_ablation says, from samples through its own conclusion: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.layer_ablation import Settings, claims, conclude, draw
from layerscope.experiments.layer_ablation.conclude import LATER, curve

LAYERS, TOKENS = 6, 8
ABLATIONS = ("skip", "skip earlier", "mean MLP", "random push")


def _ablated(
    n: int = 8, *, skip: float = 1.0, push: float = 1.0, early: tuple[float, ...] = ()
) -> xr.Dataset:
    """Harm of skips and pushes in layer 2, 0.01 nats elsewhere, and of skips at earlier tokens by layer; give or take."""
    rng, rows = np.random.default_rng(0), n * TOKENS
    wobble = np.exp(0.1 * rng.normal(size=(n, len(ABLATIONS), LAYERS))).repeat(TOKENS, axis=0)
    harm = np.full((len(ABLATIONS), LAYERS), 0.01)
    harm[0, 2], harm[3, 2] = skip, push
    harm[1] = [*early, *[0.0] * (LAYERS - len(early))]
    kl = (harm * wobble).astype(np.float32)
    later = np.tile(np.arange(TOKENS) >= TOKENS // 2, n)
    kl[~later, 1] = np.nan
    same = np.where(kl > 0.5, 0.0, 1.0)
    dims = ("token", "ablation", "layer")
    return xr.Dataset(
        {
            "kl": (dims, kl),
            "same_top": (dims, same),
            "loss_increase": (dims, kl),
            "later": ("token", later),
        },
        coords={
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(n)], TOKENS)),
            "token_category": ("token", ["word"] * rows),
            "position": ("token", np.tile(np.arange(TOKENS), n)),
            "passage": [f"p{i}" for i in range(n)],
            "ablation": list(ABLATIONS),
            "layer": np.arange(LAYERS),
        },
    )


def _concluded(**how: Any) -> xr.Dataset:
    return conclude({"ablations": _ablated(**how)}, Settings(resamples=200))


def _said(variable: str, **how: Any) -> Claim:
    return next(claim for claim in claims(_concluded(**how)) if claim.select["variable"] == variable)


def test_a_skip_does_more_or_less_harm_than_a_push_or_no_other_or_is_untested() -> None:
    more, less = _said("excess", skip=1.5, push=0.5), _said("excess", skip=0.5, push=1.0)
    nothing, few = _said("excess", skip=0.01, push=0.01), _said("excess", n=4, skip=1.5, push=0.5)

    assert more.text.startswith("Skipping layer 2 changes predictions by 1.0")
    assert " nats more than an equally long random push (95% CI " in more.text
    assert less.text.startswith("Skipping layer 2 changes predictions by 0.5")
    assert " nats less than an equally long random push (95% CI 0." in less.text
    assert more.value is not None
    assert less.value is not None
    assert more.value > 0 > less.value
    assert "significantly more in layer 2, less in no layer" in more.caveat
    assert "significantly more in no layer, less in layer 2" in less.caveat
    assert nothing.text.startswith(
        "No detectable difference between skipping a layer and an equally long random push ("
    )
    assert few.text.startswith(
        "Too few passages to test the difference between skipping a layer and an equally long"
    )
    assert (more.significant, less.significant, nothing.significant, few.significant) == (
        True,
        True,
        False,
        False,
    )


def test_the_last_layer_that_serves_later_tokens_is_said_or_none_or_untested() -> None:
    early = (0.5, 0.2, 0.0, 0.1, 0.0005)

    said, nothing, few = (
        _said("later_use", **how) for how in ({"early": early}, {}, {"early": early, "n": 4})
    )

    assert said.text.startswith(
        "The last layer whose work at earlier tokens is used at later ones is layer 3 of 6: skipping it there costs 0.09"
    )
    assert said.significant
    assert nothing.text.startswith(
        "No detectable use at later tokens of any layer's work at earlier ones (0 nats"
    )
    assert few.text.startswith(
        "Too few passages to test the use at later tokens of any layer's work at earlier ones"
    )
    assert (nothing.significant, few.significant) == (False, False)


def test_the_most_harmful_layer_is_said_with_its_interval_and_the_least_with_its_own_digits() -> None:
    said = _said("mean_kl", skip=2.0)

    assert said.text.startswith(
        "Skipping layer 2 changes predictions most of all layers: 0% of first choices stay, a divergence of 2.0"
    )
    assert " nats (95% CI 1." in said.text
    assert "(0.0093 nats); best of 6" in said.caveat
    assert said.caveat.endswith("layers of fresh weights change predictions too")
    assert "interval for all of them at once" in said.caveat


def test_what_later_tokens_lose_is_averaged_over_later_tokens_alone() -> None:
    ablated = _ablated()
    early = ~ablated.later.values
    ablated["kl"][early] = 9.0

    result = conclude({"ablations": ablated}, Settings(resamples=50))

    here = ablated.kl.values[~early, 0].astype(float).reshape(8, -1, LAYERS).mean(axis=(0, 1))
    np.testing.assert_allclose(curve(result, "skip", group=LATER).value, here)


def test_layers_that_make_no_difference_are_counted_by_the_upper_ends() -> None:
    result = _concluded(early=(0.5, 0.2, 0.0, 0.1, 0.0005))

    count = result.inert_layers.sel(ablation=["skip", "skip earlier"])
    assert count.values.tolist() == [0, 3]
    assert float(result.inert_layer.sel(ablation="skip earlier")) == 2


def test_figures_are_drawn_and_measures_have_replicates() -> None:
    result = _concluded(early=(0.5,))
    measures = experiments.load("layer_ablation").over_depth(result)

    assert all(figure.data for figure in draw(result).values())
    assert list(measures) == ["harm", "later_use"]
    for one in measures.values():
        assert one.draws.sizes == {"draw": 200, "layer": LAYERS}
    np.testing.assert_allclose(measures["harm"].value, np.log10(result.mean_kl.sel(ablation="skip")))
    np.testing.assert_allclose(measures["harm"]["null"], np.log10(result.mean_kl.sel(ablation="random push")))
