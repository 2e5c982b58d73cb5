"""From what a person asked to a job that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from layerscope import experiments
from layerscope.contract import Experiment, ExperimentSettings, Inputs
from layerscope.errors import LayerscopeError
from layerscope.jobs.request import Request
from layerscope.jobs.standing_first import StandsFirst, standing_first
from layerscope.jobs.texts import (
    default_source,
    readable_prompts,
    tokenised_passages,
    tokenised_treebank,
    tokenised_words,
)
from layerscope.models.facts import ModelFacts
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import check_length
from layerscope.models.load import refusing
from layerscope.models.untrained import kept_twin
from layerscope.results.own_code import sources_digest
from layerscope.results.record import Asked, Machine, RunRecord, digest
from layerscope.results.store import RunFolder
from layerscope.results.trust import names_from_a_record
from layerscope.runs import check_branches, machine, tokens_per_pass
from layerscope.text.passages import load_passages
from layerscope.text.prompts import load_prompts
from layerscope.text.tokenised import TokenisedPrompt
from layerscope.text.tokens import BosPolicy, bos_record, tokenizer_digest
from layerscope.text.treebanks import load_treebank
from layerscope.text.word_lists import load_words

# Rooms whose code decides numbers; figures, pages and the command line do not.
_NUMBER_ROOMS = ("engines", "evidence", "experiments", "maths", "models", "results", "runs", "text")
_LOADERS: dict[str, Callable[[Any], Any]] = {
    "prompts": load_prompts,
    "passages": load_passages,
    "treebank": load_treebank,
    "words": load_words,
}


@dataclass(frozen=True)
class Job:
    """Everything needed to measure, checked before the slow part."""

    experiment: Experiment
    settings: ExperimentSettings
    model: LayeredModel
    inputs: Inputs
    record: RunRecord


def prepare(request: Request) -> Job:
    """A job: settings checked, model loaded and tried, texts tokenised.

    Cheap refusals come first: what is wrong with settings or texts is told before a model is loaded.
    """
    experiment = experiments.load(request.experiment)
    if request.limit is not None and request.limit < 1:
        raise LayerscopeError(
            "no texts would be left",
            found=f"limit = {request.limit}",
            expected="1 or more, or None",
            hint="limit=10",
        )
    chosen = experiments.settings_of(experiment, request.settings)
    _refuse_unread(experiment, **request.texts)
    for kind, source in request.texts.items():
        if source is not None:
            _LOADERS[kind](source)
    loaded = request.loaded()
    with loaded.in_use():
        _try_branches(loaded)
        sources = sources_of(experiment, loaded, **request.texts)
        weights = loaded.weights_digest()
        first = standing_first(loaded, request.bos, weights=weights)
        inputs, unreadable = tokenised(loaded, sources, request, bos=first.used(needed=chosen.needs_first))
        if unreadable and getattr(chosen, "unfit", "") == "refuse":
            raise next(iter(unreadable.values()))  # the strict choice
        _try_at_its_length(loaded, inputs)
        record = new_record(experiment, chosen, loaded, inputs, first, request.chat, weights=weights)
        record.left_out = {name: error.short for name, error in unreadable.items()}
    record.named = {
        kind: absolute(str(source)) for kind, source in sources.items() if isinstance(source, str | Path)
    }
    cut = {"passages", "treebank"} & set(sources)
    record.options = {"limit": request.limit} | ({"longest": request.longest} if cut else {})
    return Job(experiment, chosen, loaded, inputs, record)


def _try_branches(model: LayeredModel) -> None:
    with model.in_use(), refusing(model.facts.name):
        check_branches(model)


def _try_at_its_length(model: LayeredModel, inputs: Inputs) -> None:
    """Try the model once more on texts as long as the longest that will be read."""
    texts: tuple[Any, ...] = (*inputs.prompts, *inputs.passages, *inputs.treebank)
    tokens = max((len(text.tokens.ids) for text in texts), default=0)
    with model.in_use(), refusing(model.facts.name):
        check_length(model, tokens)
        check_branches(model, tokens)


def tokenised(
    model: LayeredModel, sources: Mapping[str, Any], request: Request, *, bos: BosPolicy
) -> tuple[Inputs, dict[str, LayerscopeError]]:
    """The texts of these sources, by kind, as the model reads them; and why it cannot read prompts, by name."""
    chat, limit = request.chat, request.limit
    of_prompts = request.bos if chat else bos  # a chat's template says what stands first, unless --bos does
    cut: dict[str, Any] = {"bos": bos, "longest": request.longest, "limit": limit}
    unreadable: dict[str, LayerscopeError] = {}

    def prompts(source: Any) -> tuple[TokenisedPrompt, ...]:
        found, left_out = readable_prompts(model, source, bos=of_prompts, chat=chat, limit=limit)
        unreadable.update(left_out)
        return found

    readers: dict[str, Callable[[Any], Any]] = {
        "prompts": prompts,
        "passages": lambda source: tokenised_passages(model, source, **cut),
        "treebank": lambda source: tokenised_treebank(model, source, **cut),
        "words": lambda source: tokenised_words(model, source, limit=limit),
    }
    texts = {kind: readers[kind](source) for kind, source in sources.items()}
    return Inputs(facts=model.facts, bos=bos, tokens_per_pass=tokens_per_pass(model), **texts), unreadable


def _refuse_unread(experiment: Experiment, **given: Any) -> None:
    """Refuse texts that the experiment does not read: running on others instead would surprise."""
    for kind, source in given.items():
        if source is not None and kind not in experiment.takes:
            raise LayerscopeError(
                f"{experiment.name} does not read {kind}",
                found=f"--{kind} {source}",
                expected=" and ".join(f"--{kind}" for kind in sorted(experiment.takes)) or "no texts",
                hint=f"layerscope list experiments   (or leave --{kind} out)",
            )


def sources_of(experiment: Experiment, model: LayeredModel, **given: Any) -> dict[str, Any]:
    """What the experiment takes, as given or by default: of kinds that it can do without, only what is given."""
    named = {kind for kind, source in given.items() if source is not None}
    wanted = experiment.needs | named if named else experiment.takes
    return {
        kind: default_source(model, kind) if given[kind] is None else given[kind]
        for kind in sorted(wanted & set(given))
    }


def again(
    folder: RunFolder, *, model: LayeredModel | str | Path | None = None, trust_remote_code: bool = False
) -> Job:
    """The job of an existing run folder, from what it recorded.

    A record may come from anybody: what it says of trust is not heard, and what it names is not fetched.

    Args:
        folder: the run.
        model: the model, where the run was given an object; or its name, given once more by the person.
        trust_remote_code: run Python code that comes with the weights.

    Raises:
        LayerscopeError: the model's files or weights or the texts are no longer what they were, or the model
            must be named.
    """
    record = folder.record
    asked = record.asked
    experiment = experiments.load(asked.experiment)
    loaded = model if isinstance(model, LayeredModel) else _reloaded(folder, asked, model, trust_remote_code)
    weights, config = loaded.weights_digest(), loaded.config_digest()
    if weights != asked.weights or config != asked.config:
        raise LayerscopeError(
            "the model has changed since this run began",
            found=f"weights {weights[:12]}, configuration {config[:12]} in {loaded.facts.source}",
            expected=f"weights {asked.weights[:12]}, configuration {asked.config[:12]}",
            hint="the same checkpoint, or a new run",
        )
    _try_branches(loaded)
    inputs = _unaltered(folder, record)
    _try_at_its_length(loaded, inputs)
    return Job(experiment, experiments.settings_of(experiment, asked.settings), loaded, inputs, record)


def _unaltered(folder: RunFolder, record: RunRecord) -> Inputs:
    with suppress(ValidationError):
        inputs = Inputs.model_validate(folder.inputs)
        about = (_texts_digest(inputs), inputs.facts, inputs.tokens_per_pass)
        recorded = ModelFacts.model_validate(record.facts)
        if about == (record.asked.texts, recorded, record.chunk_plan.get("tokens_per_pass")):
            return inputs
    raise LayerscopeError(
        "the texts of this run have been altered",
        found=f"{folder.path / 'inputs.json'}",
        expected="the texts that the run was given",
        hint="run the experiment again from its prompts",
    )


def _reloaded(folder: RunFolder, asked: Asked, named: str | Path | None, trust: bool) -> LayeredModel:
    """The model of a run, loaded once more: by the name that the person gives, or else by the record's."""
    if named is None and not asked.loadable:
        raise LayerscopeError(
            "this run was given a model object, which its folder does not hold",
            found=asked.model,
            expected="the same model",
            hint=f"from Python: layerscope.open_run({str(folder.path)!r}).resume(model=...)",
        )
    if named is None and not asked.files and asked.model != "bundled":
        raise LayerscopeError(
            "this record does not say which files the model was built from",
            found=asked.model,
            expected="their sha256, or the model named by you",
            hint=f"the same command with --model {asked.model}",
        )
    request = replace(Request.recorded(folder.record, model=named), trust_remote_code=trust)
    with names_from_a_record() if named is None else nullcontext():
        loaded = request.loaded(files=asked.files or None)
    return loaded if asked.untrained is None else kept_twin(loaded, asked.untrained)


