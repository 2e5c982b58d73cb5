"""A model in one GGUF file: the numbers of the folder that is saved from it, and a record of what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models import copies
from layerscope.models.load import load_model
from layerscope.models.memory import own_bytes
from quick import Command

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

IDS = torch.tensor([[5, 9, 2, 31, 7]])
REAL = Path("~/.cache/real-models").expanduser()
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def in_ggml_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's rotary positions pair them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Any, *, quantised: bool, more: dict[str, np.ndarray] | None = None) -> Path:
    """A Llama model and its tokenizer as llama.cpp writes them."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    write_tokenizer(writer)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = in_ggml_order(array, heads)
        if quantised and array.ndim == 2 and "layers" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(ggml_name(name), gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(ggml_name(name), np.ascontiguousarray(array))
    for name, array in (more or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer: Any) -> None:
    inner = json.loads(zoo.tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(inner["vocab"], key=inner["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and token.endswith(">") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in inner["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def ggml_name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, kind = name.rpartition(".")
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.{kind}"


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "floats.gguf", zoo.make("llama"), quantised=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "packed.gguf", zoo.make("llama"), quantised=True)


def assert_same_as_saved_from_it(file: Path, folder: Path, ids: torch.Tensor) -> None:
    own = load_model(str(file))
    own.module.save_pretrained(folder)
    own.tokenizer.save_pretrained(folder)
    saved = load_model(str(folder))

    assert torch.equal(own.logits(ids), saved.logits(ids))
    assert own.weights_digest() == saved.weights_digest()
    assert own.refused == saved.refused
    text = "The red fox met the old dog in the town of stone"
    assert own.tokenizer(text)["input_ids"] == saved.tokenizer(text)["input_ids"]


def test_a_file_of_floats_gives_the_models_own_numbers(floats: Path) -> None:
    model, facts = zoo.make("llama"), load_model(str(floats)).facts

    torch.testing.assert_close(load_model(str(floats)).logits(IDS), model(IDS).logits, rtol=0, atol=1e-6)
    assert facts.dequantised is None
    own, same = (
        tokenizer("the red fox met the old dog", add_special_tokens=False)["input_ids"]
        for tokenizer in (load_model(str(floats)).tokenizer, zoo.tokenizer())
    )
    assert own == same


def test_a_quantised_file_gives_the_numbers_of_a_folder_saved_from_it(packed: Path, tmp_path: Path) -> None:
    assert_same_as_saved_from_it(packed, tmp_path / "saved", IDS)


def assert_copied(file: Path, ids: torch.Tensor) -> None:
    """Loaded anew from a float32 copy it is the same model with the same tokenizer, and the file is not parsed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_COPIES", "off")
        plain = load_model(str(file))
        patch.delenv("LAYERSCOPE_COPIES")
        load_model(str(file))
        patch.setattr(gguf, "GGUFReader", None)
        copy = load_model(str(file))

    assert own_bytes(copy.module) == 0
    assert copy.facts == plain.facts
    assert copy.weights_digest() == plain.weights_digest()
    assert torch.equal(copy.logits(ids), plain.logits(ids))
    for text in ("The red fox met the old dog in the town of stone", " Ünïcode \n\n 12345", ""):
        for special in (True, False):
            encoded = [one.tokenizer(text, add_special_tokens=special)["input_ids"] for one in (plain, copy)]
            assert encoded[0] == encoded[1]


def test_a_float32_copy_is_the_same_model_without_parsing_the_file(
    packed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(copies, "_LEAST_BYTES", 0)
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path))
    capfd.readouterr()
    assert_copied(packed, IDS)
    assert capfd.readouterr().err == ""  # other libraries' bars are not shown


def test_the_record_says_from_what_it_was_dequantised(packed: Path) -> None:
    facts = load_model(str(packed)).facts

    assert facts.dequantised == "39 GGUF tensors: 28 Q8_0, 11 F32"
    assert facts.files == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (facts.dtype, facts.loadable, facts.source) == ("float32", True, str(packed))


def test_a_run_on_a_file_is_carried_out_reported_and_replayed(
    packed: Path, tmp_path: Path, command: Command, prompts_file: Path, quick_settings: list[str]
) -> None:
    said = command(
        "run",
        "causal_trace",
        "--model",
        packed,
        "--prompts",
        prompts_file,
        "--out",
        tmp_path,
        *quick_settings,
    )
    assert said.code == 0, said.err
    (run,) = tmp_path.glob("causal_trace-*")

    assert command("replay", run).out.startswith("bitwise")
    assert command("report", run, "--out", tmp_path / "page").code == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "28 Q8_0" in page
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in page


def refused(file: Path, *words: str) -> None:
    with pytest.raises(LayerscopeError) as error:
        load_model(str(file))
    for word in words:
        assert word in str(error.value), error.value


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1000], ["cannot be read", "by its own header"]),
        (lambda content: content[:200], ["cannot be read"]),
        (lambda content: content[:2], ["cannot be read"]),
        (lambda content: b"", ["cannot be read"]),
        (lambda content: b"PK" + content[2:], ["begins with b'PK"]),
        (lambda content: content[:8] + b"\xff" * 8 + content[16:], ["cannot be read"]),
        (lambda content: content.replace(b"llama", b"lamma"), ["lamma"]),
    ],
)
def test_a_file_that_is_broken_or_none_is_refused(
    packed: Path, tmp_path: Path, damage: Callable[[bytes], bytes], words: list[str]
) -> None:
    (tmp_path / "x.gguf").write_bytes(damage(packed.read_bytes()))

    refused(tmp_path / "x.gguf", *words)


def test_a_shard_is_refused(packed: Path, tmp_path: Path) -> None:
    shard = tmp_path / "x-00001-of-00003.gguf"
    shard.write_bytes(packed.read_bytes())

    refused(shard, "one shard of several", "3 files")


def test_a_tensor_that_the_model_does_not_use_is_refused_by_name(tmp_path: Path) -> None:
    scaled = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    file = write_gguf(tmp_path / "scaled.gguf", zoo.make("llama"), quantised=False, more=scaled)

    refused(file, "does not use all of its weights", "rope_freqs.weight")


def test_a_missing_file_and_another_file_are_told(tmp_path: Path) -> None:
    refused(tmp_path / "missing.gguf", "there is no such model")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "a file, but no GGUF file")


def test_missing_packages_are_told(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.models import gguf_files

    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None if name == "gguf" else object())
    refused(packed, "no gguf", "pip install 'layerscope[gguf]'")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"])
def test_real_files_give_the_numbers_of_folders_saved_from_them(name: str, tmp_path: Path) -> None:
    if not (REAL / name).is_file():
        pytest.skip(f"no {name} beside the real models of this machine")

    assert_same_as_saved_from_it(REAL / name, tmp_path / "saved", IDS + 1000)
    assert_copied(REAL / name, IDS + 1000)
