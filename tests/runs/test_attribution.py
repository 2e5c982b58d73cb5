"""Estimates by gradient: exact on linear paths, right to first order everywhere, and mended where they fail."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted.mover import ANSWERS, SUBJECTS, mover
from layerscope.runs.attribution import attributable, attribute
from layerscope.runs.edits import Branch, Put
from layerscope.runs.noise import gaussian_noise
from layerscope.runs.patching import run_patched
from layerscope.runs.recordings import BaseRun

IDS = [0, 17, 93, 140, 17, 255, 201, 33]
TOKENS = len(IDS)
SITES = ("state", "attn_out", "mlp_out", "head_out", "q", "k", "v")


def number(logits: Tensor) -> Tensor:
    return logits[:, -1, 5].double() - logits[:, -1, 9].double()


def exactly(
    model: LayeredModel, base: BaseRun, other: BaseRun, cells: Sequence[tuple[str, int, int, int | None]]
) -> Tensor:
    """Effects of single exchanges by whole forward passes, for each row [cell row]."""
    rows = range(max(base.rows, other.rows))
    edits = [
        (Put(site, (layer,), (token,), heads=None if head is None else (head,)),)  # type: ignore[arg-type]
        for site, layer, token, head in cells
    ]
    branches = [
        Branch(edit, row=row % base.rows, other_row=row % other.rows) for edit in [(), *edits] for row in rows
    ]
    values = run_patched(
        model,
        branches,
        base=base,
        other=other,
        read=lambda predicted, _: number(predicted.logits()),
        plain=True,
    ).reshape(len(edits) + 1, -1)
    return values[1:] - values[0]


def cells_of(model: LayeredModel, site: str) -> list[tuple[str, int, int, int | None]]:
    heads: Sequence[int | None] = (None,)
    if site in ("head_out", "q", "k", "v"):
        heads = range((model.facts.n_kv_heads if site in "kv" else model.facts.n_heads) or 1)
    layers = model.n_layers + (site == "state")
    return [
        (site, layer, token, head) for layer in range(layers) for token in range(TOKENS) for head in heads
    ]


def flat(estimates: Tensor) -> Tensor:
    """[row layer token (head)] as [cell row]."""
    return estimates.flatten(1).T


def linear_gpt2(
    n_layers: int, *, activation: str = "linear", width: int = 12, vocabulary: int = 16
) -> GPT2LMHeadModel:
    """A GPT-2 whose norms only subtract the mean: their epsilon outweighs any variance."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=n_layers,
        n_head=2,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
        activation_function=activation,
        layer_norm_epsilon=1e8,
    )
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.normal_(0, 0.3)
        if ".ln_" in name:
            parameter.fill_(1e4 if name.endswith("weight") else 0.0)
    return model


def test_on_a_linear_model_the_estimate_is_the_exact_effect() -> None:
    module = linear_gpt2(3)
    for block in module.transformer.h:  # no queries and keys: attention averages all values alike
        block.attn.c_attn.weight[:, :24] = 0
        block.attn.c_attn.bias[:24] = 0
    model = load_model(module, tokenizer=zoo.tokenizer())
    base, other = BaseRun.of([0, 3, 5, 7, 2, 9, 11, 1]), BaseRun.of([0, 3, 8, 6, 2, 9, 4, 1])
    sites = ("state", "attn_out", "mlp_out", "head_out", "v")

    found = attribute(model, base=base, other=other, number=number, sites=sites)

    for site in sites:
        exact = exactly(model, base, other, cells_of(model, site))
        assert exact.abs().max() > 0.01, site
        torch.testing.assert_close(flat(found.plain[site]), exact.float(), rtol=1e-3, atol=1e-4)


def nearby_runs(model: LayeredModel, *, by: float) -> tuple[BaseRun, BaseRun]:
    """Two runs that differ by so little that effects of exchanges are of first order."""
    width = model.facts.width
    noise = gaussian_noise(0, prompt="a", positions=(2, 3), samples=2, width=width, sd=0.3)
    nudge = gaussian_noise(1, prompt="b", positions=(2, 3), samples=2, width=width, sd=by)
    return BaseRun.of(IDS, noise, (2, 3)), BaseRun.of(IDS, noise + nudge, (2, 3))


