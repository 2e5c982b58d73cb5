"""What hidden_states says, from samples through its own conclusion: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.hidden_states import Settings, claims, conclude, draw
from layerscope.experiments.hidden_states.conclude.contrasts import COMPARED
from layerscope.experiments.hidden_states.measure.path import OVER_DEPTH, OVER_LAYERS, RATIOS
from layerscope.maths.max_statistic import compare_curves

LAYERS, TOKENS, WIDTH = 8, 6, 24


def _rows(n: int, rng: np.random.Generator, wobble: np.ndarray, **levels: Any) -> dict[str, np.ndarray]:
    """Every quantity at its level, give or take what is each text's own; levels by name, over depth or layer."""
    found = {}
    for name in (*OVER_DEPTH, *OVER_LAYERS):
        long = LAYERS + (name in OVER_DEPTH)
        level = np.broadcast_to(levels.get(name, 1.0 if name in RATIOS else 0.0), (n, long))
        found[name] = level * (1 + wobble) if name in RATIOS else level + wobble
    return found


def _axes() -> dict[str, Any]:
    return {"depth": np.arange(LAYERS + 1), "other_depth": np.arange(LAYERS + 1), "layer": np.arange(LAYERS)}


def _passages(n: int = 8, *, rate: float = 0.0, first: float = 1.0, **levels: Any) -> xr.Dataset:
    """Passages whose states grow at a rate, with first tokens so many times as long."""
    rng, rows, names = np.random.default_rng(0), n * TOKENS, [f"p{i}" for i in range(n)]
    wobble = 0.01 * rng.normal(size=(n, 1)).repeat(TOKENS, axis=0)
    grown = (1 + rate + wobble) ** np.arange(LAYERS + 1)
    at_first = np.tile(np.arange(TOKENS) == 0, n)[:, None]
    values = _rows(rows, rng, wobble, **({"massive_share": _chance()} | levels))
    values["norm"] = grown * np.where(at_first, first * (1 + 3 * wobble), 1.0)
    pairs = np.ones((n, LAYERS + 1, LAYERS + 1))
    variables = {
        name: (("token", "depth" if name in OVER_DEPTH else "layer"), value) for name, value in values.items()
    }
    variables |= {
        name: (("sampled", "depth", "other_depth"), pairs, {"long_name": name})
        for name in ("pair_cosine", "pair_cosine_centred")
    }
    return xr.Dataset(
        variables | {"dependence": (("passage", "depth", "other_depth"), pairs)},
        coords={
            "token_passage": ("token", np.repeat(names, TOKENS)),
            "token_category": ("token", ["word"] * rows),
            "position": ("token", np.tile(np.arange(TOKENS), n)),
            "sampled_passage": ("sampled", names),
            "passage": names,
            **_axes(),
        },
    )


def _prompts(sizes: tuple[int, ...] = (8, 8, 8), **apart: float) -> xr.Dataset:
    """Prompts of some categories; the first is apart from the others in some quantities at layer 3."""
    rng, n = np.random.default_rng(1), sum(sizes)
    of_first = (np.arange(n) < sizes[0])[:, None] * (np.arange(LAYERS) == 3)
    levels = {name: of_first * value for name, value in apart.items()}
    if "relative_step" in apart:
        levels["relative_step"] = np.exp(levels["relative_step"])
    values = _rows(n, rng, 0.05 * rng.normal(size=(n, 1)), **levels)
    return xr.Dataset(
        {
            f"prompt_{name}": (("prompt", "depth" if name in OVER_DEPTH else "layer"), value)
            for name, value in values.items()
        }
        | {"answer_rank": ("prompt", np.ones(n, dtype=int))},
        coords={
            "prompt": [f"q{i}" for i in range(n)],
            "prompt_category": ("prompt", np.repeat(["a", "b", "c"][: len(sizes)], sizes)),
            **_axes(),
        },
    )


def _centre() -> xr.Dataset:
    squares = np.ones((LAYERS + 1, WIDTH))
    return xr.Dataset(
        {"sum": (("depth", "width"), squares), "squares": (("depth", "width"), squares), "count": 1.0}
    )


