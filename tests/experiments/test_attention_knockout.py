"""attention_knockout against whole forward passes whose masks are changed by hooks, and what it refuses."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.results.schema import read_json
from layerscope.runs.noise import stream

TEXTS = [
    "the red fox met the old dog in the town of stone, and the small bird sang. the old dog ran to the red town",
    "a small bird sang and the dog ran to the red town of stone. the old fox, the red bird and the dog met him",
    "the dog ran. the bird sang, and Old Red Fox met the dog in the red town of stone and sang to the old bird",
]
NAMES = [f"passage-00{i + 1}" for i in range(3)]
PROMPTS = [
    {
        "id": f"{kind}-{place}",
        "category": kind,
        "prompt": f"the {kind} fox {word} the dog in the",
        "subject": word,
        "answer": "",
    }
    for kind in ("red", "old")
    for place, word in enumerate(("met", "sang", "ran to"))
]
FEW: dict[str, Any] = {"targets": 2, "ranges": (3, 9), "resamples": 60}
BLOCKS = 4
SETS = ("1 to 2 back", "3 to 8 back", "9 back and more", "3 back and more", "first token")
Change = Callable[[torch.Tensor], torch.Tensor]


def run(family: str = "llama", flipped: bool = True, **settings: Any) -> xr.Dataset:
    texts = {kind: settings.pop(kind) for kind in ("passages", "prompts") if kind in settings}
    model = zoo.layered(family, flipped=flipped)
    return ls.run(
        "attention_knockout",
        model,
        **(texts or {"passages": TEXTS}),
        **(FEW | settings),
        progress=False,
    )


def keys_of(name: str, target: int) -> list[int]:
    """Distances written out, the first token kept apart."""
    near, far = {
        "1 to 2 back": (1, 2),
        "3 to 8 back": (3, 8),
        "9 back and more": (9, 999),
        "3 back and more": (3, 999),
    }.get(name, (0, 0))
    return [0] if name == "first token" else [j for j in range(1, target) if near <= target - j <= far]


def ids_of(text: str) -> list[int]:
    return [0, *zoo.tokenizer().encode(text)]


class Plain:
    """A bare transformers model, computing attention by its own eager code, its masks changed on the way in."""

    def __init__(self, family: str, flipped: bool = True, attention: str = "eager") -> None:
        self.module = zoo.make(family, flipped=flipped)
        self.module.set_attn_implementation(attention)
        self.blocks = next(
            m for m in self.module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == BLOCKS
        )

    def attending(self, layer: int) -> torch.nn.Module:
        named = dict(self.blocks[layer].named_children())
        for name in ("attn", "attention", "self_attn", "temporal_block"):
            if name in named:
                return named[name]
        raise AssertionError(sorted(named))

    def __call__(self, ids: Sequence[int], layers: Sequence[int] = (), change: Change | None = None) -> Any:
        def hook(_: Any, args: Any, kwargs: Any) -> Any:
            def mend(value: Any) -> Any:
                masking = isinstance(value, torch.Tensor) and value.dim() == 4
                return change(value.clone()) if masking and change else value

            return tuple(mend(a) for a in args), {name: mend(value) for name, value in kwargs.items()}

        tokens = torch.tensor([list(ids)])
        with ExitStack() as stack, torch.no_grad():
            for layer in layers:
                module = self.attending(layer)
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            return self.module(
                tokens,
                attention_mask=torch.ones_like(tokens),
                use_cache=False,
                output_attentions=self.module.config._attn_implementation == "eager",
            )

    def cut(self, ids: Sequence[int], layers: Sequence[int], target: int, keys: Sequence[int]) -> Any:
        """Logits behind the target, its edges to some keys masked in some layers."""

        def change(mask: torch.Tensor) -> torch.Tensor:
            mask[..., target, list(keys)] = torch.finfo(mask.dtype).min
            return mask

        return self(ids, layers, change).logits[0, target].double().log_softmax(-1)


def effect(own: torch.Tensor, cut: torch.Tensor, wanted: int) -> tuple[float, float]:
    """Divergence and lost log-probability."""
    return float((own.exp() * (own - cut)).sum()), float(own[wanted] - cut[wanted])


FAMILIES = [
    ("gpt2", True),
    ("gpt_neox", False),
    ("llama", True),
    ("mistral", True),
    ("gemma2", True),
    ("gpt_oss", True),
    ("stablelm", True),
    ("recurrent_gemma", True),
]


@pytest.mark.parametrize(("family", "flipped"), FAMILIES)
def test_cut_edges_equal_masked_whole_runs(family: str, flipped: bool) -> None:
    result, plain = run(family, flipped, fates=("renormalise",)), Plain(family, flipped)

    assert tuple(result.edges.values) == SETS
    compared = 0
    for row in (0, 3, 5):
        ids = ids_of(TEXTS[NAMES.index(str(result.token_passage.values[row]))])
        target = int(result.position[row])
        own = plain(ids).logits[0, target].double().log_softmax(-1)
        for name in SETS:
            for layer in range(BLOCKS):
                cell = result.isel(token=row, fate=0, window=0).sel(edges=name, layer=layer)
                if np.isnan(cell.divergence):
                    continue
                cut = plain.cut(ids, [layer], target, keys_of(name, target))
                moved, lost = effect(own, cut, ids[target + 1])
                assert float(cell.divergence) == pytest.approx(moved, abs=2e-5, rel=5e-3)
                assert float(cell.loss) == pytest.approx(lost, abs=2e-4, rel=2e-3)
                compared += 1
    assert compared >= (9 if family in ("recurrent_gemma", "mistral") else 30)
    assert float(result.divergence.max()) > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_mass_is_what_the_models_own_attention_puts_there(family: str) -> None:
    result, plain = run(family), Plain(family)

    for row in (1, 4):
        ids = ids_of(TEXTS[NAMES.index(str(result.token_passage.values[row]))])
        target = int(result.position[row])
        attentions = plain(ids).attentions
        for name in SETS:
            for layer in range(BLOCKS):
                mass = attentions[layer][0, :, target, keys_of(name, target)].sum(-1).mean()
                found = result.mass.isel(token=row, window=0).sel(edges=name, layer=layer)
                if np.isnan(found):
                    assert float(mass) == 0
                else:
                    assert float(found) == pytest.approx(float(mass), abs=1e-5)


def test_windowed_layers_have_no_far_edges_and_cannot_fall_back_on_the_first_token() -> None:
    result = run("gemma2")

    known = np.isfinite(result.divergence.isel(window=0)).all("token")
    far = known.sel(edges="9 back and more", fate="renormalise").values
    near = known.sel(edges="1 to 2 back")
    assert far.tolist() == [False, True, False, True]
    assert near.sel(fate="renormalise").all()
    assert near.sel(fate="first").values.tolist() == [False, True, False, True]
    assert any("cannot see the farthest range" in caution for caution in read_json(result, "cautions"))


def test_no_layer_of_a_narrow_model_sees_far() -> None:
    result = run("mistral")

    assert not np.isfinite(result.divergence.sel(edges="9 back and more")).any()
    assert np.isnan(result.far_less_near).all()
    assert "(no layer can see context ≥ " in experiments.load("attention_knockout").claims(result)[0].text
    assert np.isfinite(experiments.load("attention_knockout").over_depth(result)["needs_far"].value).any()


def own_attention(target: int, keys: Sequence[int], fate: str, layer: int, means: Any) -> Any:
    """Attention written out, one head's row at a time, with one row of one layer changed after the softmax."""

    def attention(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any
    ) -> Any:
        heads, tokens = query.shape[1], query.shape[2]
        out = torch.zeros(1, tokens, heads, value.shape[-1])
        for head in range(heads):
            of = head // (heads // key.shape[1])
            scores = query[0, head] @ key[0, of].T * scaling + attention_mask[0, 0]
            shares = scores.softmax(-1)
            extra = torch.zeros(value.shape[-1])
            if module.layer_idx == layer:
                taken = shares[target, keys].sum()
                shares[target, keys] = 0
                if fate == "first":
                    shares[target, 0] += taken
                else:
                    extra = taken * torch.as_tensor(means[layer][of], dtype=torch.float32)
            out[0, :, head] = shares @ value[0, of]
            out[0, target, head] += extra
        return out, None

    return attention


