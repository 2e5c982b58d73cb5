"""How final_token_attention is cut: a saved trace to stand beside, and prompts of one length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layerscope.contract import OPERATIONS_A_SECOND, Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.batches import in_batches
from layerscope.experiments.final_token_attention.settings import Settings
from layerscope.results.escaping import restored, stored
from layerscope.results.store import RunFolder
from layerscope.text.constraints import broken_constraints
from layerscope.text.tokenised import TokenisedPrompt


class TraceItem(WorkItem):
    """A saved causal trace, and the prompts that are looked up in it."""

    folder: str
    result: str
    prompts: tuple[str, ...]


class PromptsItem(WorkItem):
    """Some prompts of one length, and why some of them are unfit."""

    prompts: tuple[TokenisedPrompt, ...]
    unfit: tuple[str, ...]


def trace_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """The trace to compare with, where one is given."""
    if settings.trace:
        result, _ = read_transitions(Path(settings.trace), inputs)
        names = tuple(prompt.name for prompt in inputs.prompts)
        yield TraceItem(
            name="saved trace",
            size=0.1 * OPERATIONS_A_SECOND,
            folder=settings.trace,
            result=result,
            prompts=names,
        )


def prompts_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PromptsItem]:
    """Prompts of equal length together.

    Raises:
        LayerscopeError: none of them fits the model.
    """
    context = inputs.facts.context
    readable = [prompt for prompt in inputs.prompts if context is None or prompt.n_tokens <= context]
    if not readable:
        raise LayerscopeError(
            "no prompt fits the model",
            found=f"{len(inputs.prompts)} prompts, the shortest of {min(p.n_tokens for p in inputs.prompts)} tokens",
            expected=f"at most {context} tokens",
            hint="shorter prompts",
        )
    for batch in in_batches(readable, inputs.tokens_per_pass, length=lambda prompt: prompt.n_tokens):
        yield PromptsItem(
            name=f"{len(batch)} prompts of {batch[0].n_tokens} tokens",
            size=inputs.facts.operations(len(batch) * batch[0].n_tokens),
            prompts=tuple(batch),
            unfit=tuple(_unfit(prompt, context) for prompt in batch),
        )


def _unfit(prompt: TokenisedPrompt, context: int | None) -> str:
    """Why a prompt cannot be used, or empty."""
    return "; ".join(
        f"{broken.name}: {broken.detail}" for broken in broken_constraints(prompt, context=context)
    )


def read_transitions(path: Path, inputs: Inputs | None) -> tuple[str, dict[str, float]]:
    """The digest of a run's result, and each prompt's crossover depth by its stored name.

    Args:
        path: the run folder.
        inputs: what it is to be compared with; None where that was checked before.

    Raises:
        LayerscopeError: not a complete causal trace, of another model, or of other prompts.
    """
    folder = RunFolder.open(path)
    record = folder.record
    if record.asked.experiment != "causal_trace" or not folder.has_result:
        what = "a complete run" if folder.has_result else "a run without a result"
        raise _no_trace(path, f"{what} of {record.asked.experiment}", "a complete run of causal_trace")
    result = folder.result()
    found = {
        str(name): float(layer)
        for name, layer in zip(result.prompt.values, result.transition_layer.values, strict=True)
    }
    if inputs is not None:
        name, layers = record.facts.get("name"), record.facts.get("n_layers")
        if (name, layers) != (inputs.facts.name, inputs.facts.n_layers):
            raise _no_trace(
                path,
                f"a trace of {name}, {layers} layers",
                f"{inputs.facts.name}, {inputs.facts.n_layers} layers",
            )
        if not {stored(prompt.name) for prompt in inputs.prompts} & set(found):
            raise _no_trace(
                path,
                f"prompts such as {restored(next(iter(found)))}",
                f"prompts such as {inputs.prompts[0].name}",
            )
    return record.result or "", found


def _no_trace(path: Path, found: str, expected: str) -> LayerscopeError:
    return LayerscopeError(
        "this run is not a trace to compare with",
        found=f"{found} in {path}",
        expected=expected,
        hint="layerscope run causal_trace ..., then --set trace=ITS_FOLDER",
    )
