"""layer_ablation against bare transformers models whose blocks are edited by replacing what they compute."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments.layer_ablation.conclude import curve

TEXTS = [
    "the red fox met the old dog in the town, and the dog ran.",
    "a small bird sang and the dog ran to the red town of stone",
    "the old town, the red dog. a bird met the fox in the town",
]
FAMILIES = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss"]


def run(model: Any, texts: Any = TEXTS, **more: Any) -> xr.Dataset:
    return ls.run("layer_ablation", model, passages=texts, **more, progress=False)


def blocks_of(module: Any) -> list[Any]:
    return list(next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4))


def logits_with(family: str, text: str, edit: Any) -> np.ndarray:
    module: Any = zoo.make(family, flipped=True)
    edit(blocks_of(module))
    with torch.no_grad():
        return np.asarray(
            module(torch.tensor([[0, *zoo.tokenizer().encode(text)]]), use_cache=False).logits[0]
        )


def skipping(layer: int, tokens: int | None = None) -> Any:
    """An edit that lets the first tokens (None: all) pass a block as they came."""

    def edit(blocks: list[Any]) -> None:
        forward = blocks[layer].forward

        def skip(*args: Any, **kwargs: Any) -> Any:
            before = args[0] if args else kwargs["hidden_states"]
            output = forward(*args, **kwargs)
            after = output[0] if isinstance(output, tuple) else output
            mixed = after.clone()
            mixed[:, :tokens] = before[:, :tokens]
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        blocks[layer].forward = skip

    return edit


def repeating(layer: int, tokens: int | None = None) -> Any:
    """An edit that sends the first tokens (None: all) through a block twice."""

    def edit(blocks: list[Any]) -> None:
        forward = blocks[layer].forward

        def twice(state: Any, *args: Any, **kwargs: Any) -> Any:
            output = forward(state, *args, **kwargs)
            mixed = first_of(output).clone()
            mixed[:, :tokens] = first_of(forward(first_of(output), *args, **kwargs))[:, :tokens]
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        blocks[layer].forward = twice

    return edit


def swapping(layer: int, tokens: int | None = None) -> Any:
    """An edit that gives the first tokens (None: all) two blocks in reverse order, each with its own arguments."""

    def edit(blocks: list[Any]) -> None:
        forwards, calls = [blocks[at].forward for at in (layer, layer + 1)], []

        def keep(state: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((state, args, kwargs))
            return forwards[0](state, *args, **kwargs)

        def both(state: Any, *args: Any, **kwargs: Any) -> Any:
            before, its_args, its_kwargs = calls[-1]
            output = forwards[1](state, *args, **kwargs)
            mixed = first_of(output).clone()
            other = first_of(forwards[1](before, *args, **kwargs))
            mixed[:, :tokens] = first_of(forwards[0](other, *its_args, **its_kwargs))[:, :tokens]
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        blocks[layer].forward, blocks[layer + 1].forward = keep, both

    return edit


def first_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def divergence(clean: np.ndarray, changed: np.ndarray) -> np.ndarray:
    p, q = (log_softmax(logits.astype(np.float64), axis=-1) for logits in (clean, changed))
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_skipping_equals_a_model_whose_block_passes_states_on(family: str) -> None:
    result = run(zoo.layered(family, flipped=True), ablations=["skip", "skip earlier"])

    here = result.token_passage.values == result.passage.values[0]
    n = int(here.sum())
    clean = logits_with(family, TEXTS[0], lambda blocks: None)
    for layer in range(4):
        for ablation, tokens in (("skip", None), ("skip earlier", n // 2)):
            changed = logits_with(family, TEXTS[0], skipping(layer, tokens))
            rows = slice(tokens, None)
            found = result.sel(ablation=ablation, layer=layer).isel(token=here)
            np.testing.assert_allclose(found.kl[rows], divergence(clean, changed)[rows], rtol=5e-3, atol=1e-4)
            np.testing.assert_array_equal(
                found.same_top[rows], (clean.argmax(-1) == changed.argmax(-1))[rows]
            )
            assert np.isnan(found.kl[: tokens or 0]).all()
            ids = [0, *zoo.tokenizer().encode(TEXTS[0])]
            logs = [log_softmax(logits.astype(np.float64), axis=-1) for logits in (clean, changed)]
            rise = [logs[0][at, token] - logs[1][at, token] for at, token in enumerate(ids[1:])]
            np.testing.assert_allclose(
                found.loss_increase[rows][:-1], np.array(rise)[rows], rtol=5e-3, atol=1e-3
            )
            assert np.isnan(found.loss_increase[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_repeating_and_swapping_equal_a_model_whose_blocks_do_so(family: str) -> None:
    kinds = {"repeat": repeating, "swap": swapping}
    result = run(
        zoo.layered(family, flipped=True), ablations=[*kinds, *(f"{kind} earlier" for kind in kinds)]
    )

    here = result.token_passage.values == result.passage.values[0]
    half = int(here.sum()) // 2
    clean, harm = logits_with(family, TEXTS[0], lambda blocks: None), []
    for kind, edit in kinds.items():
        for layer in range(4 if kind == "repeat" else 3):
            for ablation, tokens in ((kind, None), (f"{kind} earlier", half)):
                changed = logits_with(family, TEXTS[0], edit(layer, tokens))
                found = result.sel(ablation=ablation, layer=layer).kl.values[here]
                rows = slice(tokens, None)
                expected = divergence(clean, changed)
                harm.append(expected[rows].max())
                np.testing.assert_allclose(found[rows], expected[rows], rtol=5e-3, atol=1e-4)
                assert np.isnan(found[: tokens or 0]).all()
    assert max(harm) > 0.01
    assert np.isnan(result.sel(ablation="swap", layer=3).kl).all()
    assert {claim.select["ablation"] for claim in experiments.load("layer_ablation").claims(result)} == set(
        result.ablation.values
    )
    ls.draw(result)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt2", ("attn", "mlp")),
        ("llama", ("self_attn", "mlp")),
        ("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("gpt_oss", ("self_attn", "mlp")),
    ],
)
def test_means_equal_those_taken_and_put_in_by_hand(family: str, names: tuple[str, str]) -> None:
    result = run(zoo.layered(family, flipped=True), ablations=["mean attention", "mean MLP"])

    clean = logits_with(family, TEXTS[0], lambda blocks: None)
    here = result.token_passage.values == result.passage.values[0]
    for ablation, name in zip(("mean attention", "mean MLP"), names, strict=True):
        rows: list[torch.Tensor] = []

        def keep(blocks: list[Any], name: str = name, rows: list[torch.Tensor] = rows) -> None:
            def hook(_: Any, __: Any, output: Any) -> None:
                rows.append(
                    (output[0] if isinstance(output, tuple) else output).reshape(-1, output[0].shape[-1])[1:]
                )

            getattr(blocks[2], name).register_forward_hook(hook)

        for text in TEXTS:
            logits_with(family, text, keep)
        mean = torch.cat(rows).mean(0)

        def put(blocks: list[Any], name: str = name, mean: torch.Tensor = mean) -> None:
            def hook(_: Any, __: Any, output: Any) -> Any:
                first = (output[0] if isinstance(output, tuple) else output).clone()
                first.reshape(-1, first.shape[-1])[1:] = mean
                return (first, *output[1:]) if isinstance(output, tuple) else first

            getattr(blocks[2], name).register_forward_hook(hook)

        changed = logits_with(family, TEXTS[0], put)
        found = result.sel(ablation=ablation, layer=2).isel(token=here)
        np.testing.assert_allclose(found.kl, divergence(clean, changed), rtol=1e-2, atol=1e-4)


@pytest.mark.quick
def test_a_random_push_is_as_long_as_the_step_and_turns_the_state_as_far() -> None:
    from layerscope.experiments.layer_ablation import Settings
    from layerscope.experiments.layer_ablation.measure.changes import pushes as _pushes
    from layerscope.runs import ReplayedRun

    run_ = ReplayedRun(zoo.layered("llama"), [0, 5, 9, 40, 77])
    pushes = _pushes(run_, "a text", Settings())

    states, skipped = run_.states[1:], run_.states[:-1]
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(pushes.norm(dim=-1), (states - skipped).norm(dim=-1))
    torch.testing.assert_close((states + pushes).norm(dim=-1), skipped.norm(dim=-1))
    torch.testing.assert_close(cosine(states + pushes, states, dim=-1), cosine(skipped, states, dim=-1))
    away = [
        rest - (rest * states).sum(-1, keepdim=True) / states.square().sum(-1, keepdim=True) * states
        for rest in (pushes, skipped - states)
    ]
    assert float(cosine(*away, dim=-1).abs().max()) < 0.6  # what is left of the direction is by chance
    torch.testing.assert_close(pushes, _pushes(run_, "a text", Settings()))
    assert not torch.allclose(pushes, _pushes(run_, "another", Settings()))


def test_the_decisive_block_is_found_and_the_others_make_no_difference() -> None:
    from layerscope.planted.growing import passages
    from layerscope.planted.one_block_decides import divergence_without_it, one_block_decides

    result = run(one_block_decides(), passages())

    skip = curve(result, "skip")
    np.testing.assert_allclose(skip.value, [0, 0, divergence_without_it(1.0), 0], atol=0.01)
    np.testing.assert_allclose(curve(result, "mean attention").value, 0, atol=1e-4)
    earlier = curve(result, "skip earlier", group="later tokens")
    np.testing.assert_allclose(earlier.value, 0, atol=1e-4)  # no later token uses it
    claims = " ".join(claim.text for claim in experiments.load("layer_ablation").claims(result))
    assert "Skipping layer 2 changes predictions most of all layers" in claims
    assert "use at later tokens of any layer's work at earlier ones" in claims
    assert result.excess_p.values[2] < 0.05
    assert (result.inert_layers.sel(ablation="skip") == 3).all()


def test_averages_are_over_passages() -> None:
    result = run(zoo.layered("gpt2"), ablations=["skip"])

    kl, passages = result.kl.values[:, 0].astype(float), result.token_passage.values
    late = result.position.values >= 1
    means = [kl[(passages == name) & late].mean(0) for name in result.passage.values]
    np.testing.assert_allclose(curve(result, "skip").value, np.mean(means, 0), rtol=1e-6)
    over = experiments.load("layer_ablation").over_depth(result)["harm"]
    np.testing.assert_allclose(over.value, np.log10(np.mean(means, 0)), rtol=1e-5)
    assert "excess" not in result
    assert ls.draw(result)


def test_a_family_whose_parts_cannot_be_told_skips_them_and_says_so() -> None:
    result = run(zoo.layered("opt", flipped=True))

    assert np.isnan(result.mean_kl.sel(ablation="mean MLP")).all()
    assert "mean MLP" in result.attrs["cautions"]
    assert np.isfinite(result.mean_kl.sel(ablation="skip")).all()
    assert np.isnan(result.mean_kl.sel(ablation="swap")[-1])


def test_passages_and_tokens_are_as_many_as_asked_for() -> None:
    result = run(zoo.layered("gpt2"), ablations=["repeat"], ablated_passages=2, tokens=5)
    assert result.sizes["token"] == 10
    with pytest.raises(LayerscopeError, match="no token is left"):
        run(zoo.layered("gpt2"), ["a"], first_position=4)
    with pytest.raises(LayerscopeError, match="ablations"):
        run(zoo.layered("gpt2"), ablations=["remove"])
