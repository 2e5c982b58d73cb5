"""Directions of weights: against plain SVDs, planted sets, and a language model that is a real server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments, planted
from layerscope.experiments.weight_directions.conclude.rated import rate_variables
from layerscope.experiments.weight_directions.measure import parts
from layerscope.experiments.weight_directions.settings import kind_in_words
from layerscope.jobs import running, selftest
from layerscope.models import projections
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted.token_set import COLOURS, HEAD, LAYER, PEOPLE, token_set

SMALL: dict[str, Any] = {
    "random_directions": 100,
    "rotations": 8,
    "untrained_layers": 1,
    "edits": 0,
    "resamples": 20,
    "directions": 16,
    "shortest_token": 1,
    "corpus": "",
    "tagged_corpus": "",
    "tokens_by": "product",
    "rater": "own embedding",
    "known_sets": "",
}


def run(model: Any, **settings: Any) -> xr.Dataset:
    return ls.run("weight_directions", model, progress=False, **(SMALL | settings))


def rows(result: xr.Dataset, **wanted: Any) -> np.ndarray:
    fits = result.origin.values == wanted.pop("origin", "singular")
    for name, value in wanted.items():
        fits &= (
            result[
                {"layer": "direction_layer", "kind": "direction_kind", "matrix": "direction_matrix"}[name]
            ].values
            == value
        )
    return np.flatnonzero(fits)


# Plain matrices by the families' own names: [width width] products that are never formed in the package.

Plain = Callable[[Any, int, int], tuple[torch.Tensor, torch.Tensor]]


def _separate(block: Any, head: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    attention = block.self_attn
    kv, size = head // groups, 16
    value = attention.v_proj.weight.T[:, kv * size : (kv + 1) * size]
    return value, attention.o_proj.weight.T[head * size : (head + 1) * size]


def _gpt2(block: Any, head: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    at = slice(head * 12, head * 12 + 12)
    return block.attn.c_attn.weight[:, 96:][:, at], block.attn.c_proj.weight[at]


def _neox(block: Any, head: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    fused = block.attention.query_key_value.weight.T.reshape(64, 4, 3, 16)
    return fused[:, head, 2], block.attention.dense.weight.T[head * 16 : head * 16 + 16]


FAMILIES: dict[str, Plain] = {
    "gpt2": _gpt2,
    "gpt_neox": _neox,
    "llama": _separate,
    "mistral": _separate,
    "gemma2": _separate,
    "gpt_oss": _separate,
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_directions_and_tokens_agree_with_a_plain_svd_of_the_whole_matrix(family: str) -> None:
    model = zoo.layered(family, flipped=family == "mistral")
    result = run(model, kinds=["OV reads", "OV writes", "MLP writes"], top_tokens=6)
    embedding = model.module.get_input_embeddings().weight
    unembedding = model.module.get_output_embeddings().weight
    special = model.tokenizer.all_special_ids
    compared = 0
    for head in (0, 3):
        value, output = FAMILIES[family](model.blocks[1], head, 2)
        u, scales, v = torch.linalg.svd((value.double() @ output.double()).detach())
        reads = rows(result, layer=1, kind="OV reads", matrix=f"head {head}")
        writes = rows(result, layer=1, kind="OV writes", matrix=f"head {head}")
        np.testing.assert_allclose(result.scale.values[writes], scales[: len(writes)], rtol=1e-4)
        for rank in range(len(writes)):
            if scales[rank] / scales[rank + 1] < 1.05 or (rank and scales[rank - 1] / scales[rank] < 1.05):
                continue
            written, read = unembedding.double() @ v[rank], embedding.double() @ u[:, rank]
            shown = ~np.isin(np.arange(len(written)), special) & (result_allowed(model))
            sign = 1.0 if written[shown].max() > -written[shown].min() else -1.0
            for row, scores in ((writes[rank], sign * written), (reads[rank], sign * read)):
                kept = scores.detach().numpy().copy()
                kept[~shown] = -np.inf
                assert result.top_token.values[row, 0].tolist() == np.argsort(-kept)[:6].tolist()
                compared += 1
    assert compared >= 2


def result_allowed(model: LayeredModel) -> np.ndarray:
    """Tokens that can be read: not half a character, not blank."""
    texts = [model.tokenizer.decode([token]) for token in range(len(model.tokenizer))]
    shown = [bool(text.strip()) and "\ufffd" not in text for text in texts]
    return np.array(shown + [False] * (zoo.VOCABULARY - len(shown)))


Matrices = Callable[[Any], dict[str, torch.Tensor]]


def _gated(block: Any) -> dict[str, torch.Tensor]:
    mlp = block.mlp
    return {
        "MLP gates": mlp.gate_proj.weight.T,
        "MLP reads": mlp.up_proj.weight.T,
        "MLP writes": mlp.down_proj.weight.T,
    }


MLPS: dict[str, Matrices] = {
    "gpt2": lambda block: {"MLP reads": block.mlp.c_fc.weight, "MLP writes": block.mlp.c_proj.weight},
    "gpt_neox": lambda block: {
        "MLP reads": block.mlp.dense_h_to_4h.weight.T,
        "MLP writes": block.mlp.dense_4h_to_h.weight.T,
    },
    "opt": lambda block: {"MLP reads": block.fc1.weight.T, "MLP writes": block.fc2.weight.T},
    "llama": _gated,
    "gemma2": _gated,
}


@pytest.mark.parametrize("family", list(MLPS))
def test_directions_of_mlps_agree_with_a_plain_svd(family: str) -> None:
    model = zoo.layered(family, flipped=family != "opt")  # that one's tokens pass a projection
    kinds = ["MLP reads", "MLP gates", "MLP writes"]
    result = run(model, kinds=kinds, top_tokens=6)
    rows_of = {
        "embedding": model.module.get_input_embeddings().weight,
        "unembedding": model.module.get_output_embeddings().weight,
    }
    shown = ~np.isin(np.arange(zoo.VOCABULARY), model.tokenizer.all_special_ids) & result_allowed(model)
    compared = 0
    for kind, matrix in MLPS[family](model.blocks[2]).items():
        u, scales, v = torch.linalg.svd(matrix.double().detach())
        found = rows(result, layer=2, kind=kind)
        np.testing.assert_allclose(result.scale.values[found], scales[: len(found)], rtol=1e-4)
        side = "unembedding" if kind == "MLP writes" else "embedding"
        for rank, row in enumerate(found):
            if scales[rank] / scales[rank + 1] < 1.03 or (rank and scales[rank - 1] / scales[rank] < 1.03):
                continue
            vector = v[rank] if kind == "MLP writes" else u[:, rank]
            scores = (rows_of[side].double() @ vector).detach().numpy()
            scores = scores if scores[shown].max() > -scores[shown].min() else -scores
            scores[~shown] = -np.inf
            assert result.top_token.values[row, 0].tolist() == np.argsort(-scores)[:6].tolist()
            compared += 1
    assert compared >= 2
    assert ("MLP gates" in result.kind.values) == (family in ("llama", "gemma2"))


def _query_key(family: str, block: Any, head: int) -> torch.Tensor:
    """The whole [width width] form of a head, which the package never makes."""
    if family == "gpt2":
        weight, at = block.attn.c_attn.weight, slice(head * 12, head * 12 + 12)
        product = weight[:, :48][:, at] @ weight[:, 48:96][:, at].T
    elif family == "gpt_neox":
        fused = block.attention.query_key_value.weight.T.reshape(64, 4, 3, 16)
        product = fused[:, head, 0] @ fused[:, head, 1].T
    else:
        q, k = block.self_attn.q_proj.weight.T, block.self_attn.k_proj.weight.T
        product = q[:, head * 16 : head * 16 + 16] @ k[:, head // 2 * 16 : head // 2 * 16 + 16].T
    return product.detach()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "mistral"])
def test_queries_and_keys_as_pairs_agree_with_the_whole_form(family: str) -> None:
    model = zoo.layered(family)
    result = run(model, kinds=["QK asks", "QK answers"], top_tokens=6, pairs=5)
    embedding = model.module.get_input_embeddings().weight.detach()

    for head in (0, 3):
        whole = _query_key(family, model.blocks[1], head)
        asks, answers = (
            rows(result, layer=1, kind=kind, matrix=f"head {head}") for kind in ("QK asks", "QK answers")
        )
        np.testing.assert_allclose(
            result.scale.values[asks], torch.linalg.svdvals(whole.double())[: len(asks)], rtol=1e-4
        )
        ends = [sorted(set(result.top_token.values[some].ravel().tolist())) for some in (asks, answers)]
        scores = embedding @ whole @ embedding.T
        plain = sorted(((float(scores[i, j]), i, j) for i in ends[0] for j in ends[1]), reverse=True)[:5]
        here = np.flatnonzero((result.pair_layer.values == 1) & (result.pair_head.values == head))
        found = list(zip(result.pair_asks.values[here], result.pair_answers.values[here], strict=True))
        assert found == [(i, j) for _, i, j in plain]
        assert (np.diff(result.pair_score.values[here]) <= 0).all()


def test_pairs_say_what_their_tokens_share() -> None:
    result = run(zoo.layered("llama"), kinds=["QK asks", "QK answers"], top_tokens=6, pairs=5)
    texts = dict(zip(result.entry.values.tolist(), result.token_text.values.tolist(), strict=True))
    text = {token: json.loads(f'"{shown}"').strip(" ").lower() for token, shown in texts.items()}
    pairs = zip(result.pair_asks.values.tolist(), result.pair_answers.values.tolist(), strict=True)

    same = np.array([text[i] == text[j] for i, j in pairs])

    np.testing.assert_array_equal(result.pair_same_token_here.values, same)
    heads = [
        (same - result.pair_same_token.values)[
            (result.pair_layer.values == 2) & (result.pair_head.values == head)
        ].mean()
        for head in range(4)
    ]
    assert float(result.pairs_same_token.sel(layer=2)) == pytest.approx(np.mean(heads))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tokens_after_the_first_block_are_what_is_read(family: str) -> None:
    model = zoo.layered(family)
    result = run(model, kinds=["MLP reads"], top_tokens=6, tokens_as="after the first block")
    with torch.no_grad():
        alone = [
            model.module(torch.tensor([[token]]), output_hidden_states=True).hidden_states[1][0, 0]
            for token in range(zoo.VOCABULARY)
        ]
    matrix = MLPS[family](model.blocks[2])["MLP reads"].detach()
    shown = ~np.isin(np.arange(zoo.VOCABULARY), model.tokenizer.all_special_ids) & result_allowed(model)

    first = rows(result, layer=2, kind="MLP reads")[0]

    scores = (torch.stack(alone) @ torch.linalg.svd(matrix)[0][:, 0]).numpy()
    scores = scores if scores[shown].max() > -scores[shown].min() else -scores
    scores[~shown] = -np.inf
    assert result.top_token.values[first, 0].tolist() == np.argsort(-scores)[:6].tolist()


def test_attention_to_the_first_token_is_that_of_the_models_own_patterns(tmp_path: Path) -> None:
    model = zoo.layered("llama")
    texts = tmp_path / "texts.jsonl"
    lines = ["the red fox met the old dog in the town", "a small bird sang and the dog ran to the red town"]
    texts.write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    result = run(model, kinds=["OV writes"], corpus=str(texts))
    eager = zoo.make("llama")
    eager.set_attn_implementation("eager")
    plain = np.zeros((2, 4))
    for row, line in enumerate(lines):
        ids = [model.tokenizer.bos_token_id, *model.tokenizer(line, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            patterns = eager(torch.tensor([ids]), output_attentions=True).attentions
        plain[row] = [float(pattern[0, :, 1:, 0].mean()) for pattern in patterns]

    np.testing.assert_allclose(result.sink.values, plain.mean(0), rtol=1e-4)


class _EightBits(torch.nn.Module):
    """A linear map whose weights are whole numbers of eight bits with a scale for each row."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states @ (self.weight.to(states) * self.scale).T


