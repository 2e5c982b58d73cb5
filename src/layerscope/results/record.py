"""run.json: what was asked, of which model, on which machine, and how far it has come."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from layerscope.results.schema import SCHEMA

_UNSEALED = (
    "run.json is unsealed (it carries no digest of what was asked): an edit to it would not be noticed"
)

State = Literal["planned", "running", "refused", "complete"]

CHANGING = ("state", "refused", "stages", "finished", "result", "seconds", "peak_bytes", "notes")
"""What a record says of how far a run has come; all else is as it was when the run began."""

_COUNTS = ("n_layers", "width", "n_heads", "n_kv_heads", "vocabulary", "context", "n_parameters")


class Asked(BaseModel):
    """Everything that decides the numbers; two runs with equal `Asked` must agree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    settings: dict[str, Any]
    model: str = Field(description="the hub name, folder or label that the model was loaded by")
    loadable: bool = Field(description="False where the caller handed over a model object")
    revision: str | None = Field(description="commit of the hub's repository, where there is one")
    weights: str = Field(description="sha256 over names, shapes and bytes of all weights")
    files: str = Field(
        "",
        description="sha256 over the checkpoint's files, compared before one is built; empty for an object",
    )
    config: str = Field("", description="sha256 over the model's configuration and its attention function")
    tokenizer: str = Field(description="sha256 over the vocabulary and a probe encoding")
    bos: dict[str, Any] = Field(description="the policy, and what it did")
    chat: bool
    texts: str = Field(description="sha256 over prompts, passages, treebank and words as tokenised")
    device: str
    dtype: str
    trust_remote_code: bool = Field(
        False, description="whether the person allowed code that comes with weights; never taken from here"
    )
    untrained: int | None = Field(
        None, description="seed of the weights, where it was asked of the model's untrained twin"
    )

    def but_for_training(self) -> str:
        """Names what was asked, whichever weights answer: a run and its untrained twin's have one name."""
        without = {"weights", "files", "config", "untrained"}
        return digest(self.model_dump(mode="json", exclude=without))


class PlugIn(BaseModel):
    """The package that an experiment comes from, where that is not Layerscope."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    code: str = Field(description="sha256 over its source")


class Machine(BaseModel):
    """Where it ran and with what; named when a replay differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    device_name: str
    threads: int = Field(ge=1, le=1024)
    environment: dict[str, str] = Field(description="variables that change arithmetic")
    versions: dict[str, str]
    code: str = Field(description="sha256 over Layerscope's own source")
    plugin: dict[str, PlugIn] = Field(
        default_factory=dict, description="by its distribution, the package that the experiment comes from"
    )

    def answering(self) -> dict[str, Any]:
        """The code that answers: Layerscope's own, and the package's that the experiment comes from."""
        return self.model_dump(mode="json", include={"code", "plugin"}, exclude_defaults=True)


class StageRecord(BaseModel):
    """How a stage went."""

    model_config = ConfigDict(allow_inf_nan=False)

    items: int = Field(ge=0)
    size: float = Field(ge=0, description="sum of the sizes of its items, in the stage's own unit")
    seconds: float = Field(0.0, ge=0)


class RunRecord(BaseModel):
    """The whole of run.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_number: int = SCHEMA
    seal: str | None = Field(
        None, description="sha256 over all that does not change; None in a record of an older Layerscope"
    )
    state: State = "planned"
    asked: Asked
    machine: Machine
    named: dict[str, str] = Field(
        default_factory=dict, description="names by which texts were asked for, by kind"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="limit, longest: what was taken of the texts"
    )
    facts: dict[str, Any] = Field(description="the model's own facts: family, layers, width, ...")
    chunk_plan: dict[str, Any]
    checks: list[dict[str, Any]] = Field(default_factory=list, description="what the load check found")
    standing_first: dict[str, Any] = Field(
        default_factory=dict, description="what stands first before texts, the losses that decided, and why"
    )
    refused: str = Field("", description="why the run was refused, where it was")
    left_out: dict[str, str] = Field(
        default_factory=dict, description="prompts that the model cannot read, with the reason"
    )
    cautions: list[str] = Field(
        default_factory=list, description="what a reader must know beside the cautions of the result"
    )
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    created: str = Field(default_factory=lambda: now())
    finished: str | None = None
    result: str | None = Field(None, description="sha256 of result.nc, once the run is complete")
    seconds: float = Field(0.0, ge=0, description="measuring time, summed over all sessions")
    peak_bytes: int = Field(0, ge=0, description="largest memory of the process seen while measuring")
    notes: list[str] = Field(
        default_factory=list, description="what a reader should know: halved chunks, resumes"
    )

    @field_validator("facts")
    @classmethod
    def _facts_can_be_told(cls, facts: dict[str, Any]) -> dict[str, Any]:
        for name in _COUNTS:
            number = facts.get(name)
            if number is not None and (type(number) is not int or not 0 <= number < 10**15):
                raise ValueError(f"{name} is no count")
        return facts

    @property
    def all_cautions(self) -> list[str]:
        """What a reader must know; of a record without a digest, that too."""
        return [*self.cautions, *([_UNSEALED] if self.seal is None else [])]

    def key(self) -> str:
        """Twelve hex digits that name what was asked and the code that answers it."""
        return digest({"asked": self.asked.model_dump(mode="json")} | self.machine.answering())[:12]


def said(error: ValidationError) -> str:
    """What is wrong with a record, first of all, in one line."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def digest(value: Any) -> str:
    """Sha256 of a value's JSON form, with sorted keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    """The present moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
