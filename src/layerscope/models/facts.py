"""What is known about a model, as plain values: readable and serialisable without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModelFacts(BaseModel):
    """Shape and identity of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what a person calls it: the last piece of its path or hub name")
    source: str = Field(description="what it was loaded from")
    loadable: bool = Field(description="False where the caller handed over a model object")
    architecture: str
    n_layers: int = Field(description="blocks")
    width: int = Field(description="entries of a residual-stream state")
    n_heads: int | None = Field(description="query heads per block; None where blocks have no heads")
    n_kv_heads: int | None
    vocabulary: int
    context: int | None = Field(description="longest text in tokens; None where the model states no limit")
    n_parameters: int
    dtype: str
    device: str
    revision: str | None = None
    trust_remote_code: bool = False
    untrained: int | None = Field(
        None, description="where it is the untrained twin of what `source` names, the seed of its weights"
    )