def test_packed_weights_are_declined_by_name_before_anything_is_rated(tmp_path: Path) -> None:
    module = zoo.make("qwen3")
    module.model.layers[2].mlp.down_proj = _EightBits(module.model.layers[2].mlp.down_proj)
    model = load_model(module, tokenizer=zoo.tokenizer())

    with pytest.raises(LayerscopeError, match="packed") as refusal:
        run(model, out=tmp_path)

    assert "layer 2: mlp.down_proj (_EightBits)" in str(refusal.value)
    assert not list(tmp_path.rglob("parts/*/*.nc"))


def test_folding_in_the_norm_is_a_multiplication_by_its_gain() -> None:
    model = zoo.layered("llama")
    block: Any = model.blocks[1]
    value, output = _separate(block, 1, 2)
    gain = block.input_layernorm.weight
    plain = {False: value @ output, True: (gain[:, None] * value) @ output}

    for fold, matrix in plain.items():
        result = run(model, kinds=["OV writes"], fold_norms=fold)
        found = rows(result, layer=1, kind="OV writes", matrix="head 1")
        np.testing.assert_allclose(
            result.scale.values[found], torch.linalg.svdvals(matrix)[: len(found)].detach(), rtol=1e-4
        )
        assert json.loads(result.attrs["folded"]) is fold


