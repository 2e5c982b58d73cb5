"""A model of which only the configuration is at hand: its shape, and its tokenizer where one lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from layerscope.bundled import bundled_model
from layerscope.errors import LayerscopeError
from layerscope.models.facts import facts_of
from layerscope.models.layered import LayeredModel
from layerscope.models.quiet import quiet
from layerscope.models.structure import Structure


def described_model(source: str) -> tuple[LayeredModel, bool]:
    """A model without weights, which can be asked for its shape and its tokens but not run; and whose tokens they are.

    Args:
        source: a folder with a config.json, that file itself, or "bundled".

    Returns:
        The model; whether the tokenizer is its own: else it is the bundled model's, for want of one.

    Raises:
        LayerscopeError: no configuration, or one that transformers builds no decoder from.
    """
    folder = _folder(source)
    with quiet():
        module = _built(folder)
        tokenizer = _tokenizer(folder)
        own = tokenizer is not None
        tokenizer = tokenizer or _tokenizer(bundled_model())
    facts = facts_of(module, source=str(folder) if source != "bundled" else source, loadable=True)
    return LayeredModel(module, tokenizer, facts, Structure("", (), (), ())), own


def _folder(source: str) -> Path:
    path = bundled_model() if source == "bundled" else Path(source).expanduser()
    folder = path.parent if path.name == "config.json" else path
    if not (folder / "config.json").is_file():
        raise LayerscopeError(
            "there is no configuration to plan from",
            found=f"{source}: no config.json",
            expected="a folder with a model's config.json, or that file; its tokenizer beside it counts tokens exactly",
            hint="--model FOLDER   (config.json is a small file of the model's repository)",
        )
    return folder


def _built(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config).eval()
    except Exception as error:  # transformers raises anything for a configuration that is none
        raise LayerscopeError(
            "no model can be built from this configuration",
            found=f"{folder / 'config.json'}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="the configuration of a decoder that transformers knows",
            hint="the config.json that comes with the weights",
        ) from error


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return None
    return AutoTokenizer.from_pretrained(folder)
