"""What is loaded is what was saved: anything else is refused by name, before it can run or be measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.load import load_model

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "llama"
    zoo.make("llama").save_pretrained(folder)
    zoo.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def configured(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def edited(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(LayerscopeError) as error:
        load_model(str(folder))
    for word in words:
        assert word in str(error.value), error.value


# -- tensors --------------------------------------------------------------------------------------


def test_fewer_layers_than_were_saved_are_refused(copy: Path) -> None:
    configured(copy, num_hidden_layers=3)

    refused(copy, "does not use all of its weights", "model.layers.3.")


def test_more_layers_than_were_saved_are_refused(copy: Path) -> None:
    configured(copy, num_hidden_layers=5)

    refused(copy, "do not fill the model", "model.layers.4.")


Q_PROJ = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("name", [f"{Q_PROJ}.bias", f"{Q_PROJ}.weight_scale_inv", f"{Q_PROJ}.qzeros"])
def test_tensors_that_the_model_does_not_use_are_refused(copy: Path, name: str) -> None:
    edited(copy, lambda tensors: tensors.update({name: torch.ones(64)}))

    refused(copy, "does not use all of its weights", name)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_weights_that_are_whole_numbers_are_refused(copy: Path, dtype: torch.dtype) -> None:
    name = f"{Q_PROJ}.weight"
    edited(copy, lambda tensors: tensors.update({name: (tensors[name] * 100).to(dtype)}))

    refused(copy, "whole numbers", name)


def test_an_unembedding_that_is_both_tied_and_saved_is_used_as_it_was_saved(tmp_path: Path) -> None:
    model = zoo.make("llama")
    model.save_pretrained(tmp_path / "model")
    zoo.tokenizer().save_pretrained(tmp_path / "model")
    configured(tmp_path / "model", tie_word_embeddings=True)

    loaded = load_model(str(tmp_path / "model"))

    ids = torch.tensor([[5, 9, 2]])
    torch.testing.assert_close(loaded.logits(ids), model(ids).logits)


def test_what_follows_from_the_configuration_alone_is_harmless(
    tmp_path: Path, tiny: Path, copy: Path
) -> None:
    gpt2 = Path(shutil.copytree(tiny, tmp_path / "gpt2"))
    mask = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
    edited(
        gpt2,
        lambda tensors: tensors.update(
            {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
        ),
    )
    edited(
        copy,
        lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}),
    )

    assert load_model(str(gpt2)).refused == {}
    assert load_model(str(copy)).refused == {}


def test_a_bias_that_has_the_name_of_a_mask_is_no_mask(copy: Path) -> None:
    edited(copy, lambda tensors: tensors.update({"model.layers.0.attn.bias": torch.ones(48)}))

    refused(copy, "model.layers.0.attn.bias")


# -- files ----------------------------------------------------------------------------------------


def sharded(folder: Path) -> dict[str, str]:
    """Split the weights into two files, and return the index's map."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    (folder / WEIGHTS).unlink()
    mapped = {}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard, metadata={"format": "pt"})
        mapped |= dict.fromkeys(part, shard)
    write_index(folder, mapped)
    return mapped


def write_index(folder: Path, mapped: dict[str, Any]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def test_shards_load_and_have_one_digest(copy: Path, llama: Path) -> None:
    sharded(copy)
    model = load_model(str(copy))

    assert model.weights_digest() == load_model(str(llama)).weights_digest()
    assert load_model(str(copy)).facts.files == model.facts.files


def test_a_shard_that_is_not_safetensors_or_lies_elsewhere_is_refused(copy: Path) -> None:
    mapped = sharded(copy)
    tensors = load_file(copy / "model-0.safetensors")
    torch.save(tensors, copy / "model-0.bin")
    shutil.copy(copy / "model-0.safetensors", copy.parent / "outside.safetensors")
    outside = (
        str(copy.parent / "outside.safetensors"),
        "../outside.safetensors",
        "below/../model-0.safetensors",
    )
    for shard in ("model-0.bin", *outside, "", 3):
        swapped = {name: shard if old == "model-0.safetensors" else old for name, old in mapped.items()}
        write_index(copy, swapped)

        refused(copy, "index of these weights cannot be used", str(shard))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {}}', '{"metadata": {}}'])
def test_a_broken_index_is_refused(copy: Path, text: str) -> None:
    sharded(copy)
    (copy / INDEX).write_text(text)

    refused(copy, INDEX)


def test_a_missing_or_damaged_shard_is_named(copy: Path) -> None:
    sharded(copy)
    whole = (copy / "model-1.safetensors").read_bytes()
    (copy / "model-1.safetensors").write_bytes(whole[:-50])
    refused(copy, "cannot be loaded", "model-1.safetensors")
    (copy / "model-1.safetensors").unlink()
    refused(copy, "cannot be read", "model-1.safetensors")


def test_a_tensor_in_two_shards_is_refused(copy: Path) -> None:
    mapped = sharded(copy)
    shutil.copy(copy / "model-0.safetensors", copy / "model-2.safetensors")
    write_index(copy, mapped | {"more": "model-2.safetensors"})

    refused(copy, "same name", "model-0.safetensors and model-2.safetensors")


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "someone/fast-attention"},
        {"_attn_implementation": "someone/fast-attention@v1:forward"},
        {"_attn_implementation_internal": "someone/fast-attention"},
        {"attn_implementation": {"text_config": "someone/fast-attention"}},
        {"text_config": {"attn_implementation": "paged|someone/fast-attention"}},
        {"attn_implementation": "flash_attention_2"},  # fetched by transformers where it is not installed
        {"attn_implementation": {"": "sdpa", "text_config": "flash_attention_3"}},
        {"attn_implementation": ["sdpa"]},
        {"attn_implementation": "layerscope"},
        {"experts_implementation": "sonicmoe"},  # fetched by the package kernels, as deepgemm is
        {"text_config": {"_experts_implementation": "deepgemm"}},
        {"experts_implementation": {"": "sonicmoe"}},
        {"transformers_weights": "adapter_model.bin"},
    ],
)
def test_a_configuration_that_names_code_or_weights_is_refused(copy: Path, values: dict[str, Any]) -> None:
    configured(copy, **values)

    (value,) = values.values()
    refused(copy, value if isinstance(value, str) else "attention" if "att" in str(values) else "experts")


def test_quantised_weights_are_refused_where_their_code_would_be_fetched(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(copy, quantization_config={"quant_method": "mxfp4"})
    monkeypatch.setattr("layerscope.models.checkpoint.find_spec", lambda name: name == "kernels")

    refused(copy, "the package kernels is installed")


def test_an_adapter_and_a_distributed_checkpoint_are_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    refused(copy, "adapter")
    (copy / "adapter_config.json").unlink()
    (copy / "shard-00000-model-00001-of-00001.safetensors").write_bytes(b"")
    refused(copy, "pickle")


def test_a_damaged_configuration_is_told(copy: Path) -> None:
    (copy / "config.json").write_text("{")

    refused(copy, "configuration is damaged")


def test_the_digest_is_of_what_decides_what_is_built(copy: Path) -> None:
    before = load_model(str(copy)).facts.files
    (copy / "prompts.jsonl").write_text("{}")
    assert load_model(str(copy)).facts.files == before

    configured(copy, rms_norm_eps=1e-5)
    with pytest.raises(LayerscopeError, match="the model has changed"):
        load_model(str(copy), files=before)