def test_the_planted_set_is_the_first_direction_that_its_head_writes() -> None:
    result = run(token_set(), top_tokens=8, kinds=["OV reads", "OV writes"])
    (write,) = rows(result, layer=LAYER, kind="OV writes", matrix=f"head {HEAD}")[:1]
    (read,) = rows(result, layer=LAYER, kind="OV reads", matrix=f"head {HEAD}")[:1]
    texts = dict(zip(result.entry.values.tolist(), result.token_text.values.tolist(), strict=True))

    plus = {texts[token] for token in result.top_token.values[write, 0].tolist()}
    beside = {texts[token] for token in result.top_token.values[read, 0].tolist()}

    assert plus == set(COLOURS)
    assert beside == set(PEOPLE)  # the ends of both sides belong together
    assert float(result.gap.values[write]) == pytest.approx(4.0, rel=1e-4)
    assert float(result.subspace.values[write]) == 0


def test_the_instrument_finds_planted_sets_and_nothing_without_them() -> None:
    (trial,) = [(n, t) for n, t in planted.trials() if t.experiment == "weight_directions"]

    tried = selftest.tried(*trial, quick=True)

    assert tried.holds, "\n".join(tried.lines())


def test_words_find_the_direction_that_writes_them() -> None:
    result = run(token_set(), top_tokens=8, kinds=["OV reads", "OV writes"], search="red, blue, green, pink")

    first = result.isel(found=0)

    assert (int(first.found_layer), first.found_kind.item(), first.found_matrix.item()) == (
        LAYER,
        "OV writes",
        f"head {HEAD}",
    )
    assert int(first.found_rank) == 0
    assert float(first.answer_p) < 0.05
    assert abs(float(first.answer)) > float(np.abs(result.answer.values[1:]).max())
    assert any(
        "Closest to red" in claim.text for claim in experiments.load("weight_directions").claims(result)
    )