def mean_values(plain: Plain, texts: Sequence[Sequence[int]]) -> dict[int, np.ndarray]:
    """Values of every layer and key-value head, mean over tokens, first ones left out."""
    kept: dict[int, list[np.ndarray]] = {layer: [] for layer in range(BLOCKS)}

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
        kept[module.layer_idx].append(value[0, :, 1:].numpy())
        repeated = [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value)]
        shares = (query @ repeated[0].transpose(-1, -2) * scaling + mask).softmax(-1)
        return (shares @ repeated[1]).transpose(1, 2), None

    AttentionInterface.register("kept in a test", attention)
    AttentionMaskInterface.register("kept in a test", eager_mask)
    plain.module.set_attn_implementation("kept in a test")
    for ids in texts:
        plain(ids)
    return {layer: np.concatenate(parts, axis=1).mean(axis=1) for layer, parts in kept.items()}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_fate_is_what_it_says(family: str) -> None:
    result, plain = run(family), Plain(family)
    means = mean_values(plain, [ids_of(text) for text in TEXTS])
    row, layer, name = 2, 1, "3 to 8 back"
    ids = ids_of(TEXTS[NAMES.index(str(result.token_passage.values[row]))])
    target = int(result.position[row])

    own = plain(ids).logits[0, target].double().log_softmax(-1)
    for fate in ("first", "mean"):
        mine = own_attention(target, keys_of(name, target), fate, layer, means)
        AttentionInterface.register("cut in a test", mine)
        AttentionMaskInterface.register("cut in a test", eager_mask)
        plain.module.set_attn_implementation("cut in a test")
        cut = plain(ids).logits[0, target].double().log_softmax(-1)
        moved, lost = effect(own, cut, ids[target + 1])
        cell = result.isel(token=row, window=0).sel(edges=name, fate=fate, layer=layer)
        assert float(cell.divergence) == pytest.approx(moved, abs=2e-5, rel=5e-3)
        assert float(cell.loss) == pytest.approx(lost, abs=2e-4, rel=2e-3)
    assert np.isnan(result.divergence.sel(edges="first token", fate="first")).all()


