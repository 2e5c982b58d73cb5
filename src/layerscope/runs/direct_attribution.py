"""Direct logit attribution: how much every layer, head and MLP writes towards the logit of a token.

The final state is a sum: the embedding, and what attention and MLP of every layer added. With the final norm's scale
frozen at what it was in the full pass, the norm, a projection where there is one, and the unembedding are linear, so
the logit is the sum of the parts' own, plus that of the norm's shift and the unembedding's bias. What attention adds
is split further over heads, each through its own rows of the output projection; where a norm stands behind that
(Gemma 2 and 3, OLMo-2), its scale is frozen likewise. Sums are compared with the model's own logits on every text; a
model on which they differ is refused by name. A soft cap is not linear: there the logits are those that it is given.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits"; Wang et al. 2022, "Interpretability in
the wild: a circuit for indirect object identification in GPT-2 small".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.maths.frozen_norm import frozen_scale, scaled_by_gain
from layerscope.models.attention import Attended, watched
from layerscope.models.head_outputs import head_maps
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import LinearMap, as_norm
from layerscope.models.rounding import close
from layerscope.models.structure import map_logits
from layerscope.runs.contributions import Contributions, read_last_tokens
from layerscope.runs.lens import UNKNOWN
from layerscope.runs.vocabulary import token_rows, towards_tokens


@dataclass(frozen=True, eq=False)
class DirectLogits:
    """Parts of the logits of some tokens behind the last token of each text, in logits.

    `embedding`, `attention`, `mlp` and `bias` sum to `logit`; `head` and `attention_bias` to `attention`, where heads
    can be separated. NaN for a token that is not known, a part that a layer does not have, and heads that cannot be.

    Attributes:
        logit: the token's, before any soft cap [text target].
        embedding: of the state before the first layer [text target].
        bias: of the final norm's shift and the unembedding's bias [text target].
        attention, mlp: of what they add in each layer [text target layer].
        head: of each head's output through the output projection [text target layer head].
        attention_bias: of the output projection's bias, and of the shift of a norm behind it [text target layer].
        one_projection: why heads of some layers cannot be separated, or empty.
    """

    logit: Float[Tensor, "text target"]
    embedding: Float[Tensor, "text target"]
    bias: Float[Tensor, "text target"]
    attention: Float[Tensor, "text target layer"]
    mlp: Float[Tensor, "text target layer"]
    head: Float[Tensor, "text target layer head"]
    attention_bias: Float[Tensor, "text target layer"]
    one_projection: str = ""


@torch.no_grad()
def direct_logits(
    model: LayeredModel, texts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> DirectLogits:
    """The parts of some tokens' logits behind each of some texts of equal length.

    Args:
        model: the model.
        texts: token ids.
        targets: for each text, ids of the tokens that are attributed. The first may be UNKNOWN, for the model's own
            most probable token; so may others, which are then left out.

    Raises:
        LayerscopeError: the load check found no vectors that layers add, or could not rebuild this model's logits; or
            the parts do not sum to them.
    """
    for site in ("unembed", "attn_out", "mlp_out"):
        model.need(site)
    outputs: dict[int, Tensor] = {}
    with ExitStack() as stack:
        modules = {layer: m for layer, m in enumerate(model.attention_modules) if m is not None}
        if "head_out" not in model.refused:
            watches = {module: _keeper(outputs, layer) for layer, module in modules.items()}
            stack.enter_context(watched(model.module, watches))
        found = read_last_tokens(model, texts)
    wanted = torch.tensor([list(row) for row in targets], device=model.device)
    wanted[:, 0] = torch.where(wanted[:, 0] == UNKNOWN, found.logits.argmax(-1), wanted[:, 0])
    way = _Unembedding(model, found.states[-1], wanted)
    head, attention_bias, why = _heads(model, way, found, outputs)
    whole = DirectLogits(
        logit=found.logits.gather(1, wanted.clamp_min(0)),
        embedding=way.of(found.states[0][:, None])[..., 0],
        bias=way.bias(),
        attention=way.of(found.attention.transpose(0, 1)),
        mlp=way.of(found.mlp.transpose(0, 1)),
        head=head,
        attention_bias=attention_bias,
        one_projection=why,
    )
    return _masked(_summed(model, whole, found, wanted, way), wanted)


def _keeper(outputs: dict[int, Tensor], layer: int) -> Callable[[Attended], None]:
    def keep(call: Attended) -> None:
        outputs[layer] = call.head_out[:, :, -1].detach().float()

    return keep


class _Unembedding:
    """The way from the residual stream to the logits of some tokens, with the final norm's scale as it was."""

    def __init__(self, model: LayeredModel, final: Tensor, wanted: Tensor) -> None:
        self._rows = token_rows(model, "unembedding")
        self._tokens = self._rows.rows[wanted.clamp_min(0)].float()  # [text target entry]
        bias = getattr(model.module.get_output_embeddings(), "bias", None)
        self._bias = 0.0 if bias is None else bias.detach().float()[wanted.clamp_min(0)]
        steps = dict(model.structure.logit_map)
        self.factor = steps.get("multiply", 1.0) / steps.get("divide", 1.0)
        norm, self._scale = self._rows.norm, torch.ones(len(final), device=final.device)
        if norm is not None:
            module = model.structure.after[0]
            after = module(final.to(next(model.blocks[-1].parameters()).dtype)).float()
            gain, shift = norm.gain.to(final), norm.shift.to(final)
            self._scale = frozen_scale(final, after, gain, shift, centres=norm.centres)

    def of(self, vectors: Float[Tensor, "text part width"]) -> Float[Tensor, "text target part"]:
        """What vectors of the residual stream give to the logits."""
        met = towards_tokens(vectors.float(), self._rows, fold=True) / self._scale[:, None, None]
        return torch.einsum("tpe,tke->tkp", met, self._tokens) * self.factor

    def bias(self) -> Float[Tensor, "text target"]:
        """What they get whatever the state: from the norm's shift and the unembedding's bias."""
        found = self._tokens.new_zeros(self._tokens.shape[:2]) + self._bias
        if self._rows.norm is not None:
            shift = self._rows.norm.shift.to(self._tokens)[None]
            found = found + self._tokens @ towards_tokens(shift, self._rows, fold=False)[0]
        return found * self.factor


