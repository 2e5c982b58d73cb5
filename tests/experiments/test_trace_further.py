"""What a causal trace measures beside its rows: windows, severing, heads, corruptions, metrics, doses."""

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.experiments import load
from layerscope.experiments.causal_trace.conclude.variants import _peaks
from layerscope.experiments.causal_trace.items.kept import noise_sd
from layerscope.experiments.causal_trace.measure.tokens import token_class
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.planted.mover import ANSWERS, SUBJECTS, mover, prompts_about
from layerscope.planted.stored_fact import stored_fact
from layerscope.runs.noise import matched_noise, uniform_noise
from layerscope.text.prompts import load_prompts
from layerscope.text.tokenised import tokenise_prompt

SUBJECT, LAST = "last subject token", "last token"


def traced(model: object, prompts: object, **settings: object) -> xr.Dataset:
    return ls.run(
        "causal_trace", model, prompts, **({"samples": 2, "resamples": 50, "progress": False} | settings)
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stored_in_an_mlp() -> xr.Dataset:
    prompts = prompts_about(SUBJECTS[:6])
    return traced(
        stored_fact(mlp=1, mover=3, n_layers=5), prompts, window=1, heads=True, outputs="all", severed=True
    )


def test_the_mlp_that_stores_the_fact_and_the_head_that_moves_it_are_found(
    stored_in_an_mlp: xr.Dataset,
) -> None:
    recovered = stored_in_an_mlp.output_recovery

    at_subject = recovered.sel(site="mlp_out", token_class_name=SUBJECT).values
    at_end = recovered.sel(site="attn_out", token_class_name=LAST).values
    # Not all of it: the subject's own state stays noised, and the norm before the head sees that.
    assert at_subject[1] > 0.5
    np.testing.assert_allclose(np.delete(at_subject, 1), 0, atol=1e-3)
    np.testing.assert_allclose(at_end, [0, 0, 0, 1, 0], atol=1e-3)
    assert set(stored_in_an_mlp.window_peak.sel(site="mlp_out").values.tolist()) == {1.0}
    elsewhere = recovered.sel(token_class_name=["first token after", "further tokens"]).values
    np.testing.assert_allclose(elsewhere, 0, atol=1e-3)


def test_a_state_before_the_mlp_works_through_it_and_one_behind_it_does_not(
    stored_in_an_mlp: xr.Dataset,
) -> None:
    lost = stored_in_an_mlp.severed_loss.sel(token_class_name=SUBJECT)

    np.testing.assert_allclose(lost.sel(site="mlp_out", layer=[0, 1]), 1, atol=1e-3)
    np.testing.assert_allclose(lost.sel(site="mlp_out", layer=[2, 3, 4]), 0, atol=1e-3)
    np.testing.assert_allclose(lost.sel(site="attn_out"), 0, atol=1e-3)


def test_the_one_head_that_moves_is_found(stored_in_an_mlp: xr.Dataset) -> None:
    heads = stored_in_an_mlp.head_recovery.sel(token_class_name=LAST).values

    expected = np.zeros_like(heads)
    expected[3, 1] = 1
    np.testing.assert_allclose(heads, expected, atol=1e-3)

    p = stored_in_an_mlp.head_p.sel(token_class_name=LAST).values
    assert p[3, 1] == 2 / 2**12  # of all deals of signs to twelve prompts two are as large as what was seen
    assert (p[expected == 0] > 0.05).all()
    texts = [claim.text for claim in load("causal_trace").claims(stored_in_an_mlp)]
    assert any(
        text.startswith("L3H1 restores most of all single heads at the last token: 100% of the answer")
        for text in texts
    )


def test_averages_stand_by_category_too(stored_in_an_mlp: xr.Dataset) -> None:
    """Six prompts of each of two categories: the mean over all is the mean of theirs, and each is its own."""
    for name in ("output_recovery", "severed_loss", "head_recovery"):
        apart = stored_in_an_mlp[f"category_{name}"]
        assert set(stored_in_an_mlp[f"category_{name}_n"].sel(token_class_name=LAST).values.flat) <= {0, 6}
        np.testing.assert_allclose(apart.mean("category", skipna=False), stored_in_an_mlp[name], atol=1e-6)


def test_claims_name_what_was_planted(stored_in_an_mlp: xr.Dataset) -> None:
    texts = [claim.text for claim in load("causal_trace").claims(stored_in_an_mlp)]

    for begin in (
        "Restoring MLPs at the last subject token brings back most round layer 1: ",
        "Restoring attention at the last token brings back most round layer 3: 100% of the answer",
        "No detectable change of what the subject's early states bring back by severing its own later attention",
    ):
        assert any(text.startswith(begin) for text in texts), begin
    lost = next(
        text
        for text in texts
        if text.startswith("Severing the subject's own later MLPs lowers what its state")
    )
    assert "brings back by 99.9 percentage points" in lost


def test_effects_are_means_of_differences_by_hand(stored_in_an_mlp: xr.Dataset) -> None:
    result = stored_in_an_mlp
    noised = np.exp(result.noised_log_probability).mean("sample")
    total = (result.clean_probability - noised).mean()
    np.testing.assert_allclose(result.total_effect, total, rtol=1e-5)
    at_last = np.exp(result.restored_log_probability).mean("sample").values[result.token_class == LAST]
    indirect = (at_last - noised.values[:, None]).mean(axis=0)
    np.testing.assert_allclose(
        result.indirect_effect.sel(token_class_name=LAST), indirect, rtol=1e-4, atol=1e-6
    )


def test_figures_hold_the_further_conclusions(stored_in_an_mlp: xr.Dataset) -> None:
    figures = ls.draw(stored_in_an_mlp)

    assert {
        "Indirect effect by class of token",
        "Recovery by attention and MLPs",
        "Recovery lost by severing MLPs or attention",
        "Recovery by single heads",
        "At which depths do categories differ?",
    } <= set(figures)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"corruption": "replace", "samples": 3}, "replaced"),
        ({"corruption": "covariance"}, "matched"),
        ({"corruption": "uniform", "noise": "5sd"}, "uniform"),
        ({"direction": "corrupt"}, "corrupted"),
        ({"positions": "rows"}, "rows"),
        ({"metric": "kl"}, "kl"),
        ({"metric": "logit_difference"}, "logits"),
        ({"metric": "log_probability", "answer": "all"}, "all"),
    ],
)
def test_every_choice_finds_the_planted_layer(settings: dict[str, object], word: str) -> None:
    result = traced(mover(layer=2), prompts_about(SUBJECTS[:5]), **settings)

    np.testing.assert_allclose(result.mean_transition, 2.5, atol=0.02)
    assert int(result.mean_transition_n.sum()) == 10