@pytest.mark.parametrize("family", ["llama", "stablelm"])
def test_windows_cut_all_their_layers(family: str) -> None:
    result, plain = run(family, windows=(1, 3), fates=("renormalise",)), Plain(family)
    row, name = 1, "9 back and more"
    ids = ids_of(TEXTS[NAMES.index(str(result.token_passage.values[row]))])
    target = int(result.position[row])

    own = plain(ids).logits[0, target].double().log_softmax(-1)
    for layer, layers in ((0, [0, 1]), (2, [1, 2, 3]), (3, [2, 3])):
        moved, _ = effect(own, plain.cut(ids, layers, target, keys_of(name, target)), ids[target + 1])
        cell = result.divergence.isel(token=row, fate=0).sel(edges=name, window=3, layer=layer)
        assert float(cell) == pytest.approx(moved, abs=2e-5, rel=5e-3)
    assert "Farthest range, by window" in ls.draw(result)


def test_windows_are_shares_or_blocks() -> None:
    assert run(windows=(0.5, 1)).window.values.tolist() == [2, 1]


def test_as_many_keys_are_drawn_outside_the_set() -> None:
    result, plain = run("llama", control="as many keys", draws=2), Plain("llama")
    row, name, layer = 4, "3 to 8 back", 2
    text = TEXTS[NAMES.index(str(result.token_passage.values[row]))]
    ids, target = ids_of(text), int(result.position[row])

    own = plain(ids).logits[0, target].double().log_softmax(-1)
    for sample in range(2):
        order = torch.randperm(target, generator=stream(0, "control", text, sample, target)).tolist()
        drawn = [key for key in order if key != 0 and key not in keys_of(name, target)][:6]
        moved, lost = effect(own, plain.cut(ids, [layer], target, drawn), ids[target + 1])
        cell = result.isel(token=row, sample=sample, window=0).sel(edges=name, layer=layer)
        assert float(cell.control_divergence) == pytest.approx(moved, abs=2e-5, rel=5e-3)
        assert float(cell.control_loss) == pytest.approx(lost, abs=2e-4, rel=2e-3)


