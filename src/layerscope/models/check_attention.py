"""Is a model's attention ours to watch and edit, and is what its layers are given beside the state understood?"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from layerscope.models.argument_axes import axes_of_model
from layerscope.models.arguments import NotUnderstoodError
from layerscope.models.attention import Attended, watched
from layerscope.models.layered import LayeredModel
from layerscope.models.noting import note, reason
from layerscope.models.rounding import close
from layerscope.models.sites import THROUGH_ATTENTION


def attention_is_ours_to_watch(model: LayeredModel, ids: Tensor, logits: Tensor) -> None:
    """Our attention gives the model's own logits, its rows and sinks sum to one, and editing heads matters."""
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
        return note(model, name, True, f"in {len(seen)} of {model.n_layers} layers; rows and sinks sum to 1")
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


def arguments_are_understood(model: LayeredModel, ids: Tensor) -> None:
    """What follows a text's positions among the arguments of layers is found; branches are refused otherwise."""
    name = "what layers are given beside the state can be cut to positions"
    if {"branches", "pattern"} & set(model.refused) or None in model.attention_modules:
        return None
    try:
        model.axes = axes_of_model(model, ids[:1])
    except NotUnderstoodError as error:
        return note(model, name, False, str(error), ("branches",))
    return note(model, name, True, "by running a text and its beginning")