def _concluded(passages: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    few = Settings(resamples=200, phase_resamples=20)
    return conclude({"passages": passages, "prompts": prompts, "centre": _centre()}, few)


def _chance() -> float:
    from layerscope.experiments.hidden_states.conclude import _expected_share

    return _expected_share(WIDTH, Settings().massive, Settings().seed)


def _said(variable: str, **how: Any) -> Claim:
    result = _concluded(_passages(**how), xr.Dataset())
    return next(claim for claim in claims(result) if claim.select["variable"] == variable)


AT_5 = np.where(np.arange(LAYERS) == 5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("variable", "one", "other", "none", "says", "opposite", "nothing"),
    [
        ("growth_rate", {"rate": 0.05}, {"rate": -0.05}, {},
         "From depth 1 to 7, the residual stream grows by ", "the residual stream shrinks by ",
         "growth of the residual stream from depth 1 to 7"),
        ("first_token_length", {"first": 3.0}, {"first": 0.5}, {"first": 1.002},
         "the first token's state is longer than later ones': 3.0", "is shorter than later ones': 0.5",
         "difference in length between the first token's state and later ones'"),
        ("step_along_state", {"step_direction": 0.4 * AT_5}, {"step_direction": -0.4 * AT_5}, {},
         "Layer 5's step goes along the state before it: cosine 0.4",
         "Layer 5's step goes against the state before it: cosine −0.39",
         "direction of any layer's step along the state before it or against it"),
        ("attention_part", {"attention_share": 0.5 + 0.3 * AT_5}, {"attention_share": 0.5 - 0.3 * AT_5},
         {"attention_share": 0.5}, "Attention writes the larger part of layer 5's step: 80.",
         "Attention writes the smaller part of layer 5's step: 20.",
         "difference between attention's and the MLP's part of any layer's step"),
        ("largest_entries", {"massive_share": 0.9}, {"massive_share": 0.05}, {},
         "the 3 largest entries of a state hold 90.", "squared norm, less than",
         "excess of the 3 largest entries of a"),
    ],
)  # fmt: skip
def test_each_direction_nothing_and_too_little(
    variable: str,
    one: dict[str, Any],
    other: dict[str, Any],
    none: dict[str, Any],
    says: str,
    opposite: str,
    nothing: str,
) -> None:
    said, turned, null, few = (_said(variable, **how) for how in (one, other, none, one | {"n": 4}))

    assert says in said.text
    assert opposite in turned.text
    assert "(95% CI " in said.text
    flags = (said.significant, turned.significant, null.significant, few.significant)
    assert flags == (True, True, False, False)
    assert null.text.startswith(f"No detectable {nothing}")
    assert few.text.startswith(f"Too few passages to test the {nothing}")
    assert said.untrained is not None


def test_the_number_in_a_sentence_is_its_value() -> None:
    said = _said("first_token_length", first=3.0)

    assert said.value is not None
    assert said.low is not None
    assert said.high is not None
    assert said.value == pytest.approx(3.0, rel=0.05)
    assert said.low < said.value < said.high
    assert f"{said.value:.2f} times" in said.text


def test_layers_on_either_side_are_those_whose_joint_interval_is() -> None:
    direction = np.where(np.arange(LAYERS) < 2, -0.3, np.where(np.arange(LAYERS) > 5, 0.5, 0.0))

    said = _said("step_along_state", step_direction=direction)

    assert "significantly along in layers 6 and 7, against in layers 0 and 1; best of 8" in said.caveat


def test_phases_are_said_or_not_or_untested() -> None:
    stairs = np.where(np.arange(LAYERS) < 4, 1.0, 5.0)
    levels = dict.fromkeys(
        ("relative_step", "step_direction", "attention_direction", "mlp_direction"), stairs
    )

    said, null = _said("phase_begins", **levels), _said("phase_better")
    few = _said("phase_better", n=4, **levels)

    assert said.text.startswith("A phase begins at layer 4 (95% CI 4 to 4, p < 0.005)")
    assert said.significant
    assert null.text.startswith("No detectable phases beyond a smooth drift over layers")
    assert few.text.startswith(
        "Too few passages to test the phases beyond a smooth drift over layers (4 passages"
    )


def _pair(*sizes: int, **apart: float) -> Claim:
    result = _concluded(xr.Dataset(), _prompts(sizes or (8, 8, 8), **apart))
    return next(claim for claim in claims(result) if claim.select["variable"] == "contrast_difference")


def test_categories_are_apart_with_a_direction_or_not_or_too_few() -> None:
    higher, lower = _pair(turn=0.5), _pair(turn=-0.5)
    nothing, few, single = _pair(), _pair(3, 3, 3, turn=0.5), _pair(1, 8, 8)

    what = "cosine between a layer's step and the step before it is 0."
    assert higher.text.startswith(f"The {what}")
    assert " higher at the last token in layer 3 for a than for b (p" in higher.text
    assert " lower at the last token in layer 3 for a than for b (p" in lower.text
    assert higher.significant
    assert lower.significant
    assert nothing.text.startswith("No detectable difference between a and b along the path, in any layer (")
    assert few.text.startswith(
        "Too few prompts to test the difference between a and b along the path, in any layer"
    )
    assert "smallest possible p = 0.1, adjusted 0.3;" in few.text
    assert single.text.startswith("No estimate of the difference between a and b along the path")


def test_lengths_and_ratios_are_compared_as_logarithms_and_said_so() -> None:
    said = _pair(relative_step=0.7)

    assert said.text.startswith("The logarithm of the length of a layer's step over that of the state is 0.")
    assert said.value == pytest.approx(0.7, abs=0.1)


def test_p_of_a_pair_counts_every_pair_of_categories() -> None:
    prompts = _prompts(turn=0.05)
    prompts["prompt_norm"][:8] *= np.linspace(1, 1.1, LAYERS + 1)
    cells = np.stack(
        [
            np.log(values) if name in RATIOS else values
            for name in COMPARED
            for values in [prompts[f"prompt_{name}"].values[:, 1 if name == "norm" else 0 :]]
        ],
        axis=1,
    )

    result = _concluded(xr.Dataset(), prompts)

    found = compare_curves(cells[:8], cells[8:16], seed=0)
    np.testing.assert_allclose(result.contrast_difference[0], found.difference)
    alone = found.p
    assert ((alone > 0.001) & (alone < 0.3)).any()
    np.testing.assert_allclose(result.contrast_p[0], np.minimum(1, 3 * alone))


def test_kernel_alignment_averages_over_passages_before_the_ratio() -> None:
    passages, shape = _passages(), (8, LAYERS + 1, LAYERS + 1)
    tables = np.random.default_rng(3).uniform(0.2, 1, size=shape)
    tables = tables + tables.transpose(0, 2, 1) + 2 * np.eye(LAYERS + 1)
    passages["dependence"] = (("passage", "depth", "other_depth"), tables)

    found = _concluded(passages, xr.Dataset()).alignment

    mean = tables.mean(axis=0)
    np.testing.assert_allclose(found, mean / np.sqrt(np.outer(np.diag(mean), np.diag(mean))))


def test_passages_and_prompts_have_figures_and_measures_with_replicates() -> None:
    result = _concluded(_passages(rate=0.05), _prompts())
    measures = experiments.load("hidden_states").over_depth(result)

    assert all(figure.data for figure in draw(result).values())
    assert list(measures) == ["log_relative_step", "step_along_state", "attention_part"]
    for one in measures.values():
        assert one.draws.sizes == {"draw": 200, "layer": LAYERS}
    older = result.drop_vars([name for name in result.data_vars if str(name).startswith("log_relative_step")])
    np.testing.assert_allclose(
        experiments.load("hidden_states").over_depth(older)["log_relative_step"].value,
        measures["log_relative_step"].value,
        atol=1e-12,
    )