def new_record(
    experiment: Experiment,
    settings: ExperimentSettings,
    model: LayeredModel,
    inputs: Inputs,
    first: StandsFirst,
    chat: bool,
    *,
    weights: str,
) -> RunRecord:
    """The record of a run that is about to begin."""
    facts = model.facts
    asked = Asked(
        experiment=experiment.name,
        settings=settings.model_dump(mode="json"),
        model=absolute(facts.source) if facts.loadable else facts.source,
        loadable=facts.loadable,
        revision=facts.revision,
        weights=weights,
        files=facts.files,
        config=model.config_digest(),
        tokenizer=tokenizer_digest(model.tokenizer),
        bos=bos_record(model.tokenizer, first.policy, inputs.bos),
        chat=chat,
        texts=_texts_digest(inputs),
        device=str(model.device),
        dtype=facts.dtype,
        trust_remote_code=facts.trust_remote_code,
        untrained=facts.untrained,
    )
    path = "plain" if "branches" in model.refused else "branches"
    return RunRecord(
        asked=asked,
        machine=this_machine(model.device, experiment),
        facts=facts.model_dump(mode="json"),
        chunk_plan={"tokens_per_pass": inputs.tokens_per_pass, "path": path},
        checks=model.checks,
        standing_first=first.model_dump(mode="json"),
        cautions=[caution] if (caution := _caution_of(first, inputs, experiment)) else [],
    )


def _caution_of(first: StandsFirst, inputs: Inputs, experiment: Experiment) -> str:
    return first.said_of_need(experiment.name) if inputs.bos == first.best else ""


def this_machine(device: torch.device, experiment: Experiment) -> Machine:
    """What a run of an experiment on this device, now, runs on and with."""
    return Machine(
        processor=machine.processor(),
        device_name=machine.device_name(device),
        threads=torch.get_num_threads(),
        environment=machine.arithmetic_environment(),
        versions=machine.versions(),
        code=code_digest(),
        plugin=dict(experiment.plugin),
    )


def code_digest() -> str:
    """sha256 over the source of every room whose code decides numbers."""
    return sources_digest(_NUMBER_ROOMS)


def _texts_digest(inputs: Inputs) -> str:
    return digest(inputs.model_dump(mode="json", include=set(_LOADERS)))


def absolute(source: str) -> str:
    """A model's folder as it is found from anywhere: a run must be resumable from another working folder."""
    if source == "bundled":
        return source
    try:
        path = Path(source).expanduser()
        return str(path.resolve()) if path.exists() else source
    except (OSError, RuntimeError):  # a long text is no path, and ~nobody has no home
        return source
