"""A model object that the caller has: the transformers model inside its wrappers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerscope.errors import LayerscopeError
from layerscope.models.quiet import quiet
from layerscope.models.use import in_use


def unwrapped(given: Any) -> PreTrainedModel:
    """The transformers model in what a caller handed over; it computes what the whole computes.

    A compiled model is followed to its original. A PEFT model is followed to the model that its adapter is
    built into, and both must give the same logits.

    Raises:
        LayerscopeError: another kind of wrapper, one that adds something of its own (prompt tuning), compiled
            parts, weights that are not in memory, or weights made under `torch.inference_mode()`.
    """
    module = given
    while not isinstance(module, PreTrainedModel):
        module = _inner(module)
    _refuse_compiled_parts(module)
    _refuse_absent(module)
    _refuse_made_for_inference(module)
    if module is not given and not _is_compiled(given):
        _refuse_other_logits(given, module)
    return module


def _inner(wrapper: Any) -> Any:
    if _is_compiled(wrapper):
        return wrapper._orig_mod
    if hasattr(wrapper, "peft_config") and hasattr(wrapper, "get_base_model"):
        return wrapper.get_base_model()
    raise LayerscopeError(
        "this is not a transformers model",
        found=f"{type(wrapper).__module__}.{type(wrapper).__name__}",
        expected="a name, a folder, or a transformers model with a language-model head, also compiled or within PEFT",
        hint="the transformers model inside it" if isinstance(wrapper, nn.Module) else 'load_model("gpt2")',
    )


def _is_compiled(module: Any) -> bool:
    return isinstance(module, nn.Module) and "_orig_mod" in module._modules


def _refuse_compiled_parts(module: PreTrainedModel) -> None:
    for name, part in module.named_modules():
        if _is_compiled(part) or part._compiled_call_impl is not None:
            raise LayerscopeError(
                "parts of this model are compiled, and compiled code cannot be read or edited",
                found=f"{name or type(module).__name__} was compiled in place",
                expected="a model that is not compiled, or torch.compile(model) as a whole",
                hint="hand over the model before model.compile()",
            )


def _refuse_absent(module: PreTrainedModel) -> None:
    absent = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if absent:
        raise LayerscopeError(
            "some weights of this model are not in memory",
            found=f"{type(module).__name__}: {absent[0]} is on the meta device",
            expected="weights on a processor or a GPU",
            hint="load the model whole, without offloading",
        )


def _refuse_made_for_inference(module: PreTrainedModel) -> None:
    made = [name for name, parameter in module.named_parameters() if parameter.is_inference()]
    if made:
        raise LayerscopeError(
            "the weights of this model were made under torch.inference_mode(), which forbids gradients for ever",
            found=f"{type(module).__name__}: {made[0]}",
            expected="weights that were made outside of it",
            hint="load the model before torch.inference_mode(), or let load_model load it",
        )


@torch.no_grad()
def _refuse_other_logits(wrapper: Any, module: PreTrainedModel) -> None:
    """Refuse a wrapper that computes something else than the model inside it."""
    wrapper.eval()
    ids = torch.arange(6)[None] + 5
    found = ""
    with in_use(module), quiet():
        inside = _logits(module, ids)
        try:
            outside = _logits(wrapper, ids)
        except Exception as error:  # whatever a wrapper raises
            found = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        else:
            if outside.shape != inside.shape:
                found = f"logits of shape {tuple(outside.shape)}, {tuple(inside.shape)} without it"
            elif not torch.allclose(outside.float(), inside.float(), rtol=1e-3, atol=1e-4):
                found = (
                    f"other logits than the model inside it, by {float((outside - inside).abs().max()):.2g}"
                )
    if found:
        raise LayerscopeError(
            f"{type(wrapper).__name__} adds something of its own to the model inside it",
            found=found,
            expected="a wrapper that gives the same logits as the model inside it, such as LoRA",
            hint="merge_and_unload() where the adapter allows it",
        )


def _logits(module: Any, ids: Tensor) -> Tensor:
    device = next(module.parameters()).device
    ids = (ids % module.config.get_text_config().vocab_size).to(device)
    logits: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits
