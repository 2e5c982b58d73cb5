"""What is known about a model, as plain values: readable and serialisable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from layerscope.maths.operations import operations_of_passes


class ModelFacts(BaseModel):
    """Shape and identity of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what a person calls it: the last piece of its path or hub name")
    source: str = Field(description="what it was loaded from")
    loadable: bool = Field(description="False where the caller handed over a model object")
    architecture: str
    n_layers: int = Field(description="layers")
    width: int = Field(description="entries of a residual-stream state")
    n_heads: int | None = Field(description="query heads per layer; None where layers have no heads")
    n_kv_heads: int | None
    vocabulary: int
    context: int | None = Field(description="longest text in tokens; None where the model states no limit")
    n_parameters: int
    layer_parameters: int = Field(
        0,
        description="weights of a layer that a token's state is multiplied by, on average; 0 where not recorded",
    )
    dtype: str
    device: str
    revision: str | None = None
    trust_remote_code: bool = False
    files: str = Field("", description="sha256 over the files that it was loaded from; empty for an object")
    dequantised: str | None = Field(
        None, description="types of the numbers in its file, where they were quantised and are floats now"
    )
    untrained: int | None = Field(
        None, description="where it is the untrained twin of what `source` names, the seed of its weights"
    )

    def operations(self, tokens: float, *, layers: float | None = None, logits: float = 0.0) -> float:
        """Floating-point operations of so many tokens through some layers, all by default, and of logits read."""
        return operations_of_passes(
            tokens * (self.n_layers if layers is None else layers),
            logits,
            layer_parameters=self.layer_parameters
            or 12 * self.width**2,  # older records lack it: GPT-2's shape
            width=self.width,
            vocabulary=self.vocabulary,
        )


def facts_of(
    module: Any,
    *,
    source: str,
    loadable: bool,
    revision: str | None = None,
    trust_remote_code: bool = False,
    files: str = "",
    dequantised: str | None = None,
) -> ModelFacts:
    """The facts of a transformers model, from its configuration and its weights."""
    config = module.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    first = next(module.parameters())
    return ModelFacts(
        name=Path(source).name or source,
        source=source,
        loadable=loadable,
        architecture=type(module).__name__,
        n_layers=config.num_hidden_layers,
        width=config.hidden_size,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        vocabulary=config.vocab_size,
        context=_context(config),
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        layer_parameters=_met_in_a_layer(module, config),
        dtype=str(first.dtype).removeprefix("torch."),
        device=str(first.device),
        revision=getattr(module.config, "_commit_hash", None) or revision,
        trust_remote_code=trust_remote_code,
        files=files,
        dequantised=dequantised,
    )


def _met_in_a_layer(module: Any, config: Any) -> int:
    """Weights of the matrices of a layer that a token meets, on average: of experts, those that it is sent to."""
    from torch import nn

    lists = [
        m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers
    ]
    experts = next((n for name in _EXPERTS if (n := getattr(config, name, None))), 0)
    share = (getattr(config, "num_experts_per_tok", None) or experts) / experts if experts else 1.0
    met = [
        sum(
            weight.numel() * (share if "experts" in name and "shared" not in name else 1.0)
            for name, weight in layers.named_parameters()
            if weight.ndim > 1
        )
        for layers in lists
    ]
    return round(max(met, default=0.0) / config.num_hidden_layers)


_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")


def _context(config: Any) -> int | None:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
