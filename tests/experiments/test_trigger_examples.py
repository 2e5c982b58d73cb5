from __future__ import annotations

import csv
import gc
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.contract import Inputs
from layerscope.experiments import (
    trigger_examples,
)
from layerscope.experiments.trigger_examples import Settings, items, measure, pages
from layerscope.experiments.trigger_examples.items.contexts import context_items
from layerscope.experiments.trigger_examples.measure.best import Best
from layerscope.experiments.trigger_examples.pages import annotations
from layerscope.planted import bigram_key
from layerscope.results.annotation_sheets import Judgements, read_sheets, write_sheet
from layerscope.text.passages import Passage
from layerscope.text.tokenised import tokenise_passage

TEXTS = [
    "the red fox met the old dog in the town",
    "a small bird sang and the dog ran to the red town of stone",
    "the red fox met the old dog in the town",  # again, word by word
    "an old bird sang to the red fox in a town of stone and dogs",
    "the dog met a bird",
]
KEYS = ("0:3", "1:11", "3:40")
# Independent of what is tried: the output projections by name.
PROJECTIONS = {
    "gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "llama": "mlp.down_proj", "mistral": "mlp.down_proj",
    "gemma2": "mlp.down_proj", "opt": "fc2",
}  # fmt: skip
SMALL = {"keys": KEYS, "top": 4, "window": 8, "kept_tokens": (1, 2, 5), "edited": 2, "random_contexts": 50,
         "null_sets": 20, "resamples": 50, "permutations": 99}  # fmt: skip


def run(model: Any, **settings: Any) -> xr.Dataset:
    texts = settings.pop("passages", TEXTS)
    return ls.run("trigger_examples", model, passages=texts, progress=False, **(SMALL | settings))


def tokenised() -> list[tuple[int, ...]]:
    return [
        tokenise_passage(zoo.tokenizer(), Passage(name=str(i), text=t)).tokens.ids
        for i, t in enumerate(TEXTS)
    ]