def test_words_that_the_tokenizer_does_not_know_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="ultramarine"):
        run(token_set(), top_tokens=8, search="red, ultramarine")


def test_removing_the_planted_direction_moves_its_own_tokens(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    lines = [" ".join(PEOPLE[i : i + 3]) + " the house of old" for i in range(5)]
    texts.write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    result = run(token_set(), top_tokens=8, kinds=["OV writes"], corpus=str(texts), edits=40)
    names = [name for name in result.edit.values if f"layer {LAYER} head {HEAD}, direction 0" == name]

    here = result.sel(edit=names[0])

    assert float(here.edit_selectivity_low) > 0
    assert float(here.related_change.mean()) > 1.5 * float(here.unrelated_change.mean())
    assert here.edit_selectivity_n == 5


def test_a_block_without_attention_is_left_out_by_name() -> None:
    result = run(zoo.layered("recurrent_gemma"))

    assert "attention" in result.lack_part.values
    assert any(
        "attention left out in 3 layers" in caution for caution in json.loads(result.attrs["cautions"])
    )
    assert set(result.direction_layer.values[rows(result, kind="OV writes")]) == {2}


def test_queries_behind_a_norm_are_left_out_and_the_rest_is_not() -> None:
    result = run(zoo.layered("qwen3"))

    assert "QK asks" not in result.kind.values
    assert "OV writes" in result.kind.values
    assert any("queries and keys" in caution for caution in json.loads(result.attrs["cautions"]))


def test_experts_share_out_the_directions() -> None:
    result = run(zoo.layered("gpt_oss"), kinds=["MLP writes", "MLP gates"])

    matrices = result.direction_matrix.values[rows(result, layer=0, kind="MLP writes")]
    assert {str(name): int((matrices == name).sum()) for name in matrices} == {
        f"expert {i}": 4 for i in range(4)
    }


def test_rates_are_what_the_kept_directions_say() -> None:
    result = run(zoo.layered("llama"))
    here = rows(result, kind="MLP reads", layer=2)
    own = result.rater.values.tolist().index("own embedding")

    rate = result.rate.sel(kind="MLP reads", layer=2, rater="own embedding")

    assert float(rate) == pytest.approx(result.interpretable.values[here, own].mean())
    assert int(result.rate_n.sel(kind="MLP reads", layer=2, rater="own embedding")) == len(here) == 16
    assert float(result.random_rate.sel(kind="MLP reads", rater="own embedding")) == pytest.approx(
        0.05, abs=0.011
    )


def test_every_kind_has_a_panel_and_rotations_beside_it() -> None:
    result = run(zoo.layered("llama"))
    name = "Do directions hold pieces of words?"

    figure = ls.draw(result)[name]
    panels = {note.text for note in figure.layout.annotations}
    lines = [trace for trace in figure.data if trace.name and trace.mode == "lines"]

    assert result.sizes["kind"] == 7
    assert {kind_in_words(kind) for kind in result.kind.values} <= panels
    reads = result.kind.values.tolist().index("MLP reads")
    np.testing.assert_allclose(lines[2 * reads].y, result.fragments.sel(kind="MLP reads"))
    np.testing.assert_allclose(lines[2 * reads + 1].y, result.fragments_rotated.sel(kind="MLP reads"))
    # Of single characters each continues a word: a picture of that would show nothing.
    alike = {one: xr.ones_like(result[one]) for one in ("fragments", "fragments_rotated")}
    assert name not in ls.draw(result.assign(alike))


def test_a_rate_of_nothing_has_no_negative_zero() -> None:
    low = rate_variables("rate", np.array([0]), np.array([80]), "kind", "a rate")["rate_low"]

    assert not np.signbit(low.values).any()


def test_on_a_page_what_is_read_stands_before_what_is_written() -> None:
    page = experiments.load("weight_directions").read
    assert page is not None
    chapters = page(run(zoo.layered("gpt2"), kinds=["OV reads", "OV writes"]))[
        "directions of layer 0"
    ].chapters

    for chapter in chapters:
        said = [excerpt.value for excerpt in chapter.excerpts if excerpt.source.startswith("coherence")]
        assert all(reads.startswith("OV reads ") for reads in said[::2])
        assert [writes.removeprefix("OV writes ") for writes in said[1::2]] == [
            reads.removeprefix("OV reads ") for reads in said[::2]
        ]
        assert not any("−0.00" in excerpt.source for excerpt in chapter.excerpts)


def test_on_a_page_the_most_coherent_matrix_and_end_come_first() -> None:
    page = experiments.load("weight_directions").read
    assert page is not None
    chapters = page(run(zoo.layered("gpt2"), kinds=["OV reads", "OV writes"]))[
        "directions of layer 0"
    ].chapters

    def best(chapter: Any) -> list[float]:
        said = [one.source for one in chapter.excerpts if one.source.startswith("coherence ")]
        found = [float(one.split()[1].strip(";").replace("−", "-")) for one in said]
        return [max(pair) for pair in zip(found[::2], found[1::2], strict=True)]

    ends = [best(chapter) for chapter in chapters]
    assert len(ends) > 1
    assert all(one == sorted(one, reverse=True) for one in ends)
    assert [one[0] for one in ends] == sorted((one[0] for one in ends), reverse=True)


def test_a_model_without_attention_and_mlp_is_refused_with_the_reasons() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=320, hidden_size=48, num_hidden_layers=2, state_size=8)
    model = load_model(MambaForCausalLM(config).eval(), tokenizer=zoo.tokenizer())

    with pytest.raises(LayerscopeError, match=r"whose directions were asked for(.|\n)*attention: "):
        run(model, top_tokens=8)


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(LayerscopeError, match="too small"):
        run(zoo.layered("llama"), top_tokens=200)


