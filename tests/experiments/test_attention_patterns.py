"""attention_patterns against plain computations from whole patterns, and on models whose heads are known."""

from collections import defaultdict
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import layerscope as ls
import treebanks
import zoo
from layerscope import LayerscopeError, runs
from layerscope.experiments.attention_patterns.measure.tables import one_sum
from layerscope.maths.attention import DEFINITIONS
from layerscope.models.load import load_model
from layerscope.planted.looks_back import looks_back
from layerscope.runs.attention_questions import asked_of

TEXTS = [
    "the red fox met the old dog in the town of the red fox and the old dog sang to the town",
    "a small bird sang and the dog ran to the red town of stone and a small bird ran",
]
FAMILIES = ["llama", "mistral", "gemma2", "gpt_oss", "qwen3"]  # groups, windows, sinks, caps


def _plain(family: str, ids: list[int]) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Every layer's pattern, values and input states, by transformers' own eager attention."""
    model = zoo.make(family, flipped=True)
    model.set_attn_implementation("eager")
    values: dict[int, torch.Tensor] = {}
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    states: list[torch.Tensor] = []
    for layer, block in enumerate(blocks):
        block.register_forward_pre_hook(
            lambda m, args, kw: states.append((args[0] if args else kw["hidden_states"])[0]), with_kwargs=True
        )
        attention = next(m for n, m in block.named_modules() if n.rsplit(".", 1)[-1] in ("attn", "self_attn"))
        inner = getattr(attention, "v_proj", None) or attention.c_attn
        inner.register_forward_hook(lambda m, args, output, layer=layer: values.__setitem__(layer, output[0]))
    with torch.no_grad():
        patterns = [p[0].double() for p in model(torch.tensor([ids]), output_attentions=True).attentions]
    return patterns, [values[layer] for layer in sorted(values)], states


def _lengths(family: str, layer: int, v: torch.Tensor, heads: int) -> torch.Tensor:
    """‖v_j W_O^h‖ head by head, from the family's own weights [head token]."""
    model = zoo.make(family, flipped=True)
    block = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))[layer]
    if family == "gpt2":
        v, weight = v[:, -v.shape[1] // 3 :], block.attn.c_proj.weight
    else:
        weight = block.self_attn.o_proj.weight.T
    by_head = weight.detach().double().reshape(heads, -1, weight.shape[-1])
    width = by_head.shape[1]
    groups = v.shape[1] // width
    split = v.double().reshape(len(v), groups, width)
    return torch.stack([(split[:, h * groups // heads] @ by_head[h]).norm(dim=-1) for h in range(heads)])


def _expected(
    pattern: torch.Tensor, n: torch.Tensor, ids: list[int], fixed: tuple[int, int]
) -> dict[str, float]:
    """All sums of one head under one definition, pair by pair, in plain loops."""
    found: dict[str, float] = defaultdict(float)
    tokens, weighted = len(ids), (pattern * n).numpy()
    for i, j in product(range(1, tokens), range(tokens)):
        w = weighted[i, j]
        found["every"] += w
        found["distance"] += w * (i - j)
        found["first token"] += w * (j == 0)
        found["self"] += w * (j == i)
        found["previous token"] += w * (j == i - 1)
        found["duplicate token"] += w * (j < i and ids[j] == ids[i])
        found["induction"] += w * (0 < j < i and ids[j - 1] == ids[i])
        found["with duplicate"] += w * (ids[i] in ids[:i])
        found["with induction"] += w * (ids[i] in ids[: i - 1])
        if fixed[0] <= i < fixed[1]:
            found["fixed"] += w
            found["fixed distance"] += w * (i - j)
            found["offset 3"] += w * (i - j == 3)
            found["distance from 11"] += w * (11 <= i - j <= 50)
    lengths = bool(((n != 0) & (n != 1)).any())  # of what is written: no share that could be too small
    for w in weighted[1:]:
        if w.sum() >= 0.1 or lengths:
            p = w[w > 0] / w.sum()
            entropy = float(-(p * np.log(p)).sum())
            found["entropy"] += entropy
            found["span"] += float(np.exp(entropy))
            found["entropy queries"] += 1
    return found


@pytest.mark.parametrize("family", ["gpt2", *(pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES)])
def test_sums_equal_a_plain_computation(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "layerscope.runs.attention_columns.QUERIES_AT_ONCE", 7
    )  # several blocks, the last one short
    model = zoo.layered(family, flipped=True)
    ids = [0, *zoo.tokenizer().encode(TEXTS[0])][:40]
    fixed = (12, len(ids) - 2)
    lengths = runs.ValueLengths(model)
    found = runs.attention_sums(model, asked_of([ids], fixed=fixed), lengths)
    patterns, values, states = _plain(family, ids)

    assert set(found.value_sources.values()) == {"what the head writes"}
    for layer, pattern in enumerate(patterns):
        heads = pattern.shape[0]
        pattern = pattern[..., : len(ids)]  # an attention sink's column is not a key
        norms = states[layer].norm(dim=-1)
        ordered = norms.sort().values
        sinks = norms > 10 * ordered[(len(ids) - 1) // 2]
        written = _lengths(family, layer, values[layer], heads)
        for head in range(heads):
            ones = torch.ones(len(ids), dtype=torch.float64)
            first = ones.clone()
            first[0] = 0
            weights = [ones, first, (~sinks).double(), written[head]]
            place = [at for at, own in enumerate(found.layers) if own == layer][head]
            for definition, n in enumerate(weights):
                for name, value in _expected(pattern[head], n, ids, fixed).items():
                    got = float(one_sum(found.model, name)[definition, 0, place])
                    assert got == pytest.approx(value, rel=2e-3, abs=2e-3), (
                        layer,
                        head,
                        DEFINITIONS[definition],
                        name,
                    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_uniform_attention_is_uniform_over_what_the_mask_shows(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    ids = [0, *zoo.tokenizer().encode(TEXTS[0])][:30]
    window = 4 if family == "mistral" else len(ids)
    found = runs.attention_sums(model, asked_of([ids], fixed=(12, 28)), runs.ValueLengths(model))
    pattern = torch.zeros(len(ids), len(ids), dtype=torch.float64)
    for i in range(len(ids)):
        first = max(0, i - window + 1)
        pattern[i, first : i + 1] = 1 / (i + 1 - first)

    for name, value in _expected(pattern, torch.ones(len(ids)), ids, (12, 28)).items():
        np.testing.assert_allclose(
            one_sum(found.uniform, name)[0, 0], value, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.slow
def test_the_mean_pattern_and_deviations_from_it_equal_a_plain_computation() -> None:
    result = ls.run(
        "attention_patterns", zoo.layered("llama", flipped=True), TEXTS, mean_positions=6, progress=False
    )
    rows = [[0, *zoo.tokenizer().encode(text)][:6] for text in TEXTS]
    patterns = [torch.stack(_plain("llama", row)[0]).numpy() for row in rows]  # layer head query key
    mean = np.mean(patterns, axis=0)

    deviation = np.sum([np.abs(p - mean)[..., 1:, :].sum((-1, -2)) for p in patterns], axis=0)
    expected = deviation / (2 * len(rows) * 5)
    entropies = (
        -np.where(mean > 0, mean * np.log(np.where(mean > 0, mean, 1)), 0).sum(-1)[..., 1:].mean((-1, -2))
    )

    np.testing.assert_allclose(
        result.head_variability.sel(definition="all keys"), expected, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(result.own_mean_early_entropy.sel(definition="all keys"), entropies, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
def test_what_positions_alone_give_equals_a_plain_computation_under_every_definition(family: str) -> None:
    first = 16
    result = ls.run(
        "attention_patterns", zoo.layered(family, flipped=True), TEXTS, mean_positions=first, progress=False
    )
    rows = [[0, *zoo.tokenizer().encode(text)] for text in TEXTS]
    plain = [_plain(family, row) for row in rows]
    for layer in range(result.sizes["layer"]):
        mean = torch.stack([patterns[layer][:, :first, :first] for patterns, _, _ in plain]).mean(0)
        uniform = torch.tril(torch.ones(first, first, dtype=torch.float64))
        uniform = (uniform / uniform.sum(-1, keepdim=True)).expand_as(mean)
        for source, pattern in (("own_mean", mean), ("uniform", uniform)):
            if source == "uniform" and family == "gpt_oss":
                continue  # its windows differ from layer to layer
            ratios: dict[tuple[int, str], list[float]] = defaultdict(list)
            for head in range(len(pattern)):
                sums: list[dict[str, float]] = [defaultdict(float) for _ in range(3)]
                for row, (_, values, states) in zip(rows, plain, strict=True):
                    norms = states[layer].norm(dim=-1)
                    median = norms.sort().values[(len(norms) - 1) // 2]
                    ones = torch.ones(first, dtype=torch.float64)
                    without = ones.clone()
                    without[0] = 0
                    written = _lengths(family, layer, values[layer], len(pattern))[head][:first]
                    assert not (norms > 10 * median).any()  # no sinks: the third definition is the first
                    for place, n in enumerate((ones, without, written)):
                        for name, value in _expected(pattern[head], n, row[:first], (0, 0)).items():
                            sums[place][name] += value
                for place, own in enumerate(sums):
                    for name, above, below in (
                        ("distance", "distance", "every"),
                        ("entropy", "entropy", "entropy queries"),
                        ("previous_token_share", "previous token", "every"),
                        ("duplicate_share", "duplicate token", "with duplicate"),
                    ):
                        ratios[place, name].append(own[above] / own[below])
            for (place, name), by_head in ratios.items():
                got = result[f"{source}_early_{name}"].isel(layer=layer, definition=(0, 1, 3)[place])
                assert float(got) == pytest.approx(np.mean(by_head), rel=2e-3, abs=1e-5), (
                    source,
                    place,
                    name,
                )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gpt_oss"])
def test_distances_of_the_mean_pattern_at_fixed_queries_equal_a_plain_computation(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions alone, under every definition: whole patterns are averaged over texts, then weighed text by text."""
    monkeypatch.setattr(
        "layerscope.runs.attention_columns.QUERIES_AT_ONCE", 5
    )  # some blocks lie before the fixed queries
    result = ls.run(
        "attention_patterns", zoo.layered(family, flipped=True), TEXTS, mean_positions=4, progress=False
    )
    first, end = (int(value) for value in result.fixed_queries.values)
    rows = [[0, *zoo.tokenizer().encode(text)] for text in TEXTS]
    plain = [_plain(family, row) for row in rows]
    away = np.arange(end)[:, None] - np.arange(end)
    bins = [(0, 0), (1, 1), (2, 5), (6, 10), (11, 50)]
    for layer in range(result.sizes["layer"]):
        mean = torch.stack([patterns[layer][:, :end, :end] for patterns, _, _ in plain]).mean(0).numpy()
        written = [
            _lengths(family, layer, values[layer], len(mean))[:, :end].numpy() for _, values, _ in plain
        ]
        without_first = np.r_[0, np.ones(end - 1)]
        for definition, weights in (
            ("all keys", [np.ones((len(mean), end))] * 2),
            ("without first token", [np.tile(without_first, (len(mean), 1))] * 2),
            ("by value norm", written),
        ):
            distances, shares = [], []
            for head in range(len(mean)):
                w = sum((mean[head] * own[head])[first:end] for own in weights)
                distances.append((w * away[first:end]).sum() / w.sum())
                inside = [(away[first:end] >= low) & (away[first:end] <= high) for low, high in bins]
                shares.append([(w * part).sum() / w.sum() for part in inside])
            got = result.sel(definition=definition, layer=layer)
            assert float(got.own_mean_fixed_distance) == pytest.approx(np.mean(distances), rel=1e-3)
            np.testing.assert_allclose(
                got.own_mean_bin_share[: len(bins)], np.mean(shares, axis=0), rtol=2e-3, atol=1e-5
            )


@pytest.mark.slow
def test_at_fixed_queries_words_matter_only_where_texts_weigh_keys_differently() -> None:
    result = ls.run("attention_patterns", zoo.layered("llama", flipped=True), TEXTS, progress=False)

    for name in ("fixed_distance", "bin_share"):
        alike = result[f"own_mean_{name}"].sel(definition="all keys") - result[name].sel(
            definition="all keys"
        )
        np.testing.assert_allclose(alike.fillna(0), 0, atol=1e-4)
    own = result.own_mean_fixed_distance - result.fixed_distance
    assert float(np.abs(own.sel(definition="by value norm")).max()) > 1e-3


@pytest.mark.slow
def test_the_mean_pattern_at_fixed_queries_is_of_as_many_texts_as_asked_for() -> None:
    texts = [TEXTS[place % 2] for place in range(6)]

    few = ls.run("attention_patterns", zoo.layered("gpt2"), texts, fixed_texts=3, progress=False)
    none = ls.run("attention_patterns", zoo.layered("gpt2"), texts, fixed_texts=0, progress=False)

    assert int(few.fixed_texts) == 3
    assert "own_mean_fixed_distance" not in none
    assert "Distance beside that of positions alone" in ls.draw(few)
    assert "Distance beside that of positions alone" not in ls.draw(none)


@pytest.mark.slow
def test_where_keys_are_weighed_alike_in_all_texts_the_mean_pattern_gives_what_the_model_gives() -> None:
    """Sums of shares by position are linear, so the head's mean over texts has the same: no null at all."""
    result = ls.run("attention_patterns", zoo.layered("llama", flipped=True), TEXTS, progress=False)

    for definition in ("all keys", "without first token"):
        here = result.sel(definition=definition)
        for name in ("distance", "first_token_share", "previous_token_share", "own_token_share", "bin_share"):
            np.testing.assert_allclose(
                here[f"own_mean_early_{name}"], here[f"early_{name}"], rtol=1e-4, atol=1e-6
            )
        assert (
            here.own_mean_early_entropy > here.early_entropy
        ).all()  # a mean is wider than what it averages


@pytest.mark.slow
def test_attention_along_dependencies_equals_a_plain_computation() -> None:
    from layerscope.text.treebanks import load_treebank

    source = treebanks.small(documents=4)
    result = ls.run(
        "attention_patterns", zoo.layered("gpt2", flipped=True), TEXTS, treebank=source, progress=False
    )
    related, every = np.zeros((4, 4)), 0
    for sentence in load_treebank(source):
        encoding = zoo.tokenizer()(sentence.text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = [0, *encoding["input_ids"]], [(0, 0), *encoding["offset_mapping"]]
        words = [
            next(
                (
                    w
                    for w, (a, b) in enumerate(sentence.spans)
                    if max(a, start + sentence.text[start:end].startswith(" ")) < min(b, end)
                ),
                -1,
            )
            for start, end in offsets
        ]
        patterns = _plain("gpt2", ids)[0]
        for i in range(1, len(ids)):
            for j in range(i):
                a, b = words[i], words[j]
                above = a + 1 == sentence.head[b] or b + 1 == sentence.head[a]
                if min(a, b) >= 0 and a != b and above:
                    related += np.array([[float(p[h, i, j]) for h in range(4)] for p in patterns])
        every += len(ids) - 1

    np.testing.assert_allclose(
        result.head_dependency_share.sel(definition="all keys"), related / every, rtol=1e-3
    )


@pytest.mark.slow
def test_a_planted_offset_is_found_and_no_other_head_has_one() -> None:
    result = ls.run("attention_patterns", looks_back(by=3), progress=False)

    offsets = result.fixed_offset.values
    assert offsets[1, 1] == 3
    assert np.isnan(np.delete(offsets.ravel(), 1 * offsets.shape[1] + 1)).all()
    share = result.head_offset_share.sel(definition="all keys", layer=1)[:, 1]
    assert float(share.sel(offset=3)) > 1 - 1e-5
    assert float(result.bin_share.sel(distance_bin="2–5", definition="all keys", layer=0)) < 0.5


@pytest.mark.slow
def test_induction_is_found_in_random_text_read_twice() -> None:
    """A head that looks exactly as far back as the induction target lies finds it, and only there."""
    result = ls.run(
        "attention_patterns",
        looks_back(by=7),
        [TEXTS[0]],
        repeated_tokens=8,
        mean_positions=4,
        progress=False,
    )

    induction = result.head_repeat_induction_share.sel(definition="all keys")
    assert float(induction[1, 1]) > 0.9
    assert float(result.head_repeat_duplicate_share.sel(definition="all keys")[1, 1]) < 0.05
    assert float(induction[0].max()) < 0.2
    # The head looks back by position: in text that is not read twice it gives these places as much.
    positions_alone = result.own_mean_repeat_induction_share.sel(definition="all keys")
    np.testing.assert_allclose(positions_alone[1], induction[1].mean(), rtol=1e-3)


@pytest.mark.slow
def test_a_distance_beyond_the_window_has_no_value() -> None:
    result = ls.run("attention_patterns", zoo.layered("mistral", flipped=True), TEXTS, progress=False)

    far = result.bin_share.sel(definition="all keys", distance_bin="6–10")
    assert np.isnan(far).all()
    assert np.isfinite(result.bin_share.sel(definition="all keys", distance_bin="2–5")).all()


@pytest.mark.slow
def test_memory_never_holds_a_whole_pattern() -> None:
    """Every block of queries is gone before the next: no tensor of T x T per head outlives its block."""
    model = zoo.layered("gpt2", flipped=True)
    ids = [0, *zoo.tokenizer().encode(TEXTS[0])][:48]
    seen: list[int] = []
    from layerscope.runs import attention_columns

    before = attention_columns.Columns.add

    def watching(self: Any, block: Any, pattern: torch.Tensor) -> None:
        seen.append(pattern.shape[-2])
        before(self, block, pattern)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_columns, "QUERIES_AT_ONCE", 16)
        patch.setattr(attention_columns.Columns, "add", watching)
        runs.attention_sums(model, asked_of([ids]), runs.ValueLengths(model))

    assert max(seen) == 16


def test_passages_shorter_than_the_farthest_single_distance_are_read() -> None:
    asked = asked_of([[0, 5, 9, 5, 7, 9]], fixed=(3, 6))

    offsets = {int(pair[1] - pair[2]) for pair in asked.pairs.T if asked.kinds[pair[3]].startswith("offset")}
    assert offsets == set(range(6))


def test_passages_without_two_keys_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="nothing to attend to"):
        ls.run("attention_patterns", zoo.layered("gpt2"), ["a"], progress=False)


@pytest.mark.slow
def test_a_model_without_watchable_attention_is_refused_by_name() -> None:
    with pytest.raises(LayerscopeError, match="pattern is not available"):
        ls.run(
            "attention_patterns",
            load_model(zoo.make("bloom"), tokenizer=zoo.tokenizer()),
            TEXTS,
            progress=False,
        )
