"""Do the sizes that a configuration names fit a model, and the tensors that are saved with it?

Asked before a model is built: transformers takes the memory first, fills it with random numbers, and tells then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.models.places import Place
from layerscope.models.safetensors_files import stored_tensors

_ITS_OWN = "the config.json that was saved with these weights"
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len")
_OTHERS = (
    "hidden_size",
    "n_embd",
    "d_model",
    "vocab_size",
    "num_attention_heads",
    "n_head",
    "intermediate_size",
)
_FEWEST_TOKENS = 4
"""The shortest context to measure in: what stands first, a subject, a token after it, and one read out."""


def refuse_sizes(folder: Path, config: dict[str, Any], tensors: int) -> None:
    """Refuse sizes that no model has before one is built: a thousand million layers would take for ever.

    Args:
        folder: of the model.
        config: its configuration.
        tensors: how many are saved with it.

    Raises:
        LayerscopeError: with the size.
    """
    within = config.get("text_config")
    for name, value in [*config.items(), *(within.items() if isinstance(within, dict) else ())]:
        if (expected := _out_of_range(name, value, tensors)) is not None:
            raise LayerscopeError(
                "this model cannot be measured: a size in its configuration is out of range",
                found=f"{name} = {value} in {folder / 'config.json'}",
                expected=expected,
                hint=_ITS_OWN,
            )


def _out_of_range(name: str, value: Any, tensors: int) -> str | None:
    """What was expected of a size that cannot be; None of whatever can."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if name in _CONTEXT:  # below 0 stands for no limit
        return f"a context of {_FEWEST_TOKENS} tokens or more" if 0 <= value < _FEWEST_TOKENS else None
    if name in _LAYERS:
        return (
            None
            if 1 <= value <= tensors
            else f"1 layer or more, at most {tensors:,}, as many tensors as are saved"
        )
    return "1 or more, up to 1,000,000,000" if name in _OTHERS and not 1 <= value <= 10**9 else None


def shapes_of(config: Any) -> dict[str, tuple[int, ...]]:
    """Sizes of the tensors that a configuration asks for, by name, without memory for any of them.

    Empty for what cannot be built so: loading it tells why.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config)
    except Exception:  # whatever families answer sizes with
        return {}
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


_TIMES, _ENTRIES = 4, 10**8
"""A model is far larger than its files where it has more than so many times their entries, and so many more."""


def refuse_far_larger(place: Place, built: Mapping[str, Sequence[int]]) -> None:
    """Refuse a configuration that asks for far more memory than what is saved fills.

    Args:
        place: where the files lie.
        built: sizes by the configuration, by name.

    Raises:
        LayerscopeError: with the first tensors whose sizes differ, or with both numbers of entries.
    """
    saved = sum(math.prod(tensor.shape) for tensor in stored_tensors(place.folder))
    asked = sum(math.prod(shape) for shape in built.values())
    if asked <= _TIMES * saved + _ENTRIES:
        return
    refuse_other_sizes(place, built)
    raise LayerscopeError(
        "this configuration asks for a far larger model than was saved",
        found=f"{asked:,} entries by config.json, {saved:,} saved in {place}",
        expected="a configuration whose sizes are those of the tensors",
        hint=_ITS_OWN,
    )


def refuse_other_sizes(place: Place, built: Mapping[str, Sequence[int]]) -> None:
    """Refuse tensors of other sizes than the configuration asks for.

    Args:
        place: where they lie.
        built: sizes by the configuration, by name; names that the files do not hold are passed over.

    Raises:
        LayerscopeError: with the first tensors' names and sizes.
    """
    other = [
        f"{tensor.name}: {_times(tensor.shape)} saved, {_times(built[tensor.name])} by config.json"
        for tensor in stored_tensors(place.folder)
        if tensor.name in built and tuple(built[tensor.name]) != tensor.shape
    ]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise LayerscopeError(
            "these weights are of other sizes than the configuration says",
            found=f"{'; '.join(other[:3])}{more} in {place}",
            expected="a configuration whose sizes are those of the tensors",
            hint=_ITS_OWN,
        )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
