"""Where each block's MLP keeps its keys and values.

An MLP's output projection multiplies what comes into it by its rows and adds them up: what comes in is
the activation of the keys (in gated MLPs the product of gate and up), its rows are the value vectors.
Which module that is, is found by trying (`key_trial.py`), once for all blocks of a shape.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", section 2.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from layerscope.errors import LayerscopeError
from layerscope.models.arguments import Call
from layerscope.models.dense_keys import MlpKeys
from layerscope.models.expert_keys import ExpertKeys
from layerscope.models.hooks import input_of, on_input, with_input
from layerscope.models.key_trial import BlockTrial, NotFound
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import signature

_TOKENS = 5

Keys = MlpKeys | ExpertKeys

_FOUND: WeakKeyDictionary[LayeredModel, tuple[Keys, ...]] = WeakKeyDictionary()


def mlp_keys(model: LayeredModel) -> tuple[Keys, ...]:
    """The keys of every block, in order; found once for a model.

    Raises:
        LayerscopeError: a block with neither one output projection nor a module of experts that can be
            read. Says which block, and what it has instead.
    """
    if model not in _FOUND:
        _FOUND[model] = _find(model)
    return _FOUND[model]


@torch.no_grad()
def _find(model: LayeredModel) -> tuple[Keys, ...]:
    calls = _calls(model)
    known: dict[Any, str | ExpertKeys | NotFound] = {}
    found: list[Keys] = []
    for layer, (block, call) in enumerate(zip(model.blocks, calls, strict=True)):
        shape = signature(block)
        if shape not in known:
            known[shape] = BlockTrial(block, call).keys()
        like = known[shape]
        if isinstance(like, NotFound):
            raise LayerscopeError(
                f"the keys of layer {layer} of {model.facts.name} cannot be read",
                found=like.found,
                expected="an MLP whose one output projection holds a value vector for each key, or experts in "
                "one module that is told which of them each token chose",
                hint="another family: gpt2, EleutherAI/pythia-160m, a Llama, a Mixtral",
            )
        if isinstance(like, ExpertKeys):
            shared = like.shared and _dense(like.shared.name, block, call)
            found.append(replace(like, module=block.get_submodule(like.name), shared=shared))
        else:
            found.append(_dense(like, block, call))
    return tuple(found)


def _dense(name: str, block: nn.Module, call: Call) -> MlpKeys:
    module = block.get_submodule(name)
    return MlpKeys(name, module, _entries(module, block, call))


def _calls(model: LayeredModel) -> list[Call]:
    """The arguments with which each block is called on a short probe."""
    calls: list[Call] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(with_input(args, kwargs, input_of(args, kwargs).clone()))

    tokens = min(_TOKENS, model.facts.context or _TOKENS)
    ids = (torch.arange(tokens)[None] * 7919 + 101) % model.facts.vocabulary
    with ExitStack() as stack:
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
        model.logits(ids, last=True)
    return calls


def _entries(module: nn.Module, block: nn.Module, call: Call) -> int:
    sizes: list[int] = []
    with on_input(module, lambda states: sizes.append(states.shape[-1])):
        block(*call[0], **call[1])
    return sizes[0]