@pytest.mark.parametrize(
    ("family", "flipped"),
    [
        ("gpt2", False),
        ("llama", False),
        ("mistral", True),
        ("gemma2", True),
        ("gpt_oss", False),
        ("opt", True),
    ],
)
def test_for_small_exchanges_the_estimate_is_the_exact_effect(family: str, flipped: bool) -> None:
    """Finite differences: the runs differ by little, so that what is left out is of second order."""
    single = family == "gpt_oss"  # whose experts know no double precision
    module = zoo.make(family, flipped=flipped)
    model = load_model(module if single else module.double(), tokenizer=zoo.tokenizer())
    base, other = nearby_runs(model, by=5e-4 if single else 2e-4)
    sites = attributable(model)

    found = attribute(model, base=base, other=other, number=number, sites=sites, tokens_per_pass=TOKENS)

    assert {"state", "q", "k", "v", "head_out"} <= set(sites)
    for site in sites:
        exact = exactly(model, base, other, cells_of(model, site)).float()
        reach = float(exact.abs().max())
        assert reach > 0, site
        for estimates in (found.plain, found.recomputed):
            if site in estimates:
                torch.testing.assert_close(
                    flat(estimates[site]), exact, rtol=0, atol=(0.05 if single else 0.02) * reach
                )


def test_rows_taken_in_turns_and_a_run_of_one_row_on_either_side_give_the_same() -> None:
    model = zoo.layered("llama")
    noise = gaussian_noise(0, prompt="a", positions=(2,), samples=3, width=model.facts.width, sd=0.5)
    noised, clean = BaseRun.of(IDS, noise, (2,)), BaseRun.of(IDS)
    choices = {"number": number, "sites": SITES, "drop": True}

    together = attribute(model, base=noised, other=clean, **choices)  # type: ignore[arg-type]
    in_turns = attribute(model, base=noised, other=clean, tokens_per_pass=TOKENS, **choices)  # type: ignore[arg-type]
    backwards = attribute(model, base=clean, other=noised, **choices)  # type: ignore[arg-type]
    one = attribute(model, base=clean, other=BaseRun.of(IDS, noise[1:2], (2,)), **choices)  # type: ignore[arg-type]

    for kind in ("plain", "recomputed", "dropped"):
        assert set(getattr(together, kind)) == set(("q", "k") if kind == "recomputed" else SITES)
        for site, estimates in getattr(together, kind).items():
            torch.testing.assert_close(getattr(in_turns, kind)[site], estimates, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(
                getattr(backwards, kind)[site][1:2], getattr(one, kind)[site], rtol=1e-3, atol=1e-5
            )


def test_nothing_of_the_graph_is_left_and_the_model_is_as_before() -> None:
    model = zoo.layered("gpt2")
    before = model.logits(torch.tensor([IDS]))
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules()]

    found = attribute(
        model, base=BaseRun.of(IDS), other=BaseRun.of(IDS[::-1]), number=number, sites=SITES, drop=True
    )

    assert not any(estimates.requires_grad for kind in vars(found).values() for estimates in kind.values())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert torch.equal(model.logits(torch.tensor([IDS])), before)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]


def test_where_attention_is_saturated_the_pattern_computed_anew_finds_the_key_that_plain_gradients_miss() -> (
    None
):
    model = mover(layer=2)
    tokens = model.tokenizer.convert_tokens_to_ids
    words = ["<bos>", "my", "friend", SUBJECTS[0], "has", "a", "coat", "that", "is"]
    base = BaseRun.of(tokens(words))
    other = BaseRun.of(tokens([*words[:3], "old", *words[4:]]))
    answer = tokens(ANSWERS[0])

    def said(logits: Tensor) -> Tensor:
        return logits[:, -1, answer] - logits[:, -1].mean(-1)

    found = attribute(model, base=base, other=other, number=said, sites=("k",), drop=True)

    branches = [Branch(()), Branch((Put("k", (2,), (3,), heads=(1,)),))]
    nothing, exchanged = run_patched(
        model,
        branches,
        base=base,
        other=other,
        read=lambda predicted, _: said(predicted.logits()),
        plain=True,
    ).tolist()
    exact = exchanged - nothing
    assert exact < -1
    assert abs(float(found.plain["k"][0, 2, 3, 1])) < 0.01 * abs(exact)
    # Not all of it: the last norm grows what is left, which no first order sees.
    assert 0.25 < float(found.recomputed["k"][0, 2, 3, 1]) / exact < 1.5
    # No other block writes anything, so stopping one changes nothing.
    torch.testing.assert_close(found.dropped["k"], found.recomputed["k"].abs(), rtol=1e-4, atol=1e-5)
    others = found.recomputed["k"].clone()
    others[0, 2, 3, 1] = 0
    assert others.abs().max() < 0.01 * abs(exact)


