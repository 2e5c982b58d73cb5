"""The matrices by which a block's heads and MLP read and write the residual stream, found by trying.

Families lay them out in many ways: one matrix for queries, keys and values (in thirds, or head by head),
three of them, grouped heads, gates beside or between the other columns, experts in one tensor. No family
is named here. In a forward pass of a single token a head that looks at itself gives its value unchanged.
So every linear map of the block is made to write the numbers of its own columns, and where a number comes
out tells which column feeds which entry of which head: at the attention function where the family lets it
be watched, and at the input of the map that only copies reach, which is the output projection.

At position 0 rotary positions turn nothing, so queries and keys are found too. At other positions they are
turned pair by pair: a head's query-key form is exact for equal positions only. Where a norm or a clamp
stands between the map and the product, there is no such form, and none is given.

In an MLP, maps that share their input with the one before the output projection read. Of two, or of the
two halves of one, that along which the product is a straight line goes in as it is; the other is the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.attention import Attended
from layerscope.models.column_numbers import MissingPart, Numbers, floats
from layerscope.models.experts import find_experts
from layerscope.models.head_outputs import numbered_trace, output_projection
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import (
    Norm,
    adapted_module,
    as_norm,
    linear_maps,
    packed_module,
    same,
    trace_block,
)
from layerscope.models.mlp_weights import MlpWeights, gate_and_in

_BASE, _CHECKS = 100, 3


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The matrices of a block's heads; a state x stands to their left, as in x·value.

    Attributes:
        value: from the (normed) state to a key/value head's values.
        value_bias: added to values.
        output: from a head's average of values to the vector that attention adds, before `after`.
        output_bias: added once.
        group: the key/value head of each query head.
        query, key: likewise; None where `no_product` says why.
        query_bias, key_bias: added to queries and keys.
        before: the norm that states pass before they are read; None where there is none.
        after: a norm behind the output projection, or None.
        before_known: False where the state is changed before it is read and no norm explains it.
        output_map: the module of the output projection, for edits.
        no_product: why there is no query-key form, or empty.
    """

    value: Float[Tensor, "kv_head width head_width"]
    value_bias: Float[Tensor, "kv_head head_width"]
    output: Float[Tensor, "head head_width width"]
    output_bias: Float[Tensor, "width"]
    group: tuple[int, ...]
    query: Float[Tensor, "head width key_width"] | None
    key: Float[Tensor, "kv_head width key_width"] | None
    query_bias: Float[Tensor, "head key_width"] | None
    key_bias: Float[Tensor, "kv_head key_width"] | None
    before: Norm | None
    after: Norm | None
    before_known: bool
    output_map: nn.Module
    no_product: str = ""


@dataclass(frozen=True, eq=False)
class Projections:
    """The matrices of one block.

    Attributes:
        layer: the block.
        heads: of its attention; None where `missing` says why.
        mlps: its MLP, or its experts; empty where `missing` says why.
        missing: by part ("attention", "queries and keys", "mlp"), why it was not found.
    """

    layer: int
    heads: HeadWeights | None
    mlps: tuple[MlpWeights, ...]
    missing: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def find_projections(model: LayeredModel, layer: int) -> Projections:
    """The projections of a block, as float32 (or finer) on the model's device.

    What a block lacks, or what cannot be told, is named in `missing`.

    Raises:
        LayerscopeError: the block's weights are packed (quantised).
    """
    refuse_packed(model, model.blocks[layer], f"layer {layer}")
    return _Finder(model, layer).find()


def refuse_packed(model: LayeredModel, module: nn.Module, where: str) -> None:
    """Raise a LayerscopeError that names the first module of a part of the model whose weights are not one matrix.

    Packed (quantised) ones hold none, and one with an adapter (LoRA) holds several.
    """
    adapted = adapted_module(module)
    if adapted:
        raise LayerscopeError(
            f"weights of {model.facts.name} have an adapter beside them, so their directions cannot be computed",
            found=f"an adapter in {where}: {adapted}",
            expected="one matrix of weights for each projection",
            hint="model.merge_and_unload() before load_model",
        )
    packed = packed_module(module)
    if packed:
        raise LayerscopeError(
            f"the weights of {model.facts.name} are packed, so their directions cannot be computed",
            found=f"quantised weights in {where}: {packed}",
            expected="floating-point weights",
            hint="the same model without quantisation (the checkpoint in bfloat16 or float16)",
        )


