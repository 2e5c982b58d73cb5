"""From what a person asked to a job that is ready to run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import layerscope
from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Experiment, ExperimentSettings, Inputs
from layerscope.jobs.texts import LONGEST, default_source, tokenised_passages, tokenised_prompts
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.results.record import Asked, Machine, RunRecord, digest
from layerscope.results.store import RunFolder
from layerscope.runs import machine
from layerscope.text.tokens import BosPolicy, bos_record, tokenizer_digest

# Rooms whose code decides numbers; figures, pages and the command line do not.
_NUMBER_ROOMS = ("engines", "experiments", "maths", "models", "results", "runs", "text")
_TOKENS_PER_PASS = {"cpu": 2048, "cuda": 65536}


@dataclass(frozen=True)
class Job:
    """Everything needed to measure, checked before the slow part."""

    experiment: Experiment
    settings: ExperimentSettings
    model: LayeredModel
    inputs: Inputs
    record: RunRecord


def prepare(
    name: str,
    *,
    model: Any = "bundled",
    prompts: Any = None,
    passages: Any = None,
    settings: Mapping[str, Any] | None = None,
    bos: BosPolicy = "auto",
    chat: bool = False,
    limit: int | None = None,
    longest: int | None = LONGEST,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Job:
    """A job: settings checked, model loaded and tried, texts tokenised.

    Cheap refusals come first: an unknown experiment or setting is told before a model is loaded.
    """
    experiment = experiments.load(name)
    chosen = experiments.settings_of(experiment, settings or {})
    loaded = load_model(
        model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    sources = _sources(experiment, loaded, prompts=prompts, passages=passages)
    inputs = Inputs(
        facts=loaded.facts,
        prompts=tokenised_prompts(loaded, sources["prompts"], bos=bos, chat=chat, limit=limit)
        if "prompts" in sources
        else (),
        passages=tokenised_passages(loaded, sources["passages"], bos=bos, longest=longest, limit=limit)
        if "passages" in sources
        else (),
        tokens_per_pass=_TOKENS_PER_PASS.get(loaded.device.type, 2048),
    )
    record = new_record(experiment, chosen, loaded, inputs, bos, chat)
    record.named = {
        kind: _absolute(str(source)) for kind, source in sources.items() if isinstance(source, str | Path)
    }
    record.options = {"limit": limit} | ({"longest": longest} if "passages" in sources else {})
    return Job(experiment, chosen, loaded, inputs, record)


def _sources(experiment: Experiment, model: LayeredModel, **given: Any) -> dict[str, Any]:
    """What the experiment takes, as given or by default."""
    return {
        kind: default_source(model, kind) if given[kind] is None else given[kind]
        for kind in sorted(experiment.takes & set(given))
    }


def again(folder: RunFolder, *, model: LayeredModel | None = None) -> Job:
    """The job of an existing run folder, from what it recorded.

    Args:
        folder: the run.
        model: the model, where the run was given an object instead of a name.

    Raises:
        LayerscopeError: the model's weights or the texts are no longer what they were.
    """
    record = folder.record
    asked = record.asked
    experiment = experiments.load(asked.experiment)
    loaded = model or _reloaded(asked, folder)
    if loaded.weights_digest != asked.weights:
        raise LayerscopeError(
            "the model has changed since this run began",
            found=f"weights {loaded.weights_digest[:12]} in {asked.model}",
            expected=f"weights {asked.weights[:12]}",
            hint="the same checkpoint, or a new run",
        )
    inputs = Inputs.model_validate(folder.inputs)
    if _texts_digest(inputs) != asked.texts:
        raise LayerscopeError(
            "the texts of this run have been altered",
            found=f"{folder.path / 'inputs.json'}",
            expected="the texts that the run was given",
            hint="run the experiment again from its prompts",
        )
    torch.set_num_threads(record.machine.threads)
    return Job(experiment, experiments.settings_of(experiment, asked.settings), loaded, inputs, record)


def _reloaded(asked: Asked, folder: RunFolder) -> LayeredModel:
    if not asked.loadable:
        raise LayerscopeError(
            "this run was given a model object, which its folder does not hold",
            found=asked.model,
            expected="the same model",
            hint=f"from Python: layerscope.open_run({str(folder.path)!r}).resume(model=...)",
        )
    return load_model(
        asked.model,
        device=asked.device,
        dtype=asked.dtype,
        revision=asked.revision if "/" in asked.model and not Path(asked.model).exists() else None,
        trust_remote_code=asked.trust_remote_code,
    )


def new_record(
    experiment: Experiment,
    settings: ExperimentSettings,
    model: LayeredModel,
    inputs: Inputs,
    bos: BosPolicy,
    chat: bool,
) -> RunRecord:
    """The record of a run that is about to begin."""
    facts = model.facts
    asked = Asked(
        experiment=experiment.name,
        settings=settings.model_dump(mode="json"),
        model=_absolute(facts.source),
        loadable=facts.loadable,
        revision=facts.revision,
        weights=model.weights_digest,
        tokenizer=tokenizer_digest(model.tokenizer),
        bos=bos_record(model.tokenizer, bos),
        chat=chat,
        texts=_texts_digest(inputs),
        device=str(model.device),
        dtype=facts.dtype,
        trust_remote_code=facts.trust_remote_code,
    )
    return RunRecord(
        asked=asked,
        machine=this_machine(model.device),
        facts=facts.model_dump(mode="json"),
        chunk_plan={"tokens_per_pass": inputs.tokens_per_pass, "path": "plain"},
        checks=model.checks,
    )


def this_machine(device: torch.device) -> Machine:
    """What a run on this device, now, runs on."""
    return Machine(
        processor=machine.processor(),
        device_name=machine.device_name(device),
        threads=torch.get_num_threads(),
        environment=machine.arithmetic_environment(),
        versions=machine.versions() | {"layerscope": layerscope.__version__},
        code=code_digest(),
    )


@cache
def code_digest() -> str:
    """sha256 over the source of every room whose code decides numbers."""
    root = Path(layerscope.__file__).parent
    summary = hashlib.sha256()
    for room in _NUMBER_ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            summary.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return summary.hexdigest()


def _texts_digest(inputs: Inputs) -> str:
    return digest(inputs.model_dump(mode="json", include={"prompts", "passages"}))


def _absolute(source: str) -> str:
    # A run must be resumable from another working folder.
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source
