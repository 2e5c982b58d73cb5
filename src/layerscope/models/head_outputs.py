"""The map by which a block's heads write, found by the numbers that come out where they come together.

In a forward pass of a single token a head that looks at itself gives its value unchanged. Every linear map
is made to write the numbers of its own columns; the first map onto the residual stream that nothing but
copies of them reaches is the output projection. See `models.projections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from weakref import WeakKeyDictionary

from torch import Tensor

from layerscope.models.attention import Attended, watched
from layerscope.models.column_numbers import Fed, MissingPart, Numbers
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import (
    LinearMap,
    Trace,
    as_linear,
    linear_maps,
    signature,
    trace_block,
)


def numbered_trace(
    model: LayeredModel, layer: int, maps: Mapping[str, LinearMap], numbers: Numbers
) -> tuple[Trace, Attended | None]:
    """One forward in which these maps of a block write their numbers, and heads give their own values."""
    module, calls = model.attention_modules[layer], []

    def watch(call: Attended) -> Tensor:
        calls.append(call)
        return call.v.repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=1)

    replaced = {name: numbers.written(name) for name in maps}
    with ExitStack() as stack:
        if module is not None:
            stack.enter_context(watched(model.module, {module: watch}))
        trace = trace_block(model, layer, rows=len(numbers.codes), replaced=replaced)
    return trace, calls[0] if calls else None


def output_projection(
    model: LayeredModel, maps: Mapping[str, LinearMap], trace: Trace, numbers: Numbers
) -> tuple[str, Fed]:
    """The first map onto the residual stream that nothing but copies of other maps' outputs reaches.

    Raises:
        MissingPart: there is none.
    """
    for name, one in maps.items():
        if one.matrix.shape[1] != model.facts.width:
            continue
        fed = numbers.read(trace.inputs[name].reshape(len(numbers.codes), -1))
        if fed.known.all():
            return name, fed
    if not maps:
        raise MissingPart("no linear map was found in this layer")
    raise MissingPart("no map onto the residual stream takes plain copies of values (no attention here?)")


_FOUND: WeakKeyDictionary[LayeredModel, dict[int, tuple[str, int] | None]] = WeakKeyDictionary()
"""Where the maps of models at hand lie; what they hold is read whenever it is asked for."""


def head_outputs(model: LayeredModel) -> dict[int, Tensor | None]:
    """W_O [heads * head_width, width] of every layer that attends, as its weights are now.

    None where no linear map takes what the heads give.
    """
    return {layer: None if one is None else one.matrix for layer, one in head_maps(model).items()}


def head_maps(model: LayeredModel) -> dict[int, LinearMap | None]:
    """The map by which heads write, with its bias, of every layer that attends, as its weights are now.

    None where no linear map takes what the heads give. Packed weights, which lie nowhere as a matrix, are
    asked for it. Blocks of one shape are tried once for each model.
    """
    if model not in _FOUND:
        _FOUND[model] = _find(model)
    return {
        layer: None
        if place is None
        else as_linear(place[0], model.blocks[layer].get_submodule(place[0]), place[1], packed=True)
        for layer, place in _FOUND[model].items()
    }


def _find(model: LayeredModel) -> dict[int, tuple[str, int] | None]:
    tried: dict[object, tuple[str, int] | None] = {}
    found = {}
    for layer, module in enumerate(model.attention_modules):
        if module is not None:
            shape = signature(model.blocks[layer])
            if shape not in tried:
                tried[shape] = _tried(model, layer)
            found[layer] = tried[shape]
    return found


def _tried(model: LayeredModel, layer: int) -> tuple[str, int] | None:
    """Name inside the block and input width of the map by which heads write, or None."""
    module, block = model.attention_modules[layer], model.blocks[layer]
    inside = next(name for name, one in block.named_modules() if one is module)
    trace = trace_block(model, layer)
    maps = linear_maps(block, trace, inside=inside, packed=True)
    numbers = Numbers(maps, model)
    try:
        name, _ = output_projection(model, maps, numbered_trace(model, layer, maps, numbers)[0], numbers)
    except MissingPart:
        return None
    return name, len(maps[name].matrix)