def activations(model: Any, family: str, ids: tuple[int, ...]) -> np.ndarray:
    """[layer token key], by torch's own hooks on modules found by name."""
    kept: list[np.ndarray] = []
    handles = [
        block.get_submodule(PROJECTIONS[family]).register_forward_pre_hook(
            lambda _, args: kept.append(args[0].reshape(len(ids), -1).detach().numpy())
        )
        for block in model.blocks
    ]
    with torch.no_grad():
        model.module(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return np.stack(kept)


@pytest.mark.parametrize("family", list(PROJECTIONS))
def test_top_contexts_are_those_of_a_plain_search(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    result = run(model)
    texts = tokenised()
    found = [activations(model, family, ids) for ids in texts]

    names = set()
    for layer, key in (tuple(map(int, name.split(":"))) for name in KEYS):
        for tail, name in ((1, f"{layer}:{key}"), (-1, f"{layer}:{key} negative")):
            expected = _plain(found, texts, layer, key, tail, most=4)
            if tail < 0 and not expected and name not in result.key.values:
                continue
            names.add(name)
            mine = result.isel(context=np.flatnonzero(result.context_key.values == name))
            np.testing.assert_allclose(
                mine.activation, [value for value, *_ in expected], rtol=1e-4, atol=1e-6
            )
            places = [(f"passage-{text + 1:03d}", position) for _, text, position in expected]
            assert list(zip(mine.context_passage.values, mine.context_position.values, strict=True)) == places
    assert set(result.key.values) == names


def _plain(
    found: list[np.ndarray],
    texts: list[tuple[int, ...]],
    layer: int,
    key: int,
    tail: int,
    *,
    most: int,
    alike: int = 8,
) -> list[tuple[float, int, int]]:
    places = [
        (tail * float(a[layer, position, key]), text, position)
        for text, a in enumerate(found)
        for position in range(1, a.shape[1])
        if tail * a[layer, position, key] > 0
    ]
    chosen: list[tuple[float, int, int]] = []
    seen: set[tuple[int, ...]] = set()
    # The first and third passage are equal, and so are their activations up to rounding.
    for value, text, position in sorted(places, key=lambda p: (-round(p[0], 5), p[1], p[2])):
        ending = texts[text][max(0, position - alike + 1) : position + 1]
        if ending not in seen and len(chosen) < most:
            seen.add(ending)
            chosen.append((value, text, position))
    return chosen


def test_places_that_wait_are_sorted_as_if_all_had_come_at_once() -> None:
    rng = np.random.default_rng(0)
    most, best = 4, Best(3, 4, 2)
    columns = {
        "unit": rng.integers(0, 3, 6000),
        "value": rng.integers(0, 500, 6000).astype(np.float32),  # many are equal
        "text": np.repeat(np.arange(300), 20),
        "position": np.tile(np.arange(20), 300),
        "alike": rng.integers(0, 40, 6000).astype(np.uint64),
    }
    for start in range(0, 6000, 20):
        some = {name: column[start : start + 20] for name, column in columns.items()}
        high = some["value"] >= best.threshold[some["unit"]]
        found = {name: column[high] for name, column in some.items()}
        windows = {
            "along": np.zeros((high.sum(), 2), np.float32),
            "ids": np.stack([found["text"]] * 2, axis=1),
        }
        best.add(found | windows)
    best.settle()

    assert (best.threshold > 0).all()
    for unit in range(3):
        mine = [
            (-value, text, position, alike)
            for at, value, text, position, alike in zip(*columns.values(), strict=True)
            if at == unit
        ]
        expected: list[tuple[float, int, int]] = []
        seen: set[int] = set()
        for value, text, position, alike in sorted(mine):
            if alike not in seen and len(expected) < most:
                seen.add(alike)
                expected.append((-value, text, position))
        tables = [best.table(name, -1)[unit].tolist() for name in ("value", "text", "position")]
        assert list(zip(*tables, strict=True)) == expected
        assert best.table("ids", -1)[unit, :, 0].tolist() == tables[1]


def test_contexts_that_read_alike_do_not_crowd_out_others() -> None:
    family = "llama"
    model = zoo.layered(family)
    text = "met met met met met met met met met met met met met met met met the dog met a bird"
    result = run(model, passages=[text], distinct_tokens=1, top=3, keys=("2:7", "2:8", "2:9", "2:10"))
    ids = tokenise_passage(zoo.tokenizer(), Passage(name="0", text=text)).tokens.ids
    found = [activations(model, family, ids)]

    for name in result.key.values:
        key, tail = int(name.split()[0][2:]), -1 if "negative" in name else 1
        expected = _plain(found, [ids], 2, key, tail, most=3, alike=1)
        mine = result.isel(context=np.flatnonzero(result.context_key.values == name))
        np.testing.assert_allclose(mine.activation, [value for value, *_ in expected], rtol=1e-4, atol=1e-6)


def test_without_a_sense_of_alikeness_repeats_count() -> None:
    model = zoo.layered("llama")

    once, twice = (run(model, distinct_tokens=n).context_passage.values for n in (8, 0))

    assert "passage-003" not in once
    assert "passage-003" in twice


def test_relu_has_one_tail_and_gated_keys_have_two() -> None:
    assert not any("negative" in name for name in run(zoo.layered("gpt2", flipped=True)).key.values)
    assert sum("negative" in name for name in run(zoo.layered("llama")).key.values) == 3


def inputs_of(model: Any) -> Inputs:
    passages = [tokenise_passage(zoo.tokenizer(), Passage(name=str(i), text=t)) for i, t in enumerate(TEXTS)]
    return Inputs(facts=model.facts, passages=tuple(passages))


def stages_of(model: Any, inputs: Inputs, settings: Settings, *, together: int) -> dict[str, xr.Dataset]:
    """All stages, with so many passages in each item of the search."""
    earlier: dict[str, xr.Dataset] = {}
    for stage in experiments.load("trigger_examples").stages:
        items: list[Any] = list(stage.items(inputs, settings, earlier))
        if stage.name == "search":
            (whole,) = items
            items = [
                whole.model_copy(
                    update={"first": start, "passages": whole.passages[start : start + together]}
                )
                for start in range(0, len(whole.passages), together)
            ]
        parts = [stage.measure(model, item, settings, earlier) for item in items]
        if stage.combine:
            earlier[stage.name] = reduce(stage.combine, parts)
        else:
            from layerscope.results.combine import concatenate

            earlier[stage.name] = concatenate(parts, along=stage.along)
    return earlier


@pytest.mark.parametrize("top", [2, 25])
def test_the_fold_gives_the_same_however_the_corpus_is_cut(top: int) -> None:
    model = zoo.layered("gemma2", flipped=True)
    settings = Settings(**(SMALL | {"top": top}))
    inputs = inputs_of(model)

    pieces, whole = (stages_of(model, inputs, settings, together=n)["search"] for n in (1, 5))

    assert pieces.sizes == whole.sizes
    for name in ("text", "position_in_text", "ids", "counts", "random_text", "random_position", "random_ids"):
        np.testing.assert_array_equal(pieces[name], whole[name], err_msg=name)
    for name in ("value", "along"):
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-4, atol=1e-6)


def test_a_part_is_no_larger_for_a_longer_corpus() -> None:
    model = zoo.layered("gpt2")
    settings = Settings(**SMALL)
    inputs = inputs_of(model)
    more = inputs.model_copy(update={"passages": inputs.passages * 8})
    census = stages_of(model, inputs, settings, together=5)["census"]

    def size(given: Inputs) -> int:
        (item,) = items.search_items(given, settings, {"census": census})
        return int(measure.measure_search(model, item, settings, {"census": census}).nbytes)

    assert size(more) == size(inputs)


def test_what_the_search_holds_does_not_grow_with_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("gpt2")
    settings = Settings(**SMALL)
    inputs = inputs_of(model)
    census = {"census": stages_of(model, inputs, settings, together=5)["census"]}
    monkeypatch.setattr(items, "_MOST_TOKENS", 200)  # many work items, as a long corpus has
    monkeypatch.setattr(items, "_FEWEST_TOKENS", 100)

    def held(times: int) -> tuple[int, int]:
        given = inputs.model_copy(update={"passages": inputs.passages * times})
        tracemalloc.start(12)
        parts = (
            measure.measure_search(model, item, settings, census)
            for item in items.search_items(given, settings, census)
        )
        folded = reduce(measure.fold_search, parts)
        gc.collect()  # Datasets refer to themselves, and are freed when Python looks for such
        # Checking types, which is done in tests alone, remembers every function that a pass defines.
        checking = tracemalloc.Filter(False, "*/beartype/*", all_frames=True)
        kept = tracemalloc.take_snapshot().filter_traces([checking])
        tracemalloc.stop()
        return sum(trace.size for trace in kept.traces), folded.nbytes

    held(64)  # what is set up once
    (longer, one_part), (shorter, _) = held(64), held(16)
    assert longer - shorter < 3 * one_part  # of fifteen more parts, none is kept


def test_replaced_contexts_are_run_as_said() -> None:
    family = "mistral"
    model = zoo.layered(family, flipped=True)
    settings, inputs = Settings(**SMALL), inputs_of(model)
    earlier = stages_of(model, inputs, settings, together=5)
    items = list(context_items(inputs, settings, earlier))

    edited = 0
    for item in items:
        made = measure.measure_contexts(model, item, settings, earlier)
        for row, context in enumerate(item.contexts):
            here = made.isel(context=row)
            if not context.other:
                assert np.isnan(here.activation_with_last_replaced)
                continue
            edited += 1
            sign = -1 if "negative" in context.unit else 1
            window, other, bos = context.window, context.other, inputs.passages[0].tokens.ids[0]
            assert len(other) == len(window)
            assert other[-1] != window[-1]
            texts = {
                "activation_in_window": (bos, *window),
                "activation_with_last_replaced": (bos, *window[:-1], other[-1]),
            }
            for name, ids in texts.items():
                plain = sign * activations(model, family, ids)[item.layer, -1, context.key]
                np.testing.assert_allclose(here[name], plain, rtol=1e-4, atol=1e-6)
            for kept in (0, 1, 2, 5):
                value = float(here.activation_with_kept.sel(kept_tokens=kept))
                cut = len(window) - kept
                if cut <= 0:
                    assert np.isnan(value)
                    continue
                ids = (bos, *other[:cut], *window[len(window) - kept :])
                plain = sign * activations(model, family, ids)[item.layer, -1, context.key]
                np.testing.assert_allclose(value, plain, rtol=1e-4, atol=1e-6)
    assert edited >= 6


def test_values_rank_the_next_token_as_the_unembedding_does() -> None:
    model = zoo.layered("llama")
    result = run(model)
    llama = model.module

    for row in range(0, result.sizes["context"], 5):
        here = result.isel(context=row)
        layer, key = map(int, str(here.context_key.values).split()[0].split(":"))
        sign = -1 if "negative" in str(here.context_key.values) else 1
        value = sign * llama.model.layers[layer].mlp.down_proj.weight[:, key]
        logits = llama.lm_head(llama.model.norm(value)).detach()
        assert int(here.value_top) == int(logits.argmax())
        if int(here.next_id) >= 0:
            assert float(here.next_rank) == 1 + int((logits > logits[int(here.next_id)]).sum())


def test_a_tuned_lens_translates_values_before_they_are_read(tmp_path: Path) -> None:
    model = zoo.layered("llama")
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(64, 64, generator=generator) * 0.2 for _ in range(4)]
    save_file(
        {f"{d}.weight": w for d, w in enumerate(weights)} | {f"{d}.bias": torch.ones(64) for d in range(4)},
        tmp_path / "params.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 64, "num_hidden_layers": 4}))
    result = run(model, tuned=str(tmp_path))

    differ = 0
    for row in range(result.sizes["context"]):
        here = result.isel(context=row)
        layer, key = map(int, str(here.context_key.values).split()[0].split(":"))
        sign = -1 if "negative" in str(here.context_key.values) else 1
        value = sign * model.module.model.layers[layer].mlp.down_proj.weight[:, key].detach()
        if layer < 3:  # behind the last block there is no translator
            value = value + weights[layer + 1] @ value
        logits = model.module.lm_head(model.module.model.norm(value)).detach()
        assert int(here.value_top_tuned) == int(logits.argmax())
        differ += int(here.value_top_tuned) != int(here.value_top)
    assert differ
    assert np.isfinite(result.mean_next_percentile_tuned).any()
    figure = ls.draw(result)["Rank of the next token by value"]
    assert {trace.name for trace in figure.data if trace.name} >= {"keys, logit lens", "keys, tuned lens"}
    (claim,) = [claim for claim in trigger_examples.claims(result) if "promotes most follows" in claim.text]
    assert "tuned lens" in claim.caveat


def test_what_keys_share_is_counted_from_their_contexts() -> None:
    result = run(zoo.layered("gpt_neox"))
    ids = tokenised()

    for name in result.key.values:
        mine = result.isel(context=np.flatnonzero(result.context_key.values == name))
        places = zip(mine.context_passage.values, mine.context_position.values, strict=True)
        ends = [ids[int(passage[-3:]) - 1][position] for passage, position in places]
        pairs = [(a == b) for i, a in enumerate(ends) for b in ends[i + 1 :]]
        np.testing.assert_allclose(result.shared_last_token.sel(key=name), np.mean(pairs))


def test_a_layers_outputs_are_compared_with_what_its_values_say() -> None:
    # Of the planted model, only one key of block 1 writes, and what it writes is one token.
    result = ls.run(
        "trigger_examples", bigram_key.bigram_key(), passages=bigram_key.passages(), progress=False,
        composition_tokens=40,
    )  # fmt: skip

    np.testing.assert_allclose(result.mean_unmatched_share, [np.nan, 0, np.nan])
    assert set(result.key.values) == {"1:5"}
    assert result.value_top_text.sel(key="1:5") == "sang"
    np.testing.assert_allclose(result.kept.sel(key="1:5", kept_tokens=[0, 1, 2]), [0, 0, 1], atol=0.05)


@pytest.fixture(scope="module")
def read_result() -> xr.Dataset:
    return run(zoo.layered("llama"), keys=("0:3", "3:40"))


def test_pages_for_reading_mark_the_token_that_excites(read_result: xr.Dataset) -> None:
    read = experiments.load("trigger_examples").read
    assert read is not None

    found = read(read_result)

    assert list(found) == ["layer 0: what excites its keys", "layer 3: what excites its keys"]
    chapter = found["layer 3: what excites its keys"].chapters[0]
    assert chapter.name == "3:40"
    for place, excerpt in enumerate(chapter.excerpts):
        marked = [piece for piece in excerpt.pieces if piece.marked]
        assert len(marked) == 1
        assert marked[0].shade == pytest.approx(1.0)
        mine = read_result.isel(context=np.flatnonzero(read_result.context_key.values == "3:40")[place])
        assert json.loads(str(mine.context_text.values))[int(mine.context_length) - 1] == marked[0].text


def test_keys_whose_contexts_end_alike_come_first_on_their_page() -> None:
    result = run(zoo.layered("llama"), keys=("3:1", "3:2", "3:40"))
    result["shared_last_token"].values[:] = [0.1, np.nan, 0.7]
    read = experiments.load("trigger_examples").read
    assert read is not None

    (page,) = read(result).values()

    assert [chapter.heading for chapter in page.chapters] == ["L3 MLP key 40", "L3 MLP key 1", "L3 MLP key 2"]


def test_the_sheet_is_blind_and_comes_back(read_result: xr.Dataset, tmp_path: Any) -> None:
    experiment = experiments.load("trigger_examples")
    assert experiment.sheet is not None
    assert experiment.judged is not None
    sheet = experiment.sheet(read_result)
    said = {"anna": ("Ends in dog", "shallow"), "bert": ("dogs", "semantic")}
    for name, (pattern, kind) in said.items():
        path = write_sheet(tmp_path, sheet, name)
        content = path.read_text(encoding="utf-8-sig")
        assert "layer" not in content
        assert "3:40" not in content
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            row["pattern"], row["kind"] = (pattern, kind) if number % 4 else ("", "none")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    judged = experiment.judged(read_result, read_sheets(tmp_path, sheet))

    n = read_result.sizes["context"]
    texts = [claim.text for claim in judged.claims]
    assert texts[0].startswith("Annotator anna found 1.0 patterns per key")
    assert "Krippendorff's alpha" in texts[2]
    none = np.arange(n) % 4 == 0
    # Both say "none" of every fourth context and differ on all others: by hand, from the formula.
    observed = (~none).mean()
    a, b = 2 * none.sum(), (~none).sum()
    expected = 1 - (a * (a - 1) + 2 * b * (b - 1)) / (2 * n * (2 * n - 1))
    assert judged.claims[2].value == pytest.approx(1 - observed / expected)
    assert "anna: “ends in dog”" in judged.notes["0:3"]
    assert judged.figures["What did annotators find?"].data


def test_of_two_keys_agreement_is_told_without_an_interval(read_result: xr.Dataset) -> None:
    names = annotations.row_names(read_result)
    kinds = {"anna": ("shallow", "none"), "ben": ("shallow", "semantic")}
    answers = {
        who: {name: {"pattern": "x", "kind": said[place % 2]} for place, name in enumerate(names)}
        for who, said in kinds.items()
    }
    judged = annotations.judged(read_result, Judgements(answers))

    (agreement,) = [claim for claim in judged.claims if "alpha" in claim.text]
    assert agreement.value is not None
    assert (agreement.low, agreement.significant) == (None, False)
    assert agreement.text.startswith("Too few keys to test the agreement of annotators beyond chance")


def test_answers_nobody_gave_change_nothing(read_result: xr.Dataset) -> None:
    experiment = experiments.load("trigger_examples")
    assert experiment.judged is not None
    some = {"anna": dict[str, Mapping[str, str]]()}

    assert experiment.judged(read_result, Judgements({})).claims == []
    assert experiment.judged(read_result, Judgements(some)).claims == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"keys": ("9:0",)}, "no such key"),
        ({"keys": ("0:9999",)}, "no such key"),
        ({"keys": ("0:1:3",)}, r"no such key(.|\n)*keys 0 to 191"),
        ({"keys": ("a",)}, "is not layer:key"),
        ({"kept_tokens": (5, 2)}, "rising"),
        ({"window": 4}, "window must be longer"),
        ({"first_position": 99}, "no token is left"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LayerscopeError, match=problem):
        run(zoo.layered("gpt2"), **settings)


