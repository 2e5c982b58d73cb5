"""Configurations that no model could have, and files that cannot be read: told by cause, before memory is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.load import load_model


def model_with(folder: Path, tiny: Path, **changes: Any) -> str:
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_layer": 0}, ["n_layer = 0", "1 layer or more"]),
        ({"n_layer": 10**9}, ["n_layer = 1000000000", "tensors as are saved"]),
        ({"n_positions": 0}, ["n_positions = 0", "context of 4 tokens"]),
        ({"n_positions": 1}, ["n_positions = 1", "context of 4 tokens"]),
        ({"n_positions": 3}, ["n_positions = 3", "context of 4 tokens"]),
        ({"vocab_size": -3}, ["vocab_size = -3", "1 or more"]),
        ({"n_positions": 10**8}, ["transformer.wpe.weight: 64 x 48 saved, 100000000 x 48"]),
        ({"vocab_size": 7}, ["transformer.wte.weight:", "saved, 7 x 48"]),
        ({"n_embd": 96}, ["transformer.h.0", "saved,"]),
        ({"n_layer": "two"}, ["n_layer", "'two'"]),
        ({"n_embd": None}, ["n_embd", "None"]),
    ],
)
def test_a_size_that_cannot_be_is_named(
    tmp_path: Path, tiny: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(LayerscopeError) as caught:
        load_model(model_with(tmp_path / "model", tiny, **changes))
    for word in words:
        assert word in str(caught.value)
    assert "network" not in caught.value.hint


@pytest.mark.parametrize("context", [0, 1, 3])
def test_a_context_that_holds_no_prompt_is_named_where_no_tensor_tells_it(
    tmp_path: Path, context: int
) -> None:
    zoo.make("llama").save_pretrained(tmp_path / "llama")
    zoo.tokenizer().save_pretrained(tmp_path / "llama")
    model = model_with(tmp_path / "model", tmp_path / "llama", max_position_embeddings=context)

    with pytest.raises(LayerscopeError, match="out of range") as caught:
        load_model(model)
    assert f"max_position_embeddings = {context}" in str(caught.value.found)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", "{", "\x00"])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, tiny: Path, content: str) -> None:
    folder = Path(model_with(tmp_path / "model", tiny))
    (folder / "config.json").write_text(content)

    with pytest.raises(LayerscopeError, match="its configuration is damaged"):
        load_model(str(folder))