def test_branches_and_the_plain_path_give_the_same_trace() -> None:
    prompts = [{"prompt": "the red *fox met* the old dog in the town of", "answer": ""}]
    choices = {
        "noise": "9sd",
        "smallest_range": 1e-9,
        "heads": True,
        "outputs": "all",
        "severed": True,
        "one_by_one": True,
        "doses": (0.5,),
    }
    fast, whole = zoo.layered("gemma2", flipped=True), zoo.layered("gemma2", flipped=True)
    whole.checks.append(
        {"name": "branches equal whole forward passes", "holds": False, "detail": "for the test"}
    )
    whole.refused["branches"] = "for the test"

    results = [traced(model, prompts, **choices) for model in (fast, whole)]

    names = [name for name in results[0].data_vars if str(name).endswith("log_probability")]
    assert len(names) >= 9
    for name in names:
        np.testing.assert_allclose(
            np.exp(results[0][name]), np.exp(results[1][name]), atol=1e-5, err_msg=str(name)
        )


def test_corrupting_is_restoring_with_the_runs_exchanged() -> None:
    """By hand: a noised state in the clean run, through whole forward passes."""
    model = mover(layer=2)
    result = traced(model, prompts_about(SUBJECTS[:2]), direction="corrupt", samples=1, noise=1.5)

    own = result.token_prompt.values == "near-anna"
    rows = result.recovery.values[own]
    noised = np.flatnonzero(result.noised.values[own])[0]
    np.testing.assert_allclose(
        rows[noised, :3], 1, atol=1e-4
    )  # the noised state alone loses all that noise loses
    np.testing.assert_allclose(rows[noised, 3:], 0, atol=1e-4)
    np.testing.assert_allclose(rows[-1, 3:], 1, atol=1e-4)


