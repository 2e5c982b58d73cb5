"""The causal trace on models whose answer is known, and its sums by hand."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.planted.mover import SUBJECTS, mover, prompts_about
from layerscope.runs.noise import gaussian_noise


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return ls.run("causal_trace", mover(layer=3), prompts_about(), samples=4, progress=False)


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_finds_the_layer_whose_head_moves_the_subject(layer: int) -> None:
    result = ls.run(
        "causal_trace", mover(layer=layer), prompts_about(SUBJECTS[:4]), samples=3, progress=False
    )

    np.testing.assert_allclose(result.transition_layer, layer + 0.5, atol=1e-3)
    np.testing.assert_allclose(result.mean_transition, layer + 0.5, atol=1e-3)
    assert set(result.crossings.values) == {1.0}


def test_recovery_is_all_or_nothing_where_it_was_planted_so(trace: xr.Dataset) -> None:
    rows = trace.prompt_recovery

    np.testing.assert_allclose(rows.sel(row="noised tokens", depth=slice(0, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(rows.sel(row="noised tokens", depth=slice(4, 6)), 0, atol=1e-4)
    np.testing.assert_allclose(rows.sel(row="last token", depth=slice(0, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(rows.sel(row="last token", depth=slice(4, 6)), 1, atol=1e-4)
    np.testing.assert_allclose(rows.sel(row="other tokens"), 0, atol=1e-4)
    np.testing.assert_allclose(trace.mean_routed_elsewhere, 0, atol=1e-4)


def test_categories_that_differ_in_nothing_have_no_detectable_difference(trace: xr.Dataset) -> None:
    from layerscope.experiments import load

    claims = load("causal_trace").claims(trace)

    comparison = next(claim for claim in claims if claim.p_adjusted is not None)
    assert comparison.significant is False
    assert comparison.text.startswith("No detectable difference in crossover depth between ")


def test_categories_that_cross_at_other_layers_are_told_apart(trace: xr.Dataset) -> None:
    from layerscope.experiments import load
    from layerscope.experiments.causal_trace import conclude

    early = ls.run("causal_trace", mover(layer=1), prompts_about(), samples=4, progress=False)
    # One result out of two models: all that differs between its categories is the layer.
    samples = {"restored_log_probability", "noised_log_probability", "subject_log_probability"}
    both = {
        name: xr.where(_far(trace, name), early[name], trace[name], keep_attrs=True).rename(name)
        for name in samples
    }
    stages = {
        "clean": trace[
            [
                *("clean_log_probability", "clean_probability", "left_out_because", "answer_tokens", "note"),
                *("subject_entries", "subject_mean", "subject_squares"),
            ]
        ],
        "noised": xr.merge([both["noised_log_probability"], both["subject_log_probability"]]),
        "trace": both["restored_log_probability"].to_dataset(),
    }

    result = conclude(stages, load("causal_trace").settings(samples=4))
    comparison = next(claim for claim in load("causal_trace").claims(result) if claim.p_adjusted is not None)

    assert comparison.significant is True
    assert comparison.text.startswith(
        "Crossover comes 2 layers later for near than for far (95% CI 2 to 2, p"
    )
    assert comparison.value == pytest.approx(2.0, abs=1e-3)


def _far(trace: xr.Dataset, name: str) -> xr.DataArray:
    if name != "restored_log_probability":
        return trace.prompt_category == "far"
    return trace.token_prompt.str.startswith("far")


def test_samples_equal_a_loop_over_whole_forward_passes() -> None:
    model = mover(layer=2)
    prompt = prompts_about()[0]

    result = ls.run("causal_trace", model, [prompt], samples=2, noise=1.5, progress=False)

    ids = torch.tensor([model.tokenizer.encode(prompt["prompt"])])
    position = 3  # <bos> my friend ANNA
    answer = model.tokenizer.encode(prompt["answer"])[-1]
    noise = gaussian_noise(0, prompt=prompt["prompt"], positions=[position], samples=2, width=64, sd=1.5)
    with torch.no_grad():
        embedded = model.module.transformer.wte(ids)
        for sample in range(2):
            noised = embedded.clone()
            noised[0, position] += noise[sample, 0]
            expected = model.module(inputs_embeds=noised).logits[0, -1].softmax(-1)[answer]
            np.testing.assert_allclose(result.noised_probability[0, sample], expected, rtol=1e-4)
    assert float(result.noise_sd) == 1.5


def test_noise_in_sds_is_measured_on_the_subjects_embeddings() -> None:
    model = mover(layer=2)

    result = ls.run("causal_trace", model, prompts_about(), samples=1, noise="3sd", progress=False)

    ids = model.tokenizer.convert_tokens_to_ids(list(SUBJECTS))
    entries = model.module.transformer.wte.weight[ids]
    assert float(result.noise_sd) == pytest.approx(3 * float(entries.detach().std()), rel=1e-3)


def test_a_prompt_the_model_gets_wrong_is_left_out_and_says_why() -> None:
    prompts = prompts_about(SUBJECTS[:3])
    prompts[1]["answer"] = " pink"

    result = ls.run("causal_trace", mover(layer=2), prompts, samples=2, progress=False)

    reasons = dict(zip(result.prompt.values, result.left_out_because.values, strict=True))
    assert "the model says “blue”" in reasons["near-bert"]
    assert [name for name, reason in reasons.items() if reason] == ["near-bert"]
    assert np.isnan(result.sel(prompt="near-bert").transition_layer)
    assert int(result.sel(category="near").mean_transition_n) == 2


def test_weak_noise_leaves_prompts_out_and_counts_them() -> None:
    result = ls.run(
        "causal_trace", mover(layer=2), prompts_about(SUBJECTS[:3]), samples=2, noise=0.001, progress=False
    )

    assert all("corruption lowers the probability" in reason for reason in result.left_out_because.values)
    assert np.isnan(result.mean_transition).all()


def test_no_right_prompt_is_an_error_that_names_the_first_reason() -> None:
    wrong = [prompt | {"answer": " pink"} for prompt in prompts_about(SUBJECTS[:2])]

    with pytest.raises(LayerscopeError, match="no prompt is left to trace"):
        ls.run("causal_trace", mover(layer=2), wrong, progress=False)


def test_an_empty_answer_traces_the_models_own_and_says_so() -> None:
    own = [prompt | {"answer": ""} for prompt in prompts_about(SUBJECTS[:2])]

    result = ls.run("causal_trace", mover(layer=2), own, samples=2, progress=False)

    assert result.own.values.all()
    assert set(result.answer_text.values) == {"red", "blue"}
    np.testing.assert_allclose(result.transition_layer, 2.5, atol=1e-3)


def test_a_subject_at_the_end_is_refused_or_left_out_as_asked() -> None:
    prompts = [
        *prompts_about(SUBJECTS[:2]),
        {"id": "end", "prompt": "a coat of anna", "subject": "anna", "answer": ""},
    ]

    with pytest.raises(LayerscopeError, match="last token not corrupted"):
        ls.run("causal_trace", mover(layer=2), prompts, unfit="refuse", progress=False)
    result = ls.run("causal_trace", mover(layer=2), prompts, samples=1, progress=False)

    assert "last token not corrupted" in str(result.sel(prompt="end").left_out_because.values)
    assert result.sizes["prompt"] == 5


def test_the_log_probability_can_be_what_recovery_is_a_ratio_of() -> None:
    result = ls.run(
        "causal_trace", mover(layer=2), prompts_about(SUBJECTS[:2]), metric="log_probability", progress=False
    )

    means = result.restored_log_probability.mean("sample")
    here = result.token_prompt.values == "near-anna"
    noised = float(result.noised_log_probability.sel(prompt="near-anna").mean())
    clean = float(result.clean_log_probability.sel(prompt="near-anna"))
    np.testing.assert_allclose(
        result.recovery.values[here], (means.values[here] - noised) / (clean - noised), rtol=1e-4, atol=1e-5
    )


def test_more_samples_keep_the_first_ones() -> None:
    model = mover(layer=1)
    few, many = (
        ls.run("causal_trace", model, prompts_about(SUBJECTS[:2]), samples=n, noise=1.5, progress=False)
        for n in (2, 3)
    )

    np.testing.assert_allclose(
        many.restored_log_probability.isel(sample=slice(0, 2)),
        few.restored_log_probability,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("family", ["gptj", "bloom", "recurrent_gemma", "mistral"])
def test_any_family_is_traced_on_the_plain_path(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    prompts = [{"prompt": "the red fox met the old dog in the town of", "subject": "fox", "answer": ""}]

    result = ls.run(
        "causal_trace", model, prompts, samples=2, noise="9sd", smallest_range=1e-9, progress=False
    )

    last = result.restored_log_probability.values[-1, -1]
    np.testing.assert_allclose(last, float(result.clean_log_probability[0]), rtol=1e-4, atol=1e-4)
    before = result.restored_log_probability.values[result.position.values == 1]
    np.testing.assert_array_equal(before[0, 0], result.noised_log_probability.values[0])


def test_one_prompt_with_stars_is_traced_and_drawn() -> None:
    one = ls.trace(mover(layer=2), "my friend *gina* has a coat that is")

    assert float(one.transition_layer[0]) == pytest.approx(2.5, abs=1e-3)
    figures = ls.draw(one)
    assert next(iter(figures)) == "Which states recover the answer?"
    assert np.asarray(figures["Which states recover the answer?"].data[0].z, dtype=float).shape == (9, 7)
    assert "Every prompt" not in figures  # it would be the same


def test_half_precision_traces_too_with_its_own_rounding() -> None:
    model = ls.load_model(zoo.make("llama").to(torch.bfloat16), tokenizer=zoo.tokenizer())

    one = ls.trace(model, "the red *fox* met the old dog in", noise="9sd", smallest_range=1e-9)

    assert json.loads(one.attrs["asked"])["dtype"] == "bfloat16"
    assert one.restored_log_probability.dtype == np.float32
    last = one.restored_log_probability.values[-1, -1]
    np.testing.assert_allclose(last, float(one.clean_log_probability[0]), atol=0.05)


def test_several_noised_tokens_are_one_row_that_restores_them_together() -> None:
    # Of "anna has" the first token tells who it is: the last one alone brings little back.
    prompts = [
        {"id": subject, "prompt": f"my friend *{subject} has* a coat that is", "answer": ""}
        for subject in SUBJECTS[:3]
    ]

    result = ls.run("causal_trace", mover(layer=2), prompts, samples=3, progress=False)

    noised = result.isel(token=result.noised.values)
    assert noised.recovery[noised.token_text == "has"].max() < 0.5
    np.testing.assert_allclose(result.prompt_recovery.sel(row="noised tokens", depth=[0, 1, 2]), 1, atol=1e-4)
    np.testing.assert_allclose(result.transition_layer, 2.5, atol=1e-3)


def test_one_noised_token_gives_the_same_row_alone_and_together(trace: xr.Dataset) -> None:
    for name in trace.prompt.values:
        alone = trace.recovery[(trace.token_prompt == name).values & trace.noised.values]

        np.testing.assert_allclose(
            alone[0], trace.prompt_recovery.sel(prompt=name, row="noised tokens"), atol=1e-5
        )


def test_the_same_prompt_twice_counts_once() -> None:
    prompts = [
        prompt | {"id": f"{prompt['id']}-{copy}"} for prompt in prompts_about(SUBJECTS[:2]) for copy in "ab"
    ]

    result = ls.run("causal_trace", mover(layer=2), prompts, samples=2, progress=False)

    reasons = dict(zip(result.prompt.values, result.left_out_because.values, strict=True))
    assert reasons["near-anna-b"] == "the same prompt as near-anna-a, which would count twice"
    assert result.mean_transition_n.values.tolist() == [2, 2]


def test_noise_beyond_all_numbers_is_named() -> None:
    result = ls.run(
        "causal_trace", mover(layer=2), prompts_about(SUBJECTS[:2]), samples=1, noise=1e38, progress=False
    )

    assert set(result.left_out_because.values) == {"the model's output in the corrupted run is not finite"}


@pytest.mark.parametrize("noise", [0, -1, True, "0sd", "loud", float("inf")])
def test_noise_that_is_none_is_refused(noise: object) -> None:
    with pytest.raises(LayerscopeError, match=r"a positive number|not true or false"):
        ls.run("causal_trace", mover(layer=2), prompts_about(SUBJECTS[:2]), noise=noise, progress=False)
