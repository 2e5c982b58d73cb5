"""Are a model's blocks understood? Their states can be put elsewhere, replayed, and taken apart into additions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from layerscope.models.additions import find_addition
from layerscope.models.arguments import Call
from layerscope.models.hooks import at_depth, first_of, input_of, on_output, with_input
from layerscope.models.layered import LayeredModel
from layerscope.models.noting import note
from layerscope.models.probe import Recorded, moved
from layerscope.models.rounding import close, gap
from layerscope.models.sites import OF_THE_STREAM
from layerscope.models.structure import Addition, logit_maps, map_logits


def states_belong_to_tokens(model: LayeredModel, ids: Tensor, recorded: Recorded) -> bool:
    """Whether what blocks hand on is one state for each token; a few parallel streams, say, are not."""
    expected = (*ids.shape, model.facts.width)
    handed_on = [*(input_of(*call) for call in recorded.calls), *recorded.outputs]
    other = next((tuple(states.shape) for states in handed_on if tuple(states.shape) != expected), None)
    detail = f"{model.n_layers} layers hand on {model.facts.width} numbers for each token"
    if other is not None:
        detail = f"layers hand on a tensor {other}, not one state for each token {expected}"
    name = "the residual stream is a state for each token"
    note(model, name, other is None, detail, (*OF_THE_STREAM, "unembed", "branches"))
    return other is None


def states_can_be_put(model: LayeredModel, ids: Tensor, recorded: Recorded) -> None:
    """Each depth's own states in their own place change nothing; those of other texts bring the other texts' logits.

    Anything else than one's own logits will do where a block reads more than the state (the tokens again, say).
    """
    states = [*(input_of(*call) for call in recorded.calls), recorded.outputs[-1]]
    own = {depth: _always(state) for depth, state in enumerate(states)}
    handed_on: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        handed_on.append(output)
        return output

    with ExitStack() as watched_blocks, at_depth(model, own):
        for block in model.blocks:  # logits alone would show what the last block made of its state
            watched_blocks.enter_context(on_output(block, keep))
        pairs = [(model.logits(ids), recorded.logits), *zip(handed_on, recorded.outputs, strict=True)]
    middle = model.n_layers // 2
    with at_depth(model, {middle: _always(states[middle].roll(1, dims=0))}):
        other = model.logits(ids)
    detail = "a state in its own place leaves the logits, another changes them"
    if not all(close(*pair) for pair in pairs):
        detail = (
            f"states put in their own place change what follows by {max(gap(*pair) for pair in pairs):.2g}"
        )
    elif close(other, recorded.logits) and not close(other, recorded.logits.roll(1, dims=0)):
        detail = f"another state at depth {middle} leaves the logits as they were"
    else:
        return note(model, "a state can be put in another's place", True, detail)
    return note(model, "a state can be put in another's place", False, detail, (*OF_THE_STREAM, "branches"))


def _always(states: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: states


def replay_gives_the_logits(model: LayeredModel, recorded: Recorded) -> None:
    """Blocks run one by one, then what comes behind them; that is what unembeds a state from now on."""
    states = input_of(*recorded.calls[0])
    for block, (args, kwargs) in zip(model.blocks, recorded.calls, strict=True):
        args, kwargs = with_input(args, kwargs, states)
        states = first_of(block(*args, **kwargs))
    raw = states
    for module in recorded.after:
        raw = first_of(module(raw))
    if raw.shape == recorded.logits.shape:
        # The nearest and not the first that is close enough: in half precision no map at all is close to a soft cap.
        maps = logit_maps(model.module.config.get_text_config())
        steps = min(maps, key=lambda steps: gap(map_logits(raw, steps), recorded.logits))
        if close(map_logits(raw, steps), recorded.logits):
            model.structure = replace(model.structure, after=tuple(recorded.after), logit_map=steps)
            return note(model, "layer-by-layer replay gives the model's own logits", True, _describe(steps))
    detail = "layers run one by one, final norm and unembedding do not give the model's own logits"
    return note(model, "layer-by-layer replay gives the model's own logits", False, detail, ("unembed",))


def _describe(steps: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{kind} {value:g}" for kind, value in steps) or "no soft cap, no scale"


def additions_close(model: LayeredModel, recorded: Recorded) -> None:
    """State + attn_out + mlp_out is the next state, in every layer; sites that no block has are refused."""
    config = model.module.config.get_text_config()
    multiplier = getattr(config, "residual_multiplier", None)
    multipliers = (1.0,) if multiplier in (None, 1, 1.0) else (float(multiplier), 1.0)
    model.additions = tuple(
        _addition_of(block, call, multipliers)
        for block, call in zip(model.blocks, recorded.calls, strict=True)
    )
    name = "what a layer adds is found"
    missing = [str(layer) for layer, addition in enumerate(model.additions) if addition is None]
    if missing:
        detail = (
            f"in layer {', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''} no two inner outputs sum to the "
            "layer's output less its input (norms behind the sum?)"
        )
        return note(model, name, False, detail, ("attn_out", "mlp_out"))
    without_mlp = [str(layer) for layer, a in enumerate(model.additions) if a is not None and a.mlp is None]
    if without_mlp:
        detail = f"layer {', '.join(without_mlp[:4])} adds one vector only"
        return note(model, name, False, detail, ("mlp_out",))
    return note(model, name, True, "state + attn_out + mlp_out = next state, in every layer")


def _addition_of(block: nn.Module, call: Call, multipliers: tuple[float, ...]) -> Addition | None:
    if input_of(*call).dtype != torch.float32:
        # In half precision nearly any pair closes the gap within rounding: ask a float32 copy instead.
        block, call = copy.deepcopy(block).float(), moved(call, torch.float32)
    return find_addition(block, partial(_rerun, block, call), input_of(*call), multipliers)


def _rerun(block: nn.Module, call: Call) -> Tensor:
    args, kwargs = call
    return first_of(block(*args, **kwargs))