@pytest.mark.parametrize("share", [True, False], ids=["with share", "alone"])
def test_top_contexts_of_experts_are_those_of_a_plain_search(share: bool) -> None:
    model = zoo.layered("mixtral")  # two of four experts; the loop below shares no code with the run's
    names = ("0:1:3", "1:3:11", "3:0:40")
    result = run(model, keys=names, routing_share=share, top=3)
    texts = tokenised()
    found = [_of_experts(model, ids, share) for ids in texts]

    assert set(result.key_index.values) == {1 * 96 + 3, 3 * 96 + 11, 40}
    for name in result.key.values:
        layer, expert, key = map(int, str(name).split()[0].split(":"))
        tail = -1 if "negative" in str(name) else 1
        expected = _plain(found, texts, layer, expert * 96 + key, tail, most=3)
        mine = result.isel(context=np.flatnonzero(result.context_key.values == name))
        np.testing.assert_allclose(mine.activation, [value for value, *_ in expected], rtol=1e-4, atol=1e-6)
        places = [(f"passage-{text + 1:03d}", position) for _, text, position in expected]
        assert list(zip(mine.context_passage.values, mine.context_position.values, strict=True)) == places
        value = tail * model.module.model.layers[layer].mlp.experts.down_proj[expert, :, key]
        top = int(model.module.lm_head(model.module.model.norm(value)).argmax())
        assert set(mine.value_top.values.tolist()) <= {top}
    page = trigger_examples.read(result)["layer 0: what excites its keys"]
    assert page.chapters[0].heading == "L0 expert 1 key 3"


