"""Is a model that was built twice the same: bit for bit, with its configuration, its ties and its tokenizer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from layerscope.models.layered import configuration_digest


@dataclass(frozen=True)
class Built:
    """A model as transformers built it.

    Attributes:
        module: the model.
        tokenizer: its tokenizer.
        dequantised: what its weights were dequantised from.
    """

    module: Any
    tokenizer: Any
    dequantised: str | None


def difference(one: Built, other: Built) -> str:
    """In what two models differ; empty where in nothing."""
    if type(one.module) is not type(other.module):
        return "another class"
    if configuration_digest(one.module) != configuration_digest(other.module):
        return "another configuration"
    if not _same_tensors(one.module, other.module):
        return "other tensors"
    if one.tokenizer is not other.tokenizer and not _same_tokenizer(one.tokenizer, other.tokenizer):
        return "another tokenizer"
    return ""


def _same_tensors(one: Any, other: Any) -> bool:
    mine, theirs = _tensors(one), _tensors(other)
    return _ties(mine) == _ties(theirs) and all(
        a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
        for a, b in zip(mine.values(), theirs.values(), strict=True)
    )


def _tensors(module: Any) -> dict[str, torch.Tensor]:
    """Every weight and buffer under each of its names, kept in files or not."""
    return dict(
        [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    )


def _ties(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Under which name each tensor came first."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}


def _same_tokenizer(one: Any, other: Any) -> bool:
    return type(one) is type(other) and _read_with(one) == _read_with(other)


def _read_with(tokenizer: Any) -> list[Any]:
    """Normaliser, vocabulary, merges and what is put before a text; special tokens; the chat template."""
    return [
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.special_tokens_map,
        sorted(tokenizer.all_special_ids),
        tokenizer.chat_template,
    ]
