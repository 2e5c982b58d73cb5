"""How one prompt of a causal trace is run: what is corrupted, what is put where, what is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.calls import TEXT, Kind, checked
from layerscope.errors import LayerscopeError
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_OWN_METRICS: dict[str, Callable[[Any], Any]] = {}


@checked(name=TEXT, function=Kind("a function", callable, "lambda logits: logits[:, 0]"))
def metric(name: str, function: Callable[[Any], Any]) -> None:
    """Let a causal trace read a function of your own: metric="own:NAME".

    Run folders keep its name only, never code: register it again before resuming in another process.

    Args:
        name: one word.
        function: turns logits after the prompt [run vocabulary] (a float tensor) into one number for each
            run [run]. It should fall under noise.
    """
    _OWN_METRICS[name] = function


class PromptRuns:
    """A prompt's clean and corrupted runs, and patched runs between them.

    Args:
        model: the model.
        item: the prompt.
        settings: choices of the trace.
        vectors: contributions of all subjects' tokens [vector width], for covariance-matched noise.
        only: corrupt only this token of the subject.
        dose: factor on the noise.
    """

    def __init__(
        self,
        model: LayeredModel,
        item: NoisedItem,
        settings: Settings,
        *,
        vectors: np.ndarray | None = None,
        only: int | None = None,
        dose: float = 1.0,
    ) -> None:
        self.model, self.item, self.settings = model, item, settings
        self.noised = noised_positions(item.prompt, settings) if only is None else (only,)
        ids = [*item.prompt.tokens.ids, *item.answer[:-1]]
        self.clean = runs.BaseRun.of(ids)
        if settings.corruption == "replace":
            self.corrupted = self._replaced(ids, only)
        else:
            noise = runs.corrupting_noise(
                settings.corruption,
                settings.seed,
                prompt=item.prompt.text,
                positions=self.noised,
                samples=item.samples,
                width=model.facts.width,
                size=item.sd * dose,
                vectors=vectors,
                drawn=settings.noise_draws,
            )
            self.corrupted = runs.BaseRun.of(ids, noise, self.noised)

    def _replaced(self, ids: Sequence[int], only: int | None) -> Any:
        places = list(noised_positions(self.item.prompt, self.settings))
        rows = []
        for partner in self.item.partners:
            row = list(ids)
            for place, token in zip(places, partner[-len(places) :], strict=True):
                if only is None or place == only:
                    row[place] = token
            rows.append(tuple(row))
        return runs.BaseRun(tuple(rows))

    @property
    def samples(self) -> int:
        """Draws, or partners."""
        return int(self.corrupted.rows)

    @cached_property
    def _clean_logits(self) -> Any:
        """Of the clean run at the tokens that are read."""
        return self.model.logits(self.clean.batch())[:, -len(self.item.answer) :]

    @cached_property
    def _reference(self) -> Any:
        """What the clean run predicts; only one metric asks for it."""
        return runs.Reference(self.model, self._clean_logits[:, 0])

    def clean_values(self) -> np.ndarray:
        """What the clean run reads: log-probability of the answer, and the metric [2]."""
        return np.asarray(self._read_logits(self._clean_logits).cpu().numpy()[0])

    def values(self, edits: Sequence[tuple[Any, ...]]) -> np.ndarray:
        """What patched runs read, for every draw [edit sample 2]."""
        restore = self.settings.direction == "restore"
        samples = range(self.samples)
        branches = [
            runs.Branch(edit, row=sample if restore else 0, other_row=0 if restore else sample)
            for edit in edits
            for sample in samples
        ]
        values = self._patched(branches, restore=restore)
        padded = np.full((len(edits), self.item.slots, 2), np.nan, dtype=np.float32)
        padded[:, : self.samples] = values.reshape(len(edits), self.samples, 2)
        return padded

    def corrupted_values(self) -> np.ndarray:
        """What the corrupted run reads, for every draw [sample 2]."""
        branches = [runs.Branch((), row=sample) for sample in range(self.samples)]
        padded = np.full((self.item.slots, 2), np.nan, dtype=np.float32)
        padded[: self.samples] = self._patched(branches, restore=True)
        return padded

    def estimates(self, sites: Sequence[str], *, drop: bool) -> Any:
        """What exchanges of these sites would change in the metric, by gradients (`runs.Attribution`)."""
        restore = self.settings.direction == "restore"
        base, other = (self.corrupted, self.clean) if restore else (self.clean, self.corrupted)
        return runs.attribute(
            self.model,
            base=base,
            other=other,
            number=lambda logits: self.metric_of(self._read_logits(logits)),
            read_last=len(self.item.answer),
            sites=sites,
            drop=drop,
            tokens_per_pass=self.item.tokens_per_pass,
        )

    def metric_of(self, values: Any) -> Any:
        """The metric itself from what runs read [... 2]: a probability is kept as its logarithm."""
        if self.settings.metric != "probability":
            return values[..., 1]
        return np.exp(values[..., 0]) if isinstance(values, np.ndarray) else values[..., 0].exp()

    def _patched(self, branches: Sequence[Any], *, restore: bool) -> np.ndarray:
        base, other = (self.corrupted, self.clean) if restore else (self.clean, self.corrupted)
        values = runs.run_patched(
            self.model,
            branches,
            base=base,
            other=other,
            read=lambda said, _: self._read(said),
            read_last=len(self.item.answer),
            tokens_per_pass=self.item.tokens_per_pass,
        )
        return np.asarray(values.numpy())

    def _read_logits(self, logits: Any) -> Any:
        return self._read(runs.Predictions(self.model, logits=logits))

    def _read(self, said: runs.Predictions) -> Any:
        """Log-probability of the answer and the metric, of each run [run 2].

        All that a metric needs is taken in one pass over the vocabulary; its further tokens belong to the first of
        the answer's.
        """
        import torch

        from layerscope.maths import readouts

        answer, choice, runs_read = self.item.answer, self.settings.metric, said.shape[0]
        more = self._further_tokens()
        tokens = torch.tensor([[token, *more] for token in answer]).repeat(runs_read, 1)
        clean = self._reference if choice == "kl" else None
        found = said.read(tokens=tokens, against=clean, rows_of=torch.zeros(len(tokens), dtype=torch.long))
        log_probabilities = found.log_probability.reshape(runs_read, len(answer), -1)
        log_probability = readouts.answer_log_probability(log_probabilities[..., 0])
        if self.settings.of_answer:
            value = log_probability
        elif choice == "logit_difference":
            value = readouts.logit_difference(found.logits.reshape(runs_read, len(answer), -1)[:, 0])
        elif choice == "kl":
            value = -found.divergence.reshape(runs_read, len(answer))[:, 0]
        elif choice.startswith("group:"):
            value = readouts.group_log_probability(log_probabilities[:, 0, 1:])
        else:
            value = said.of_logits(lambda logits: self._own(logits[:, 0]))
        return torch.stack([log_probability, value.to(log_probability)], dim=-1)

    def _further_tokens(self) -> list[int]:
        """Ids, beside the answer's, whose logits the metric reads."""
        choice = self.settings.metric
        if choice == "logit_difference":
            return [self.item.rival]
        return self._group(choice.removeprefix("group:")) if choice.startswith("group:") else []

    def _group(self, name: str) -> list[int]:
        return [first_token(self.model, text) for text in self.settings.groups[name]]

    def _own(self, logits: Any) -> Any:
        name = self.settings.metric.removeprefix("own:")
        if name not in _OWN_METRICS:
            raise LayerscopeError(
                f"the metric own:{name} is not known in this process",
                found=f"registered: {', '.join(_OWN_METRICS) or 'none'}",
                expected="a function registered under this name; run folders keep names, never code",
                hint=f'layerscope.metric("{name}", function)',
            )
        value = _OWN_METRICS[name](logits.float())
        if tuple(value.shape) != (logits.shape[0],):
            raise LayerscopeError(
                f"the metric own:{name} gave the wrong shape",
                found=f"{tuple(value.shape)} from logits {tuple(logits.shape)}",
                expected=f"one number for each run, ({logits.shape[0]},)",
                hint="reduce over the last dimension only",
            )
        return value


def first_token(model: LayeredModel, text: str) -> int:
    """The first token of a continuation.

    Raises:
        LayerscopeError: the text has no token.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise LayerscopeError(
            "this continuation has no token",
            found=repr(text),
            expected="text, with its leading blank",
            hint="' Paris'",
        )
    return int(ids[0])


def prompt_runs(
    model: LayeredModel,
    item: NoisedItem,
    settings: Settings,
    clean: xr.Dataset,
    *,
    only: int | None = None,
    dose: float = 1.0,
) -> PromptRuns:
    """The runs of one prompt, with what its corruption needs from the clean stage."""
    vectors = clean.subject_vector.values if "subject_vector" in clean else None
    return PromptRuns(model, item, settings, vectors=vectors, only=only, dose=dose)
