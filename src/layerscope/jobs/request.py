"""What is asked: said once, for the command line, Python and the records of runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.results.record import RunRecord
    from layerscope.text.tokens import BosPolicy

LONGEST = 256
"""Default length to which passages are cut, in tokens: a compromise between context and a quick report."""

MOST_THREADS, MOST_WORKERS = 1024, 1024
"""More than any one machine has use for: each thread and each process takes memory of its own."""

KINDS = ("prompts", "passages", "treebank", "words")
"""Kinds of text that can be given."""


@dataclass(frozen=True)
class Request:
    """What is asked of which model about which texts.

    Attributes:
        experiment: a name from `layerscope list`; empty while one question is put to several, or to none.
        model: what `load_model` takes, or what it gave.
        prompts, passages, treebank, words: files, sets or Python objects; None where none were given.
        settings: those of the experiment that differ from its defaults.
        bos: what stands first before every text.
        chat: whether prompts are put into the tokenizer's chat template.
        limit: at most so many texts of each category.
        longest: length to which passages and sentences are cut, in tokens.
        device, dtype, revision: of the model; None leaves the choice to `load_model`.
        trust_remote_code: whether code that comes with the weights is run.
    """

    experiment: str = ""
    model: Any = "bundled"
    prompts: Any = None
    passages: Any = None
    treebank: Any = None
    words: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    bos: BosPolicy = "auto"
    chat: bool = False
    limit: int | None = None
    longest: int | None = LONGEST
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def texts(self) -> dict[str, Any]:
        """What was given of each kind of text, None where nothing was."""
        return {kind: getattr(self, kind) for kind in KINDS}

    def about(self, kinds: Collection[str]) -> Request:
        """The same about these kinds of text alone."""
        others: dict[str, Any] = dict.fromkeys(set(KINDS) - set(kinds))
        return replace(self, **others)

    def loaded(self, *, files: str | None = None) -> LayeredModel:
        """The model that is asked, loaded and tried if it is not yet.

        Args:
            files: sha256 that the checkpoint's files must have.
        """
        from layerscope.models.load import load_model

        return load_model(
            self.model,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            files=files,
        )

    @classmethod
    def recorded(cls, record: RunRecord, *, model: str | Path | None = None) -> Request:
        """What a run was asked, as its record has it; whom to trust, the person says again.

        Args:
            record: of any version; what an older one does not hold is as by default.
            model: what the model is called now, where that is not what the record calls it.
        """
        asked = record.asked
        source = asked.model if model is None else str(model)
        there = source == "bundled" or Path(source).expanduser().exists()
        given: dict[str, Any] = {kind: record.named.get(kind) for kind in KINDS}
        given |= {name: record.options[name] for name in ("limit", "longest") if name in record.options}
        return cls(
            experiment=asked.experiment,
            model=source,
            **given,
            settings=asked.settings,
            bos=asked.bos.get("policy", "auto"),
            chat=asked.chat,
            device=asked.device,
            dtype=asked.dtype,
            revision=None if there else asked.revision,
        )