def _heads(
    model: LayeredModel, way: _Unembedding, found: Contributions, outputs: dict[int, Tensor]
) -> tuple[Tensor, Tensor, str]:
    """Every head's part, and the biases', in layers whose attention is one projection of what its heads give."""
    texts, n_heads = found.states.shape[1], model.facts.n_heads or 1
    targets = way.bias().shape[1]
    head = torch.full((texts, targets, model.n_layers, n_heads), torch.nan, device=model.device)
    bias, why = head[..., 0].clone(), model.refused.get("head_out", "")
    maps = head_maps(model) if outputs else {}
    for layer, given in outputs.items():
        parts = _split(model, layer, given, maps.get(layer), found.attention[layer])
        if parts is None or given.shape[1] != n_heads:
            why = f"in layer {layer} no single projection of what heads give was found that attention adds"
            continue
        head[:, :, layer], bias[:, :, layer] = way.of(parts[0]), way.of(parts[1])[..., 0]
    return head, bias, why


def _split(
    model: LayeredModel, layer: int, given: Tensor, one: LinearMap | None, added: Tensor
) -> tuple[Tensor, Tensor] | None:
    """What each head and the biases add [text head width], [text 1 width]; None where that is not what was added."""
    addition, texts = model.additions[layer], len(given)
    if one is None or len(one.matrix) != given[0].numel() or addition is None or addition.attention is None:
        return None
    by_head = one.matrix.float().reshape(given.shape[1], -1, one.matrix.shape[1])
    heads = torch.einsum("thi,hiw->thw", given, by_head) * addition.multiplier
    rest = (one.bias.float() * addition.multiplier).expand(texts, 1, -1)
    whole = heads.sum(1) + rest[:, 0]
    norm = as_norm(model.blocks[layer].get_submodule(addition.attention), whole.shape[-1])
    if norm is not None:
        gain, shift = norm.gain.to(whole), norm.shift.to(whole) * addition.multiplier
        scale = frozen_scale(whole, added, gain, shift, centres=norm.centres)[:, None, None]
        heads, rest = (scaled_by_gain(one, gain, centres=norm.centres) / scale for one in (heads, rest))
        rest = rest + shift
    kind = next(model.blocks[layer].parameters()).dtype
    return (heads, rest) if close((heads.sum(1) + rest[:, 0]).to(kind), added.to(kind)) else None


def _summed(
    model: LayeredModel, whole: DirectLogits, found: Contributions, wanted: Tensor, way: _Unembedding
) -> DirectLogits:
    """The same with its own sum as logit, which must be the model's.

    Raises:
        LayerscopeError: it is not.
    """
    logit = whole.embedding + whole.bias + whole.attention.nansum(-1) + whole.mlp.nansum(-1)
    capped = map_logits(logit, tuple(step for step in model.structure.logit_map if step[0] == "soft cap"))
    kind = next(model.blocks[-1].parameters()).dtype
    again = found.logits.scatter(1, wanted.clamp_min(0), capped)
    if not close(again.to(kind), found.logits.to(kind)):
        raise LayerscopeError(
            f"direct logit attribution is not available on {model.facts.name}",
            found=f"parts whose sum differs from the logit by up to {float((again - found.logits).abs().max()):.2g}",
            expected="the answer's logit as a sum of what layers add, through the final norm and the unembedding",
            hint="--set direct=false   (the lens is read all the same)",
        )
    return replace(whole, logit=logit)


def _masked(whole: DirectLogits, wanted: Int[Tensor, "text target"]) -> DirectLogits:
    """NaN for tokens that are not known."""
    unknown = wanted == UNKNOWN

    parts: dict[str, Any] = {
        name: values.masked_fill(unknown.reshape(*unknown.shape, *[1] * (values.dim() - 2)), torch.nan)
        for name, values in vars(whole).items()
        if isinstance(values, Tensor)
    }
    return replace(whole, **parts)