def test_the_control_holds_as_much_attention_or_there_is_none() -> None:
    result = run("llama", draws=3)

    share = (result.control_mass / result.mass).values
    known = np.isfinite(share)
    assert 0.5 < known.mean() < 1
    assert (abs(share[known] - 1) <= 0.2 + 1e-6).all()
    assert (np.isfinite(result.control_divergence.values) == np.isfinite(result.control_mass.values)).all()
    beside = (result.control_removed / result.compared_removed).values
    assert (abs(beside[np.isfinite(beside)] - 1) <= 0.2 + 1e-6).all()


def test_the_index_and_the_maps_follow_from_what_was_kept() -> None:
    result = run("gpt2", draws=2)

    rows = [np.flatnonzero(result.token_passage.values == name) for name in result.used_passage.values]
    each = np.stack([result.divergence.values[some].mean(axis=0) for some in rows])[:, :, :, 0]
    layers = np.arange(BLOCKS)
    centroids = (each * layers).sum(-1) / each.sum(-1)  # passage edges fate
    index = (centroids[:, 2] - centroids[:, 0]).mean(axis=0)
    np.testing.assert_allclose(result.far_less_near.isel(window=0), index, atol=2e-3)
    np.testing.assert_allclose(result.effect.isel(window=0), each.mean(axis=0), rtol=1e-5)

    mean = each.mean(axis=0)[2]  # the far range: fate layer
    ratio = mean.min(axis=0) / mean.max(axis=0)
    np.testing.assert_allclose(result.agreement.isel(edges=2, window=0), ratio, rtol=1e-4)

    mass = np.stack([result.mass.values[some].mean(axis=0) for some in rows])[:, :, 0].mean(axis=0)
    per = result.effect_per_mass.isel(window=0, fate=0).values
    np.testing.assert_allclose(per, mean_of(each, 0) / mass, rtol=1e-4)

    # Cut and control are compared on the same targets: those that have a control.
    name, layer = "1 to 2 back", 0
    cell = result.isel(window=0, fate=0).sel(edges=name, layer=layer)
    control, own = cell.control_divergence.mean("sample").values, cell.divergence.values
    pairs = [(own[some], control[some]) for some in rows]
    pairs = [(a[~np.isnan(b)].mean(), b[~np.isnan(b)].mean()) for a, b in pairs if not np.isnan(b).all()]
    relative = np.mean([(a - b) / (a + b) for a, b in pairs])
    assert 0 < np.isnan(control).sum() < len(control)
    assert float(result.relative_excess.sel(edges=name, layer=layer)[0]) == pytest.approx(relative, rel=1e-3)