class _Finder:
    """One block, a trace of it, and its linear maps."""

    def __init__(self, model: LayeredModel, layer: int) -> None:
        self.model, self.layer, self.block = model, layer, model.blocks[layer]
        self.addition = model.additions[layer]
        self.plain = trace_block(model, layer)
        self.maps = linear_maps(self.block, self.plain)
        self.of_attention: set[str] = set()

    def find(self) -> Projections:
        missing: dict[str, str] = {}
        heads: HeadWeights | None = None
        mlps: tuple[MlpWeights, ...] = ()
        try:
            heads = self._heads()
            if heads.no_product:
                missing["queries and keys"] = heads.no_product
        except MissingPart as why:
            missing["attention"] = missing["queries and keys"] = str(why)
        try:
            mlps = self._mlps()
        except MissingPart as why:
            missing["mlp"] = str(why)
        return Projections(self.layer, heads, mlps, missing)

    # attention

    def _heads(self) -> HeadWeights:
        numbers = Numbers(self.maps, self.model)
        trace, seen = numbered_trace(self.model, self.layer, self.maps, numbers)
        name, fed = output_projection(self.model, self.maps, trace, numbers)
        n_heads = seen.q.shape[1] if seen else self.model.facts.n_heads
        if not n_heads or len(fed.columns) % n_heads:
            raise MissingPart(f"{len(fed.columns)} values do not split into {n_heads} heads")
        by_head = fed.columns.reshape(n_heads, -1)
        distinct = list(dict.fromkeys(tuple(row) for row in by_head.tolist()))
        group = tuple(distinct.index(tuple(row)) for row in by_head.tolist())
        firsts = [group.index(kv) for kv in range(len(distinct))]
        value, bias = numbers.weights(fed.columns, fed.factors, n_heads)
        if value.shape[-2] != self.model.facts.width:
            raise MissingPart(f"values are read from {value.shape[-2]} numbers, not from the state")
        output = floats(self.maps[name].matrix).reshape(n_heads, -1, self.model.facts.width)
        factor = self.addition.multiplier if self.addition else 1.0
        self.of_attention |= {name, *numbers.owners(fed.columns)}
        reader = next(iter(numbers.owners(fed.columns)))
        before, known = self._norm_before(reader)
        heads = HeadWeights(
            value=value[firsts],
            value_bias=bias[firsts],
            output=output * factor,
            output_bias=floats(self.maps[name].bias) * factor,
            group=group,
            query=None,
            key=None,
            query_bias=None,
            key_bias=None,
            before=before,
            before_known=known,
            after=self._norm_after(name),
            output_map=self.maps[name].module,
        )
        return self._with_product(heads, seen, numbers, firsts)

    def _with_product(
        self, heads: HeadWeights, seen: Attended | None, numbers: Numbers, firsts: Sequence[int]
    ) -> HeadWeights:
        if seen is None:
            why = "queries and keys can be watched only where attention runs through transformers' interface"
            return replace(heads, no_product=why)
        asked, answered = (numbers.read(call[:, :, 0].flatten(1)) for call in (seen.q, seen.k))
        if not (asked.known.all() and answered.known.all()):
            return replace(heads, no_product="queries or keys pass a norm, a clamp or another map")
        self.of_attention |= {*numbers.owners(asked.columns), *numbers.owners(answered.columns)}
        query, query_bias = numbers.weights(asked.columns, asked.factors, seen.q.shape[1])
        key, key_bias = numbers.weights(answered.columns, answered.factors, seen.k.shape[1])
        read = {query.shape[-2], key.shape[-2]} - {self.model.facts.width}
        if read:
            return replace(
                heads, no_product=f"queries or keys are read from {min(read)} numbers, not from the state"
            )
        if seen.k.shape[1] != len(firsts):  # keys written once per query head, values once per group
            return replace(heads, no_product="keys and values are grouped differently")
        return replace(heads, query=query, key=key, query_bias=query_bias, key_bias=key_bias)

    # the MLP

    def _mlps(self) -> tuple[MlpWeights, ...]:
        found: list[MlpWeights] = []
        experts, why = find_experts(self.block, self.plain, self.model.facts.width)
        if why:
            raise MissingPart(why)
        factor = self.addition.multiplier if self.addition else 1.0
        for one in experts:
            before, known = self._norm_before(one.module_name)
            after = self._norm_after(one.module_name)
            weights = replace(
                one.weights,
                before=before,
                before_known=known,
                after=after,
                writes=one.weights.writes * factor,
            )
            found.append(weights)
        if not experts or any("shared" in name for name in self.maps):
            try:
                found.append(replace(self._dense(), name="shared" if experts else ""))
            except MissingPart:
                if not found:
                    raise
        return tuple(found)

    def _dense(self) -> MlpWeights:
        out = self._mlp_output()
        units, width = self.maps[out].matrix.shape
        order = [name for name in self.maps if name not in self.of_attention]
        earlier = [
            name
            for name in order[: order.index(out)]
            if self.maps[name].matrix.shape[0] == width
            and self.maps[name].matrix.shape[1] in (units, 2 * units)
        ]
        if not earlier:
            raise MissingPart(f"no map from the residual stream feeds {out}")
        reading = [name for name in earlier if same(self.plain.inputs[name], self.plain.inputs[earlier[-1]])][
            -2:
        ]
        if self.maps[reading[-1]].matrix.shape[1] == 2 * units:
            reading = reading[-1:]
        reads = gate_and_in(self.model, self.layer, [self.maps[name] for name in reading], self.maps[out])
        if reads is None:
            raise MissingPart("which columns are the gate could not be told")
        before, known = self._norm_before(reading[-1])
        factor = self.addition.multiplier if self.addition else 1.0
        return MlpWeights(
            name="",
            reads={kind: floats(matrix) for kind, (matrix, _) in reads.items()},
            read_biases={kind: floats(bias) for kind, (_, bias) in reads.items()},
            writes=floats(self.maps[out].matrix) * factor,
            write_bias=floats(self.maps[out].bias) * factor,
            before=before,
            before_known=known,
            after=self._norm_after(out),
            output_map=self.maps[out].module,
        )

    def _mlp_output(self) -> str:
        """The output projection: in the module whose output is added, or before the norm that is."""
        width = self.model.facts.width
        onto = [
            name
            for name, one in self.maps.items()
            if one.matrix.shape[1] == width and name not in self.of_attention
        ]
        if not onto:
            raise MissingPart("no map onto the residual stream beside attention's")
        added = self.addition.mlp if self.addition else None
        if self.addition is not None and added is None:
            raise MissingPart("this layer adds no vector by an MLP")
        if added is not None:
            inside = [name for name in onto if name == added or name.startswith(f"{added}.")]
            if inside:
                return inside[-1]
        return onto[-1]

    # norms

    def _norm_before(self, name: str) -> tuple[Norm | None, bool]:
        """The norm that gives a map its input; (None, True) where the map reads the block's
        own input, (None, False) where nothing explains what it reads."""
        wanted = self.plain.inputs[name]
        candidates = [
            other
            for other, output in self.plain.outputs.items()
            if other not in self.maps
            and same(output, wanted)
            and not same(self.plain.inputs.get(other), wanted)
        ]
        for other in candidates:
            norm = as_norm(self.block.get_submodule(other), wanted.shape[-1])
            if norm is not None:
                return norm, True
        return None, same(self.plain.entering, wanted)

    def _norm_after(self, name: str) -> Norm | None:
        """A norm whose input is what a map gives."""
        given = self.plain.outputs[name]
        for other, taken in self.plain.inputs.items():
            if (
                other not in self.maps
                and same(taken, given)
                and not same(self.plain.outputs.get(other), given)
            ):
                norm = as_norm(self.block.get_submodule(other), given.shape[-1])
                if norm is not None:
                    return norm
        return None