def test_too_little_memory_is_refused_and_a_little_gives_the_same() -> None:
    model = zoo.layered("gpt2")
    with pytest.raises(LayerscopeError, match="so little memory"):
        run(model, megabytes=1e-4)

    xr.testing.assert_equal(run(model, megabytes=0.04).top_token, run(model).top_token)


def test_another_models_embedding_rates_where_it_knows_the_tokens(tmp_path: Path) -> None:
    zoo.make("gpt2", seed=3).save_pretrained(tmp_path)
    zoo.tokenizer().save_pretrained(tmp_path)

    result = run(zoo.layered("llama"), rater=f"embedding:{tmp_path}")

    assert json.loads(result.attrs["rate_by"]) == "another embedding"
    assert int(result.whole_rate_n.sel(rater="another embedding").min()) > 0


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_run_is_replayed_to_the_same_bits(family: str, tmp_path: Path) -> None:
    model = zoo.layered(family)
    run(model, out=tmp_path)
    (folder,) = tmp_path.iterdir()

    assert running.replay(folder, model=model).verdict == "bitwise"


# A language model as rater: a real server on this machine, whose answers are known.


class Rater(ThreadingHTTPServer):
    """Answers like an OpenAI-compatible address; `judge` decides what it says."""

    daemon_threads = True

    def __init__(self, judge: Callable[[str], str], *, fails_after: int = 10**9) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.judge, self.fails_after = judge, fails_after
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Rater

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers["Authorization"])
        if self.path != "/v1/chat/completions" or len(self.server.asked) > self.server.fails_after:
            self.send_error(503)
            return
        text = self.server.judge(body["messages"][0]["content"])
        answer = {
            "choices": [{"message": {"content": text}}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 2},
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(judge: Callable[[str], str], **more: Any) -> Iterator[tuple[Rater, dict[str, Any]]]:
    server = Rater(judge, **more)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        settings = {
            "rater_address": f"http://127.0.0.1:{server.server_port}/v1",
            "rater_name": "judge",
            "rater_directions": 3,
        }
        yield server, settings
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def knows_colours(prompt: str) -> str:
    """Names colours where most tokens are; of two lists chooses the one with more of them."""
    if "Tokens:" in prompt:
        return "colours" if _colours(prompt) >= 5 else "NOTHING"
    lists = re.search(r"A: (.*)\n\nB: (.*)\n", prompt)
    if lists is None:
        return "READY"
    first, second = lists.groups()
    return "A" if _colours(first) > _colours(second) else "B"


def _colours(text: str) -> int:
    return sum(f'"{colour}"' in text for colour in COLOURS)


COLOURFUL = {"top_tokens": 8, "kinds": ["OV writes"], "rater": "language model"}


def test_a_language_model_rates_and_its_prompt_answers_and_cost_are_kept() -> None:
    with serving(knows_colours) as (server, settings):
        result = run(token_set(), **COLOURFUL, **settings)

    counts = result.counts.values.any(axis=1)
    found = {
        (int(a), str(b), int(c))
        for a, b, c in zip(
            result.asked_layer.values[counts],
            result.asked_matrix.values[counts],
            result.asked_rank.values[counts],
            strict=True,
        )
        if a >= 0
    }
    assert (LAYER, f"head {HEAD}", 0) in found
    assert "colours" in result.meaning.values
    assert not result.counts.values[result.meaning.values == ""].any()
    assert (
        len(server.asked) == int(result.rater_prompt_tokens) / 50 + 1
    )  # and the first, whether anybody is there
    assert int(result.rater_completion_tokens) * 25 == int(result.rater_prompt_tokens)
    assert "NOTHING" in json.loads(result.attrs["naming_prompt"])
    assert server.asked[1]["temperature"] == 0
    rate = result.whole_rate.sel(kind="OV writes", rater="language model")
    assert 0 < float(rate) < 1
    told = [
        claim
        for claim in experiments.load("weight_directions").claims(result)
        if "directions are coherent (" in claim.text
    ]
    assert "language model" in told[0].caveat


def test_an_answer_that_claims_nothing_never_counts_even_if_lists_would_be_told_apart() -> None:
    with serving(lambda prompt: "Nothing." if "Tokens:" in prompt else knows_colours(prompt)) as (
        server,
        settings,
    ):
        result = run(token_set(), **COLOURFUL, **settings)

    assert not result.counts.values.any()
    assert all("Tokens:" in body["messages"][0]["content"] for body in server.asked[1:])


def test_a_rater_that_says_yes_to_everything_is_right_half_the_time() -> None:
    with serving(lambda prompt: "things" if "Tokens:" in prompt else "A") as (_, settings):
        result = run(token_set(), **COLOURFUL, **(settings | {"rater_directions": 60}))

    assert (result.meaning.values == "things").all()
    assert 0.35 < result.told_apart.values.mean() < 0.65


def test_the_key_is_read_from_the_environment_and_kept_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RATERS_KEY", "a-secret-of-this-test")
    with serving(knows_colours) as (server, settings):
        run(token_set(), **COLOURFUL, **settings, rater_key="RATERS_KEY", out=tmp_path)

    assert set(server.keys) == {"Bearer a-secret-of-this-test"}
    assert not any(
        b"a-secret-of-this-test" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"rater_address": "http://127.0.0.1:9/v1", "rater_name": "judge"}, "cannot be reached"),
        ({"rater_address": "file:///etc/hostname", "rater_name": "judge"}, "does not begin with http"),
        ({"rater_address": "http://127.0.0.1:9/v1"}, "has no name"),
        ({}, "no language model was named"),
        (
            {"rater_address": "http://127.0.0.1:9/v1", "rater_name": "judge", "rater_key": "NOT_SET_HERE"},
            "NOT_SET_HERE",
        ),
    ],
)
def test_a_rater_that_cannot_be_reached_is_refused(settings: dict[str, str], found: str) -> None:
    with pytest.raises(LayerscopeError, match=found):
        run(token_set(), **COLOURFUL, **settings)


