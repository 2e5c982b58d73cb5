"""The load check: every model is tried before anything is measured on it.

A check that the whole laboratory rests on (finite weights, causality, equal batches) refuses the
model; any other refuses only the sites that need it, by name and with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models import verdicts
from layerscope.models.additions import find_addition
from layerscope.models.argument_axes import axes_of_model
from layerscope.models.arguments import Call, NotUnderstoodError
from layerscope.models.attention import Attended, watched
from layerscope.models.hooks import at_depth, first_of, input_of, on_output, with_input
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import OF_THE_STREAM, THROUGH_ATTENTION
from layerscope.models.structure import Addition, logit_maps, map_logits, neighbours_of_blocks
from layerscope.models.takes import keeps_last, takes_positions

_PROBE_TOKENS = 9
_RELATIVE = {torch.float64: 1e-6, torch.float32: 2e-4}
_RELATIVE_OF_HALVES = 5e-2


@dataclass
class Recorded:
    """One forward of the probe, with all that went in and out of its blocks."""

    logits: Tensor
    calls: list[Call] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    after: list[nn.Module] = field(default_factory=list)


@torch.no_grad()
def check_model(model: LayeredModel) -> None:
    """Try a freshly loaded model; fills its `checks`, `refused`, `additions` and `attention_modules`.

    What an earlier trial of the same weights found, on this device by this code, is taken as it was.

    Raises:
        LayerscopeError: a weight is NaN or infinite, the model is not causal, or rows of a batch
            influence each other.
    """
    if verdicts.recall(model):
        return
    _weights_are_finite(model)
    ids = probe_ids(model)
    recorded = _record(model, ids)
    _is_causal(model, ids, recorded.logits)
    alone = torch.cat([model.logits(row[None]) for row in ids])
    _batches_agree(model, alone, recorded.logits)
    model.takes_positions = takes_positions(model.module, ids[:1], alone[:1])
    model.keeps_last = keeps_last(model.module, ids[:1], alone[:1])
    if _states_belong_to_tokens(model, ids, recorded):
        with _failing_refuses(model, "a state can be put in another's place", *OF_THE_STREAM, "branches"):
            _states_can_be_put(model, ids, recorded)
        with _failing_refuses(model, "block-by-block replay gives the model's own logits", "unembed"):
            _replay_gives_the_logits(model, recorded)
        with _failing_refuses(model, "what a block adds is found", "attn_out", "mlp_out"):
            _additions_close(model, recorded)
    with _failing_refuses(model, "attention can be watched and edited", *THROUGH_ATTENTION):
        _attention_is_ours_to_watch(model, ids, recorded.logits)
    with _failing_refuses(
        model, "what layers are given beside the state can be cut to positions", "branches"
    ):
        _arguments_are_understood(model, ids)
    _device_agrees_with_cpu(model, recorded)
    verdicts.keep(model)


@contextmanager
def _failing_refuses(model: LayeredModel, name: str, *sites: str) -> Iterator[None]:
    """Whatever a model raises in a check that only some sites need refuses these, with what it said."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        note(model, name, False, reason(error), sites)