def mean_of(each: np.ndarray, fate: int) -> np.ndarray:
    return np.asarray(each.mean(axis=0)[:, fate])


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "stablelm"])
def test_prompts_are_cut_from_their_subjects(family: str) -> None:
    result, plain = run(family, prompts=PROMPTS, fates=("renormalise",)), Plain(family)

    assert "divergence" not in result
    for row in (0, 3):
        name = str(result.prompt.values[row])
        prompt = next(one for one in PROMPTS if one["id"] == name)
        text, word = prompt["prompt"], prompt["subject"]
        ids = ids_of(text)
        spans = zoo.tokenizer()(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        first, after = text.index(word), text.index(word) + len(word)
        subject = [1 + i for i, (a, b) in enumerate(spans) if a < after and b > first]
        own = plain(ids).logits[0, -1].double().log_softmax(-1)
        for layer in (1, 3):
            cut = plain.cut(ids, [layer], len(ids) - 1, subject)
            moved, lost = effect(own, cut, int(own.argmax()))
            cell = result.isel(prompt=row, fate=0, window=0).sel(prompt_edges="the subject", layer=layer)
            if np.isnan(cell.prompt_divergence):
                assert family == "gemma2"
                continue
            assert float(cell.prompt_divergence) == pytest.approx(moved, abs=2e-5, rel=5e-3)
            assert float(cell.prompt_loss) == pytest.approx(lost, abs=2e-4, rel=2e-3)
    assert set(result.category.values) == {"all prompts", "red", "old"}
    assert experiments.load("attention_knockout").claims(result)
    assert ls.draw(result)


def test_what_is_kept_of_prompts_gives_their_centroids() -> None:
    result = run("llama", prompts=PROMPTS)

    each = result.prompt_divergence.isel(fate=0, window=0, prompt_edges=0).values
    places = (each * np.arange(BLOCKS)).sum(-1) / each.sum(-1)
    np.testing.assert_allclose(result.prompt_centroid, places, rtol=1e-4)
    red = places[result.prompt_category.values == "red"].mean()
    assert float(result.subject_centroid.sel(category="red")) == pytest.approx(red, rel=1e-4)


def test_prompts_that_are_wrong_or_unfit_are_left_out_by_name() -> None:
    wrong = PROMPTS[0] | {"id": "wrong", "answer": " zzz"}
    unfit = {"id": "unfit", "category": "red", "prompt": "the red fox", "subject": "fox", "answer": ""}

    result = run(prompts=[*PROMPTS, wrong, unfit])

    told = dict(zip(result.prompt.values, result.prompt_left_out_because.values, strict=True))
    assert "the model says" in told["wrong"]
    assert "last token" in told["unfit"]
    assert sum(reason == "" for reason in told.values()) == len(PROMPTS)
    assert np.isnan(result.prompt_divergence.sel(prompt="unfit")).all()
    assert np.isnan(result.prompt_centroid.sel(prompt="wrong"))
    with pytest.raises(LayerscopeError, match="no prompt is left to cut"):
        run(prompts=[wrong])
    assert run(prompts=[wrong], wrong=True).attrs["prompts"] == 1


def test_prompts_are_taken_from_the_categories_in_turn() -> None:
    result = run(prompts=PROMPTS, cut_prompts=3)

    assert sorted(result.prompt.values) == ["old-0", "red-0", "red-1"]
    assert any("3 of 6 prompts were cut" in caution for caution in read_json(result, "cautions"))


def test_short_passages_are_left_out_by_name() -> None:
    result = run(passages=[*TEXTS, "the dog"])

    told = dict(zip(result.passage.values, result.left_out_because.values, strict=True))
    assert told.pop("passage-004").startswith("too short")
    assert set(told.values()) == {""}
    assert any("left out" in caution for caution in read_json(result, "cautions"))


@pytest.mark.parametrize(
    ("passages", "settings", "problem"),
    [
        (["the dog"], {}, "beyond the last range"),
        (["the"], {}, "beyond the last range"),
        ([""], {}, "empty"),
        (TEXTS, {"ranges": (3, 400)}, "beyond the last range"),
        (TEXTS, {"ranges": (-3,)}, "does not fit"),
        (TEXTS, {"windows": ()}, "does not fit"),
        (TEXTS, {"windows": (0,)}, "does not fit"),
        (TEXTS, {"windows": [True]}, "not true or false"),
        (TEXTS, {"fates": ("first", "first")}, "does not fit"),
        (TEXTS, {"fates": ("burn",)}, "does not fit"),
    ],
)
def test_bad_input_is_refused_by_name(passages: list[str], settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LayerscopeError, match=problem):
        run(passages=passages, **settings)


@pytest.mark.parametrize("family", ["gptj", "bloom"])
def test_families_whose_edges_cannot_be_cut_are_refused_by_name(family: str) -> None:
    with pytest.raises(LayerscopeError, match="not available on"):
        run(family)


def test_texts_without_bos_are_cut_with_a_caution() -> None:
    result = ls.run(
        "attention_knockout", zoo.layered("gpt2"), passages=TEXTS, bos="never", **FEW, progress=False
    )

    assert any("Nothing stands first" in caution for caution in read_json(result, "cautions"))
