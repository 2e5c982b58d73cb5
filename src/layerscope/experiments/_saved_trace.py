"""The transition layers of a saved causal trace, for an experiment that stands beside it."""

from __future__ import annotations

from pathlib import Path

from layerscope.contract import Inputs
from layerscope.errors import LayerscopeError
from layerscope.results.store import RunFolder
from layerscope.results.words import restored, stored


def read_transitions(path: Path, inputs: Inputs | None) -> tuple[str, dict[str, float]]:
    """The digest of a run's result, and each prompt's transition layer by its stored name.

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
        raise _unfit(path, f"{what} of {record.asked.experiment}", "a complete run of causal_trace")
    result = folder.result()
    found = {
        str(name): float(layer)
        for name, layer in zip(result.prompt.values, result.transition_layer.values, strict=True)
    }
    if inputs is not None:
        name, layers = record.facts.get("name"), record.facts.get("n_layers")
        if (name, layers) != (inputs.facts.name, inputs.facts.n_layers):
            raise _unfit(
                path,
                f"a trace of {name}, {layers} layers",
                f"{inputs.facts.name}, {inputs.facts.n_layers} layers",
            )
        if not {stored(prompt.name) for prompt in inputs.prompts} & set(found):
            raise _unfit(
                path,
                f"prompts such as {restored(next(iter(found)))}",
                f"prompts such as {inputs.prompts[0].name}",
            )
    return record.result or "", found


def _unfit(path: Path, found: str, expected: str) -> LayerscopeError:
    return LayerscopeError(
        "this run is not a trace to compare with",
        found=f"{found} in {path}",
        expected=expected,
        hint="layerscope run causal_trace ..., then --set trace=ITS_FOLDER",
    )