def cancelling() -> LayeredModel:
    """Block 0 adds entry 0 to entry 2, block 1 takes min(entry 0, 1) off it again; token 5 reads entry 2."""
    module = linear_gpt2(2, activation="relu")
    for name, parameter in module.named_parameters():
        if ".ln_" not in name:
            parameter.zero_()
    first, second = (block.mlp for block in module.transformer.h)
    first.c_fc.weight[0, 0], first.c_proj.weight[0, 2] = 1, 1
    second.c_fc.weight[0, :2] = 1
    second.c_fc.bias[1] = -1
    second.c_proj.weight[0, 2], second.c_proj.weight[1, 2] = -1, 1
    # Entry 1 balances entry 0 and entry 3 entry 2, so that states have mean 0 and norms change nothing.
    for mlp in (first, second):
        mlp.c_proj.weight[:, 3] = -mlp.c_proj.weight[:, 2]
    for token, value in ((1, 0.5), (2, 3.0)):
        module.transformer.wte.weight[token, 0], module.transformer.wte.weight[token, 1] = value, -value
    module.lm_head.weight[5, 2] = 1
    # The load check expects heads that reach the logits.
    for block in module.transformer.h:
        block.attn.c_attn.weight.normal_(0, 1e-4)
        block.attn.c_proj.weight.normal_(0, 1e-4)
    return load_model(module, tokenizer=zoo.tokenizer())


def test_routes_that_cancel_are_exposed_by_stopping_one_block_at_a_time() -> None:
    model = cancelling()
    base, other = BaseRun.of([0, 0, 1]), BaseRun.of([0, 0, 2])

    found = attribute(model, base=base, other=other, number=number, drop=True)

    nothing, exchanged = run_patched(
        model,
        [Branch(()), Branch((Put("state", (0,), (2,)),))],
        base=base,
        other=other,
        read=lambda predicted, _: number(predicted.logits()),
    ).tolist()
    # By hand: entry 0 goes from 0.5 to 3; 3 - min(3, 1) = 2 are left, and 0.5 - 0.5 = 0 before.
    assert exchanged - nothing == pytest.approx(2, abs=1e-2)
    assert abs(float(found.plain["state"][0, 0, 2])) < 1e-2
    # Stopping either block leaves the other one's slope of 1 or -1, times 2.5.
    assert float(found.dropped["state"][0, 0, 2]) == pytest.approx(2.5, abs=1e-2)


def test_a_site_s_own_block_is_left_out_of_the_mean() -> None:
    model = linear_gpt2(3)
    layered = load_model(model, tokenizer=zoo.tokenizer())
    base, other = BaseRun.of([0, 3, 5, 7]), BaseRun.of([0, 8, 6, 7])
    choices = {"base": base, "other": other, "number": number, "sites": ("attn_out",)}
    for block in model.transformer.h:  # nothing reads the stream but the end
        block.mlp.c_fc.weight.zero_()
        block.attn.c_attn.weight[:, 12:] = 0

    found = attribute(layered, drop=True, **choices)  # type: ignore[arg-type]

    torch.testing.assert_close(found.dropped["attn_out"], found.plain["attn_out"].abs())


def test_half_precision_is_summed_in_float32() -> None:
    module = zoo.make("llama")
    whole = load_model(module, tokenizer=zoo.tokenizer())
    pair = {"base": BaseRun.of(IDS), "other": BaseRun.of([*IDS[:3], 30, *IDS[4:]]), "number": number}
    expected = attribute(whole, sites=("state", "q"), drop=True, **pair)  # type: ignore[arg-type]

    half = load_model(module.to(torch.bfloat16), tokenizer=zoo.tokenizer())
    found = attribute(half, sites=("state", "q"), drop=True, **pair)  # type: ignore[arg-type]

    for kind in ("plain", "dropped"):
        a, b = getattr(found, kind)["state"], getattr(expected, kind)["state"]
        assert a.dtype == torch.float32
        assert float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) > 0.98


def test_a_family_outside_the_attention_interface_keeps_its_states_and_refuses_queries_by_name() -> None:
    model = load_model(zoo.make("gptj").double(), tokenizer=zoo.tokenizer())
    base, other = nearby_runs(model, by=2e-4)

    with pytest.raises(LayerscopeError, match="q is not available"):
        attribute(model, base=base, other=other, number=number, sites=("q",))
    found = attribute(model, base=base, other=other, number=number)

    assert "q" not in attributable(model)
    exact = exactly(model, base, other, cells_of(model, "state")).float()
    torch.testing.assert_close(
        flat(found.plain["state"]), exact, rtol=0, atol=0.02 * float(exact.abs().max())
    )


def test_what_cannot_be_estimated_is_refused() -> None:
    model = zoo.layered("gpt2")
    three = BaseRun((tuple(IDS),) * 3)

    with pytest.raises(LayerscopeError, match="rows of the two runs do not match"):
        attribute(model, base=three, other=BaseRun((tuple(IDS),) * 2), number=number)
    with pytest.raises(LayerscopeError, match="no gradient"):
        attribute(model, base=three, other=three, number=lambda logits: logits.argmax(-1)[:, -1].float())