def probe_ids(model: LayeredModel, tokens: int = _PROBE_TOKENS) -> Tensor:
    """Three rows of well-spread token ids, the same on every load; no more than the model's context."""
    tokens = min(tokens, model.facts.context or tokens)
    steps = torch.arange(3 * tokens).reshape(3, tokens)
    return ((steps * 7919 + 101) % model.facts.vocabulary).to(model.device)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to the rounding of their type, relative to the largest entry."""
    relative = _RELATIVE.get(b.dtype, _RELATIVE_OF_HALVES)
    a, b = a.float(), b.float().to(a.device)
    return bool(((a - b).abs().max() <= relative * b.abs().max().clamp_min(1e-30)).item())


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def reason(error: Exception) -> str:
    """What a model said while it was tried, on one line."""
    if isinstance(error, LayerscopeError):
        return str(error.found)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def note(model: LayeredModel, name: str, holds: bool, detail: str, refuses: tuple[str, ...] = ()) -> None:
    """Keep what one check found, and what it refuses where it does not hold."""
    model.checks.append({"name": name, "holds": holds, "detail": detail})
    if not holds:
        model.refused |= dict.fromkeys(refuses, detail)


def _refuse_model(model: LayeredModel, problem: str, found: str, expected: str, hint: str) -> LayerscopeError:
    return LayerscopeError(f"{model.facts.name}: {problem}", found=found, expected=expected, hint=hint)


def _weights_are_finite(model: LayeredModel) -> None:
    # A sum is four times as fast as looking at every entry, and NaN or infinity survives it.
    suspects = [
        (n, p) for n, p in model.module.named_parameters() if not bool(p.sum(dtype=torch.float32).isfinite())
    ]
    broken = [name for name, p in suspects if not bool(p.isfinite().all())]
    if broken:
        raise _refuse_model(
            model,
            "weights are not numbers",
            f"NaN or infinity in {', '.join(broken[:3])}{' ...' if len(broken) > 3 else ''}",
            "finite weights",
            "download or convert the checkpoint again",
        )
    note(model, "weights are finite", True, f"{model.facts.n_parameters:,} parameters")


def _record(model: LayeredModel, ids: Tensor) -> Recorded:
    recorded = Recorded(torch.empty(0))
    with ExitStack() as stack:
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(_keep_call(recorded), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(_keep_output(recorded)).remove)
        for module in neighbours_of_blocks(model.module, model.structure.blocks_path):
            stack.enter_context(on_output(module, _keep_module(recorded, module, model.n_layers)))
        recorded.logits = model.logits(ids)
    if not bool(recorded.logits.isfinite().all()):
        raise _refuse_model(
            model,
            "logits are not finite",
            f"NaN or infinity in {model.facts.dtype}",
            "finite logits",
            "--dtype float32",
        )
    return recorded


def _keep_call(recorded: Recorded) -> Callable[..., None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = input_of(args, kwargs).clone()
        recorded.calls.append(with_input(args, kwargs, states))

    return keep


def _keep_output(recorded: Recorded) -> Callable[..., None]:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        recorded.outputs.append(first_of(output).clone())

    return keep


def _keep_module(recorded: Recorded, module: nn.Module, n_layers: int) -> Callable[[Tensor], None]:
    def keep(_: Tensor) -> None:
        if len(recorded.outputs) == n_layers:
            recorded.after.append(module)

    return keep


def _is_causal(model: LayeredModel, ids: Tensor, logits: Tensor) -> None:
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.facts.vocabulary
    again = model.logits(changed)
    if not close(again[:, :-1], logits[:, :-1]):
        raise _refuse_model(
            model,
            "this model looks ahead",
            f"{model.facts.architecture}: a later token changes earlier predictions (an encoder?)",
            "a decoder-only model, in which a token sees only what stands before it",
            "gpt2, EleutherAI/pythia-160m, or another decoder",
        )
    note(model, "causal", True, "changing the last token leaves earlier predictions alone")


def _batches_agree(model: LayeredModel, alone: Tensor, logits: Tensor) -> None:
    if not close(alone, logits):
        raise _refuse_model(
            model,
            "rows of a batch influence each other",
            f"logits alone and in a batch differ by {float((alone - logits).abs().max()):.2g}",
            "the same logits",
            "--dtype float32",
        )
    note(model, "a batch of one equals a batch of many", True, "same logits")


def _states_belong_to_tokens(model: LayeredModel, ids: Tensor, recorded: Recorded) -> bool:
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


def _states_can_be_put(model: LayeredModel, ids: Tensor, recorded: Recorded) -> None:
    """Each depth's own states in their own place change nothing; those of other texts bring the other texts' logits.

    Anything else than one's own logits will do where a block reads more than the state (the tokens again, say).
    """
    states = [*(input_of(*call) for call in recorded.calls), recorded.outputs[-1]]
    own = {depth: _always(state) for depth, state in enumerate(states)}
    with at_depth(model, own):
        same = model.logits(ids)
    middle = model.n_layers // 2
    with at_depth(model, {middle: _always(states[middle].roll(1, dims=0))}):
        other = model.logits(ids)
    detail = "a state in its own place leaves the logits, another changes them"
    if not close(same, recorded.logits):
        detail = f"states put in their own place change the logits by {_gap(same, recorded.logits):.2g}"
    elif close(other, recorded.logits) and not close(other, recorded.logits.roll(1, dims=0)):
        detail = f"another state at depth {middle} leaves the logits as they were"
    else:
        return note(model, "a state can be put in another's place", True, detail)
    return note(model, "a state can be put in another's place", False, detail, (*OF_THE_STREAM, "branches"))


def _always(states: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: states


def _arguments_are_understood(model: LayeredModel, ids: Tensor) -> None:
    name = "what layers are given beside the state can be cut to positions"
    if {"branches", "pattern"} & set(model.refused) or None in model.attention_modules:
        return None
    try:
        model.axes = axes_of_model(model, ids[:1])
    except NotUnderstoodError as error:
        return note(model, name, False, str(error), ("branches",))
    return note(model, name, True, "by running a text and its beginning")


def _replay_gives_the_logits(model: LayeredModel, recorded: Recorded) -> None:
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
        steps = min(maps, key=lambda steps: _gap(map_logits(raw, steps), recorded.logits))
        if close(map_logits(raw, steps), recorded.logits):
            model.structure = replace(model.structure, after=tuple(recorded.after), logit_map=steps)
            return note(model, "block-by-block replay gives the model's own logits", True, _describe(steps))
    detail = "blocks run one by one, final norm and unembedding do not give the model's own logits"
    return note(model, "block-by-block replay gives the model's own logits", False, detail, ("unembed",))


def _describe(steps: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{kind} {value:g}" for kind, value in steps) or "no soft cap, no scale"


def _additions_close(model: LayeredModel, recorded: Recorded) -> None:
    config = model.module.config.get_text_config()
    multiplier = getattr(config, "residual_multiplier", None)
    multipliers = (1.0,) if multiplier in (None, 1, 1.0) else (float(multiplier), 1.0)
    model.additions = tuple(
        _addition_of(block, call, multipliers)
        for block, call in zip(model.blocks, recorded.calls, strict=True)
    )
    name = "what a block adds is found"
    missing = [str(layer) for layer, addition in enumerate(model.additions) if addition is None]
    if missing:
        detail = (
            f"in block {', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''} no two inner outputs sum to the "
            "block's output less its input (norms behind the sum?)"
        )
        return note(model, name, False, detail, ("attn_out", "mlp_out"))
    without_mlp = [str(layer) for layer, a in enumerate(model.additions) if a is not None and a.mlp is None]
    if without_mlp:
        detail = f"block {', '.join(without_mlp[:4])} adds one vector only"
        return note(model, name, False, detail, ("mlp_out",))
    return note(model, name, True, "state + attn_out + mlp_out = next state, in every block")


def _addition_of(block: nn.Module, call: Call, multipliers: tuple[float, ...]) -> Addition | None:
    if input_of(*call).dtype != torch.float32:
        # In half precision nearly any pair closes the gap within rounding: ask a float32 copy instead.
        block, call = copy.deepcopy(block).float(), _moved(call, torch.float32)
    return find_addition(block, partial(_rerun, block, call), input_of(*call), multipliers)


def _rerun(block: nn.Module, call: Call) -> Tensor:
    args, kwargs = call
    return first_of(block(*args, **kwargs))


def _attention_is_ours_to_watch(model: LayeredModel, ids: Tensor, logits: Tensor) -> None:
    name = "attention can be watched and edited"
    seen: dict[nn.Module, float] = {}

    def watch_of(module: nn.Module) -> Callable[[Attended], None]:
        def watch(call: Attended) -> None:
            seen[module] = float((call.pattern.sum(-1) + call.sink - 1).abs().max())

        return watch

    everything = {module: watch_of(module) for block in model.blocks for module in block.modules()}
    try:
        with watched(model.module, everything):
            ours = model.logits(ids)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, IndexError) as error:
        return note(model, name, False, reason(error), THROUGH_ATTENTION)
    model.attention_modules = tuple(
        next((m for m in block.modules() if m in seen), None) for block in model.blocks
    )
    if not seen:
        detail = f"{model.facts.architecture} computes attention inside its own modules"
    elif not close(ours, logits):
        detail = f"our attention gives other logits, by {float((ours - logits).abs().max()):.2g}"
    elif max(seen.values()) > 1e-4:
        detail = f"attention rows and sink shares sum to 1 only within {max(seen.values()):.2g}"
    elif not _editing_heads_matters(model, ids, ours):
        detail = "replacing the heads' outputs leaves the logits as they were"
    else:
        return note(model, name, True, f"in {len(seen)} of {model.n_layers} blocks; rows and sinks sum to 1")
    model.attention_modules = (None,) * model.n_layers
    return note(model, name, False, detail, THROUGH_ATTENTION)


def _editing_heads_matters(model: LayeredModel, ids: Tensor, ours: Tensor) -> bool:
    """Whether other head outputs give other logits, by more than rounding, in some block.

    All heads of a block are edited: one head alone may rightly be unused.
    """

    def edit(call: Attended) -> Tensor:
        return call.head_out + 1 + call.head_out.abs().max()

    for module in filter(None, model.attention_modules):
        with watched(model.module, {module: edit}):
            if not close(model.logits(ids), ours):
                return True
    return False


def _device_agrees_with_cpu(model: LayeredModel, recorded: Recorded) -> None:
    if model.device.type == "cpu":
        return
    args, kwargs = _moved(recorded.calls[0], "cpu")
    block = copy.deepcopy(model.blocks[0]).to("cpu")
    there = first_of(block(*args, **kwargs))
    holds = close(there, recorded.outputs[0].cpu())
    if not holds:
        raise _refuse_model(
            model,
            "this device computes something else than the CPU",
            f"block 0 differs by {float((there - recorded.outputs[0].cpu()).abs().max()):.2g}",
            "the same numbers up to rounding",
            "--device cpu",
        )
    note(model, "one block on the device agrees with the CPU", True, str(model.device))


def _moved(value: Any, place: str | torch.dtype) -> Any:
    """Arguments of a call on another device, or their floating-point tensors in another type."""
    if isinstance(value, Tensor):
        return value.to(place) if isinstance(place, str) or value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_moved(entry, place) for entry in value)
    if isinstance(value, dict):
        return {key: _moved(entry, place) for key, entry in value.items()}
    return value