def test_an_empty_answer_counts_as_nothing_and_a_broken_one_is_refused() -> None:
    with serving(lambda prompt: "") as (server, settings):
        assert not run(token_set(), **COLOURFUL, **settings).counts.values.any()
        server.judge = lambda prompt: 1 / 0  # type: ignore[assignment, return-value]
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
        with pytest.raises(LayerscopeError, match="cannot be reached"):
            run(token_set(), **COLOURFUL, **settings)


def test_a_run_whose_rater_went_away_is_resumed_with_what_was_answered(tmp_path: Path) -> None:
    model = token_set()
    with serving(knows_colours, fails_after=20) as (server, settings):
        with pytest.raises(LayerscopeError, match="503"):
            run(model, **COLOURFUL, **settings, out=tmp_path)
        (folder,) = tmp_path.iterdir()
        kept = len(list((folder / "parts" / "answers").glob("*")))
        before = len(server.asked)
        server.fails_after = 10**9
        with pytest.raises(LayerscopeError, match="nothing is sent there on its word"):
            ls.open_run(folder).resume(model=model)
        assert len(server.asked) == before
        result = run(model, **COLOURFUL, **settings, out=tmp_path)

    assert kept > 0
    assert [one.name for one in tmp_path.iterdir()] == [folder.name]
    assert len(server.asked) - before < int(result.rater_prompt_tokens) / 50


def test_projections_are_found_once_for_each_block_and_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = zoo.layered("gpt2"), []
    found = projections.find_projections
    monkeypatch.setattr(
        projections, "find_projections", lambda model, layer: asked.append(layer) or found(model, layer)
    )

    run(model, edits=0, untrained_layers=0, rotations=0)

    assert asked == list(range(model.n_layers))
    assert model not in parts._LAST
