"""What the plan of a stage rests on: stages before it, as far as they were measured, and the texts that these cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from layerscope.contract import Inputs, WorkItem
from layerscope.results.escaping import stored
from layerscope.results.store import RunFolder


@dataclass(frozen=True)
class Known:
    """How far a stage was measured, for those after it.

    Attributes:
        result: of the parts that were measured.
        inputs: the texts that it is about; all of them where it was finished, or does not tell.
        finished: whether all was measured.
        share: how much of the whole run's work in the stage these texts are, by size, 0 to 1.
        counted: the same by number of items.
    """

    result: xr.Dataset
    inputs: Inputs
    finished: bool = True
    share: float = 1.0
    counted: float = 1.0


class Ground:
    """What the plan of a stage rests on: the stages before it.

    Attributes:
        known: these stages, as far as they were measured.
        inputs: the texts that all of their results are about.
        read_ahead: whether what the stages before read for later ones is all there.
        folder: where parts go: the run's own folder while every stage before was finished; then another
            one, for a part that rests on an unfinished stage is not the run's.
    """

    def __init__(self, inputs: Inputs, folder: RunFolder, scratch: RunFolder) -> None:
        self.known: dict[str, Known] = {}
        self.read_ahead = True
        self.inputs, self.folder, self._own, self._scratch = inputs, folder, folder, scratch

    @property
    def earlier(self) -> dict[str, xr.Dataset]:
        """Results by stage, as items and measuring take them."""
        return {name: known.result for name, known in self.known.items()}

    @property
    def whole(self) -> bool:
        """Whether every stage before was finished."""
        return self.folder is self._own

    def add(self, name: str, known: Known) -> None:
        """A stage more."""
        self.known[name] = known
        if not known.finished:
            self.inputs, self.folder = known.inputs, self._scratch

    def begin_again(self, inputs: Inputs) -> None:
        """Forget what was measured of unfinished stages."""
        self.known, self.inputs, self.folder = {}, inputs, self._own


@dataclass(frozen=True)
class Work:
    """The items of a stage.

    Attributes:
        items: those that can be measured now.
        sizes: of all that are known.
        share: how much of the whole run's work in the stage these are, by size, 0 to 1.
        counted: the same by number of items.
        known: whether nothing unfinished decides them.
    """

    items: list[WorkItem]
    sizes: list[float]
    known: bool = True
    share: float = 1.0
    counted: float = 1.0


def covered_by(inputs: Inputs, result: xr.Dataset) -> Inputs:
    """The texts that an unfinished stage has something to say about; all where it does not tell whose."""
    update: dict[str, tuple[Any, ...]] = {}
    for name in ("prompt", "token_prompt"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["prompts"] = tuple(prompt for prompt in inputs.prompts if stored(prompt.name) in there)
    for name in ("passage", "token_passage"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["passages"] = tuple(text for text in inputs.passages if stored(text.name) in there)
    for name in ("sentence", "token_sentence", "word_sentence"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["treebank"] = tuple(text for text in inputs.treebank if stored(text.name) in there)
    return inputs.model_copy(update=update)