def test_divergence_and_logit_difference_equal_whole_forward_passes() -> None:
    model = mover(layer=2)
    prompt = prompts_about(SUBJECTS[:2])[0]
    ids = torch.tensor([model.tokenizer.encode(prompt["prompt"])])
    answer, rival = (model.tokenizer.encode(word)[-1] for word in ANSWERS[:2])
    partner = ids.clone()
    partner[0, 3] = model.tokenizer.encode(SUBJECTS[1])[-1]
    with torch.no_grad():
        clean, other = (model.module(row).logits[0, -1] for row in (ids, partner))

    settings = {"corruption": "replace", "samples": 1}
    prompts = [prompt | {"partner": SUBJECTS[1]}, *prompts_about(SUBJECTS[:2])[1:2]]
    kl = traced(model, prompts, metric="kl", **settings)
    difference = traced(model, prompts, metric="logit_difference", rival=ANSWERS[1], **settings)

    p, q = clean.log_softmax(-1), other.log_softmax(-1)
    np.testing.assert_allclose(kl.noised_metric[0, 0], -float((p.exp() * (p - q)).sum()), rtol=1e-4)
    np.testing.assert_allclose(
        difference.clean_answer_metric[0], float(clean[answer] - clean[rival]), rtol=1e-4
    )
    np.testing.assert_allclose(difference.noised_metric[0, 0], float(other[answer] - other[rival]), rtol=1e-4)


def test_a_partner_of_other_length_leaves_the_prompt_out_and_says_why() -> None:
    prompts = prompts_about(SUBJECTS[:3])
    prompts[0]["partner"] = "anna gina"

    result = traced(mover(layer=2), prompts, corruption="replace")

    assert "makes 9 tokens of the prompt, not 8" in str(result.left_out_because.values[0]) or (
        "tokens of the prompt" in str(result.left_out_because.values[0])
    )
    assert (result.left_out_because.values[1:] == "").all()


def test_a_function_of_ones_own_can_be_the_metric_and_must_be_registered() -> None:
    model, prompts = mover(layer=1), prompts_about(SUBJECTS[:4])
    answers = [model.tokenizer.encode(word)[-1] for word in ANSWERS]

    with pytest.raises(LayerscopeError, match="own:colours is not known"):
        traced(model, prompts, metric="own:colours")
    ls.metric("colours", lambda logits: logits[:, answers].max(dim=-1).values)
    result = traced(model, prompts, metric="own:colours", smallest_range=0.01)
    ls.metric("colours", lambda logits: logits)

    assert "restored_metric" in result
    with pytest.raises(LayerscopeError, match="gave the wrong shape"):
        traced(model, prompts, metric="own:colours")


def test_answers_of_several_tokens_are_read_by_teacher_forcing() -> None:
    model = zoo.layered("llama")
    prompt = {"prompt": "the red *fox* met the red bird", "answer": " town of", "id": "a"}
    tokenised = tokenise_prompt(model.tokenizer, load_prompts([prompt])[0])
    first = int(model.logits(torch.tensor([tokenised.tokens.ids]), last=True)[0, -1].argmax())
    answer = model.tokenizer.decode([first]) + " of"
    tokenised = tokenise_prompt(model.tokenizer, load_prompts([prompt | {"answer": answer}])[0])
    assert tokenised.answer_ids[0] == first
    assert len(tokenised.answer_ids) == 2

    result = traced(
        model,
        [prompt | {"answer": answer}],
        answer="all",
        noise="9sd",
        smallest_range=1e-12,
        metric="log_probability",
    )

    ids = [*tokenised.tokens.ids, *tokenised.answer_ids]
    log_probabilities = model.logits(torch.tensor([ids]))[0].float().log_softmax(-1)
    start = len(tokenised.tokens.ids) - 1
    expected = sum(float(log_probabilities[start + i, token]) for i, token in enumerate(tokenised.answer_ids))
    np.testing.assert_allclose(result.clean_answer_log_probability[0], expected, rtol=1e-4)


def test_the_tokens_of_a_subject_hand_over_one_by_one() -> None:
    prompts = [
        {"id": subject, "prompt": f"my friend *{subject} has* a coat that is", "answer": ""}
        for subject in SUBJECTS[:4]
    ]

    result = traced(mover(layer=2), prompts, one_by_one=True, samples=3)

    tells = result.tokens_to_subject_end.values == 1  # the name; the token after it says nothing
    own = result.alone_recovery.sel(place="the token itself").values[tells]
    np.testing.assert_allclose(own[:, 0], 1, atol=1e-3)
    np.testing.assert_allclose(result.handover.sel(handed_to="the last token").values[tells], 2.5, atol=0.02)
    assert np.isnan(result.handover.values[~tells]).all()
    means = result.mean_alone_recovery.sel(subject_end_distance=1)
    np.testing.assert_allclose(means.sel(place="the token itself"), own.mean(0), atol=1e-6)
    assert "Recovery with one subject token corrupted" in load("causal_trace").draw(result)


