"""logit_lens: what it concludes of readings that tests/runs/test_lens.py checks against a computation by hand."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments.logit_lens.conclude import curve
from layerscope.maths.leading import settled

TEXTS = [
    "the red fox met the old dog in the town, and the dog ran.",
    "a small bird sang and the dog ran to the red town of stone",
    "the old town, the red dog. a bird met the fox",
]
PROMPTS = [
    {
        "id": f"{kind}-{i}",
        "category": kind,
        "prompt": f"the {kind} fox {word} the dog in the",
        "subject": word,
        "answer": "",
    }
    for kind in ("red", "old")
    for i, word in enumerate(("met", "sang", "ran to"))
]


def run(model: Any, **more: Any) -> xr.Dataset:
    kinds = {} if "prompts" in more or "passages" in more else {"passages": TEXTS}
    return ls.run("logit_lens", model, **kinds, **more, progress=False)


@pytest.mark.parametrize(
    "family", [pytest.param("gpt2", marks=pytest.mark.quick), "llama", "gemma2", "gpt_oss", "cohere"]
)
def test_the_last_lens_is_the_model(family: str) -> None:
    model = zoo.layered(family, flipped=True)

    result = run(model, positions=4)

    logs = model.logits(torch.tensor([[0, *zoo.tokenizer().encode(TEXTS[0])]])).log_softmax(-1)[0]
    here = result.token_passage.values == result.passage.values[0]
    positions = result.position.values[here]
    np.testing.assert_allclose(
        result.log_probability[here, 0, -1], logs.max(-1).values[positions], rtol=1e-4, atol=1e-4
    )
    assert (result.kl[:, :, -1] == 0).all()
    assert (result["rank"][:, :, -1] == 1).all()
    assert len(positions) == 4


def test_averages_are_over_passages_and_categories_within_them() -> None:
    result = run(zoo.layered("llama"), positions=30)

    passages, kinds = result.token_passage.values, result.token_category.values
    kl = result.kl.values[:, 0].astype(float)
    means = [kl[passages == name].mean(0) for name in result.passage.values]
    np.testing.assert_allclose(curve(result, "passages", "kl").value, np.mean(means, 0), rtol=1e-6)
    common = [kl[(passages == name) & (kinds == "common word")].mean(0) for name in result.passage.values]
    np.testing.assert_allclose(curve(result, "token: common word", "kl").value, np.mean(common, 0), rtol=1e-6)
    assert result.position.min() == 1
    over = experiments.load("logit_lens").over_depth(result)["divergence"]
    expected = np.mean([result.kl_to_average.values.mean()])
    assert over["null"].values[0] == pytest.approx(float(over["null"].values[-1]))
    assert np.isfinite(expected)


def test_settled_depths_follow_from_the_ranks() -> None:
    result = run(zoo.layered("gpt2"), prompts=PROMPTS)

    np.testing.assert_array_equal(result.prompt_settled, settled(result.prompt_rank.values))
    used = result.prompt_left_out_because.values == ""
    assert float(result.settled.sel(group="prompts", lens="logit lens")) == pytest.approx(
        float(np.nanmean(result.prompt_settled.values[used, 0]))
    )
    assert result.contrast.size == 1


def test_wrong_prompts_are_left_out_and_the_null_is_another_answer() -> None:
    model = zoo.layered("gpt2")
    first = model.logits(torch.tensor([[0, *zoo.tokenizer().encode("a bird sang")]]))[0, -1]
    right = zoo.tokenizer().decode([int(first.argmax())])
    prompts = [
        {"id": "wrong", "category": "bird", "prompt": "the dog ran", "subject": "dog", "answer": " the"},
        {"id": "other", "category": "bird", "prompt": "a bird sang", "subject": "bird", "answer": " red"},
    ]

    result = run(model, prompts=prompts)
    kept = run(model, prompts=prompts, wrong=True)

    assert all("rank" in reason for reason in result.prompt_left_out_because.values)
    assert np.isnan(result.settled.sel(group="prompts")).all()
    assert (
        "No estimate of the depth at which the answer is settled"
        in experiments.load("logit_lens").claims(result)[0].text
    )
    assert int(curve(kept, "prompts", "kl").n[0]) == 2
    row = kept.prompt.values.tolist().index("other")
    the = zoo.tokenizer().encode(" the")[0]
    assert float(kept.prompt_other_log_probability[row, 0, -1]) == pytest.approx(
        float(first.log_softmax(-1)[the]), abs=1e-3
    )
    assert right


@pytest.mark.quick
def test_another_answer_is_one_of_the_same_category() -> None:
    model, answers = zoo.layered("gpt2"), {"bird": (" the", " red"), "fox": (" dog", " old")}
    prompts = [
        {
            "id": f"{kind}{i}",
            "category": kind,
            "prompt": "a small bird sang",
            "subject": "bird",
            "answer": answer,
        }
        for kind, both in answers.items()
        for i, answer in enumerate(both)
    ]

    result = run(model, prompts=prompts, wrong=True, direct=False)

    logs = model.logits(torch.tensor([[0, *zoo.tokenizer().encode("a small bird sang")]]))[0, -1].log_softmax(
        -1
    )
    expected = [
        float(logs[zoo.tokenizer().encode(one)[0]]) for both in answers.values() for one in both[::-1]
    ]
    order = [result.prompt.values.tolist().index(prompt["id"]) for prompt in prompts]
    np.testing.assert_allclose(result.prompt_other_log_probability[order, 0, -1], expected, atol=1e-3)


def test_a_tuned_lens_is_read_beside_the_logit_lens(tmp_path: pathlib.Path) -> None:
    zeros = {
        f"{depth}.{part}": torch.zeros(*shape)
        for depth in range(4)
        for part, shape in (("weight", (48, 48)), ("bias", (48,)))
    }
    torch.save(zeros, tmp_path / "params.pt")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 48, "num_hidden_layers": 4}))

    result = run(zoo.layered("gpt2"), tuned=str(tmp_path))

    assert result.lens.values.tolist() == ["logit lens", "tuned lens"]
    np.testing.assert_array_equal(result.kl[:, 0], result.kl[:, 1])  # an untrained translator changes nothing
    assert any("tuned lens" in claim.text for claim in experiments.load("logit_lens").claims(result))
    assert ls.draw(result)


def test_a_tuned_lens_of_another_model_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(LayerscopeError, match="no tuned lens"):
        run(zoo.layered("gpt2"), tuned=str(tmp_path))
    torch.save({}, tmp_path / "params.pt")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 64, "num_hidden_layers": 4}))
    with pytest.raises(LayerscopeError, match="another model"):
        run(zoo.layered("gpt2"), tuned=str(tmp_path))


def test_passages_too_short_are_listed_and_alone_refused() -> None:
    result = run(zoo.layered("gpt2"), passages=[*TEXTS, "a"], first_position=3)

    assert [bool(reason) for reason in result.left_out_because.values] == [False, False, False, True]
    with pytest.raises(LayerscopeError, match="no token is left"):
        run(zoo.layered("gpt2"), passages=["a"], first_position=3)


def asked(kind: str, number: int, right: bool) -> dict[str, str]:
    """A prompt whose answer the model gives itself, or one that it does not give."""
    answer = "" if right else " the dog" if number % 2 else " old"
    prompt = f"the {kind} fox {('met', 'sang', 'ran to')[number]} the dog in the"
    return {
        "id": f"{kind}{number}",
        "category": kind,
        "prompt": prompt,
        "subject": f"{kind} fox",
        "answer": answer,
    }


def shown_names(**how: Any) -> list[str]:
    prompts = [
        asked("red", 0, right=False),
        *(asked(kind, number, right=True) for kind in ("red", "old") for number in (1, 2)),
    ]
    result = run(zoo.layered("gpt2"), prompts=prompts, direct=False, **how)
    return list(dict.fromkeys(result.shown_prompt.values.tolist())) if "shown_prompt" in result else []


@pytest.mark.parametrize(
    ("shown", "names"),
    [
        (1, ["red1"]),
        (2, ["red1", "old1"]),
        (4, ["red1", "old1", "red2", "old2"]),
        (9, ["red1", "old1", "red2", "old2", "red0"]),
        (("old2", "red0"), ["old2", "red0"]),
        ("old2", ["old2"]),
        (0, []),
    ],
)
def test_the_first_right_prompts_of_each_category_are_shown_or_those_that_are_named(
    shown: Any, names: list[str]
) -> None:
    assert sorted(shown_names(shown=shown)) == sorted(names)
    if isinstance(shown, int):
        assert shown_names(shown=shown) == names


def test_who_is_shown_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerscope.runs.lens.read_states_at", None)

    with pytest.raises(LayerscopeError, match="not among the prompts"):
        shown_names(shown="nobody")
    with pytest.raises(LayerscopeError, match="names of prompts"):
        shown_names(shown=-1)


@pytest.mark.quick
def test_what_is_shown_is_what_the_lens_reads_of_the_last_tokens() -> None:
    model, prompts = zoo.layered("llama", flipped=True), [PROMPTS[1]]
    result = run(model, prompts=prompts, shown_positions=5)

    ids = [0, *zoo.tokenizer().encode(prompts[0]["prompt"])]
    assert result.shown_position.values.tolist() == list(range(len(ids) - 5, len(ids)))
    assert result.shown_probability.dtype == np.float32
    last = result.isel(shown_token=-1)
    np.testing.assert_allclose(
        last.shown_target_probability, np.exp(result.prompt_log_probability[0, 0]), rtol=1e-4
    )
    np.testing.assert_array_equal(last.shown_rank, result.prompt_rank[0, 0])
    assert last.shown_top_text.values[-1, 0] == last.shown_target_text == result.prompt_answer_text[0]
    probabilities = model.logits(torch.tensor([ids]))[0, -5:].softmax(-1).topk(6, dim=-1).values
    np.testing.assert_allclose(result.shown_probability.sel(depth=4), probabilities, rtol=1e-3, atol=1e-6)
    (figure,) = [
        figure for figure in ls.draw(result).values() if "above it" in str(figure.layout.xaxis.title.text)
    ]
    assert "Of a longer prompt" in figure.layout.meta["caption"]


def test_a_model_whose_logits_cannot_be_rebuilt_is_refused() -> None:
    model = zoo.layered("gpt2")
    model.refused["unembed"] = "blocks run one by one do not give the logits"

    with pytest.raises(LayerscopeError, match="unembed is not available"):
        run(model)