def _of_experts(model: Any, ids: tuple[int, ...], share: bool) -> np.ndarray:
    """[layer token key], each token through its two experts by hand."""
    kept: list[torch.Tensor] = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, args: kept.append(args[0][0].clone()))
        for block in model.blocks
    ]
    with torch.no_grad():
        model.module(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    found = np.zeros((4, len(ids), 4, 96), dtype=np.float32)
    for layer, states in enumerate(kept):
        mlp = model.blocks[layer].mlp
        for place, x in enumerate(states):
            logits = mlp.gate.weight @ x
            best = logits.argsort(descending=True)[:2]
            for expert, weight in zip(best, logits[best].softmax(0), strict=True):
                gate, up = (mlp.experts.gate_up_proj[expert] @ x).chunk(2)
                inside = torch.nn.functional.silu(gate) * up * (weight if share else 1.0)
                found[layer, place, int(expert)] = inside.detach().numpy()
    return found.reshape(4, len(ids), -1)


def test_keys_of_experts_are_drawn_and_counted() -> None:
    result = run(zoo.layered("gpt_oss"), keys=(), keys_per_layer=3)

    assert all(name.split()[0].count(":") == 2 for name in result.key.values)
    # Two of four experts are met by a token, so at most half of the keys are above 0.
    assert (result.mean_active_share < 0.5).all()
    assert np.isfinite(result.mean_unmatched_share).any()


def test_where_no_key_is_ever_excited_there_is_nothing_to_read() -> None:
    with pytest.raises(LayerscopeError, match="no key is ever excited"):
        ls.run(
            "trigger_examples",
            bigram_key.bigram_key(strength=0.0),
            passages=bigram_key.passages(),
            progress=False,
        )


def test_one_passage_alone_is_not_taken_apart_and_says_so() -> None:
    result = run(zoo.layered("llama"), passages=TEXTS[:1])

    assert any("taken apart" in caution for caution in json.loads(result.attrs["cautions"]))
    assert np.isnan(result.coherence).all()


def figures_of(result: xr.Dataset) -> Iterator[str]:
    yield from ls.draw(result)


def test_each_number_of_last_tokens_has_a_panel(read_result: xr.Dataset) -> None:
    drawn = ls.draw(read_result)

    for name in (
        "How many last tokens do keys need?",
        "Activation carried by the last tokens",
    ):
        panels = [note.text for note in drawn[name].layout.annotations]
        lengths = read_result.kept_tokens.values[1:]
        assert [f"last {n} token{'s' if n > 1 else ''}" for n in lengths] == panels[: len(lengths)]
    dashed = [
        trace.name for trace in drawn["Does the token that a value promotes follow?"].data if trace.line.dash
    ]
    assert dashed == ["its frequency in the corpus"]


def test_small_activations_keep_their_digits_on_a_page() -> None:
    said = [pages._three_digits(value) for value in (-0.01234, 0.5, 7.579, -12.3)]

    assert said == ["−0.0123", "0.500", "7.58", "−12.30"]


def test_figures_are_there_where_something_is_known(read_result: xr.Dataset) -> None:
    assert len(list(figures_of(read_result))) == 10
    assert len(list(figures_of(run(zoo.layered("gpt2"), composition_tokens=0, edited=0)))) == 5