def test_the_peak_of_a_subject_token_by_hand() -> None:
    recoveries = np.array([[0.1, 0.7, 0.2], [-0.1, -0.2, -0.3], [np.nan, 0.1, 0.3], [0.5, 0.1, 0.0]])
    counted = np.array([True, True, True, False])

    found = _peaks(recoveries, counted)

    # Row 1 brings nothing back, so it has no peak; row 3 does not count.
    np.testing.assert_array_equal(found, [1, np.nan, 2, np.nan])


def test_doses_find_the_same_layer_and_count_what_is_left() -> None:
    result = traced(mover(layer=2), prompts_about(SUBJECTS[:4]), doses=[0.01, 1, 2], noise=2.0)

    assert int(result.dose_used[0]) == 0
    np.testing.assert_allclose(result.dose_transition.sel(dose=[1, 2]), 2.5, atol=0.02)
    np.testing.assert_allclose(result.mean_dose_harmful.sel(dose=1), 0, atol=1e-6)


def test_a_window_round_a_block_as_in_the_code_and_in_the_paper() -> None:
    code, paper = Settings(window=10), Settings(window=10, alignment="paper")

    assert code.blocks_round(20, 48) == tuple(range(15, 25))
    assert paper.blocks_round(20, 48) == tuple(range(16, 26))
    assert code.blocks_round(2, 48) == tuple(range(7))
    assert Settings(window=1).blocks_round(47, 48) == (47,)
    assert Settings().window_of(48) == 10


def test_romes_classes_of_tokens() -> None:
    prompt = tokenise_prompt(zoo.tokenizer(), load_prompts("the *red fox met the* old dog in the town")[0])
    first, last = prompt.noised[0], prompt.noised[-1]

    classes = [token_class(prompt, position) for position in range(prompt.n_tokens)]

    assert classes[0] == "before the subject"
    assert classes[first] == "first subject token"
    assert set(classes[first + 1 : last]) == {"middle subject tokens"}
    assert classes[last : last + 2] == ["last subject token", "first token after"]
    assert set(classes[last + 2 : -1]) == {"further tokens"}
    assert classes[-1] == "last token"


def test_covariance_matched_noise_has_the_covariance_and_uniform_noise_the_reach() -> None:
    vectors = torch.tensor([[2.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, 5.0], [3.0, 3.0, 3.0]])

    noise = matched_noise(0, prompt="a", positions=[1, 2], samples=4000, vectors=vectors, factor=2.0)
    flat = uniform_noise(0, prompt="a", positions=[1], samples=500, width=8, reach=1.5)

    np.testing.assert_allclose(
        torch.cov(noise.reshape(-1, 3).T), 4 * torch.cov(vectors.T), rtol=0.1, atol=0.5
    )
    assert 1.45 < float(flat.abs().max()) <= 1.5
    assert abs(float(flat.std()) - 1.5 / 3**0.5) < 0.03


def test_the_size_of_covariance_matched_noise_is_a_factor() -> None:
    assert noise_sd(xr.Dataset(), Settings(corruption="covariance")) == 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "guess"}, "one of probability"),
        ({"metric": "group:a"}, "needs a group of that name"),
        ({"corruption": "covariance", "noise": 0.5}, "measured in SDs"),
        ({"corruption": "replace", "doses": [2]}, "has no dose"),
        ({"doses": [0]}, "positive factors"),
    ],
)
def test_choices_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LayerscopeError, match=message):
        traced(mover(layer=1), prompts_about(SUBJECTS[:2]), **settings)


def test_matched_pairs_are_compared_within_pairs() -> None:
    prompts = prompts_about(SUBJECTS[:4])
    for subject in SUBJECTS[:4]:
        for kind, other in (("near", "far"), ("far", "near")):
            next(p for p in prompts if p["id"] == f"{kind}-{subject}")["pair"] = f"{other}-{subject}"

    result = traced(mover(layer=2), prompts)

    assert int(result.paired_difference_n[0]) == 4
    np.testing.assert_allclose(result.paired_difference, 0, atol=1e-3)
    assert any("within matched pairs" in claim.text for claim in load("causal_trace").claims(result))
