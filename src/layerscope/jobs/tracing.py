"""One prompt, traced: where its subject's information is, what the model says, and the answer's path through depth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments.logit_lens.claims.answer_path import AnswerPath
from layerscope.jobs import running
from layerscope.jobs.progress import Progress
from layerscope.results.escaping import restored
from layerscope.results.store import RunFolder
from layerscope.runs.lens_table import read_lens_table
from layerscope.runs.reading import as_batch
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.jobs.prepare import Job
    from layerscope.models.layered import LayeredModel

_PREDICTIONS = 5


@dataclass(frozen=True)
class TracedPrompt:
    """One prompt's trace as plain values.

    Attributes:
        model: its name.
        tokens: what each token reads as.
        noised: positions of the corrupted tokens.
        stands_first: what stands first, and why.
        answer: the token that is traced.
        clean, corrupted: its probability in the two runs, mean over draws.
        draws: noise draws.
        recovery: share of the lost metric that one restored state brings back [token][depth]; None where none was
            measured.
        crossover: depth where the last token takes over from the subject; None where it does not.
        predictions: the model's most probable next tokens with their probabilities.
        leaders: the most probable token at the last token, and its probability, by logit lens [depth]; empty where the
            model allows no lens, as are the next two.
        probability, rank: of the answer there [depth].
        leads, settled: the first depth at which the answer is the lens's top token, and the one from which it stays so.
        folder: the run folder; None where no files are kept.
    """

    model: str
    tokens: list[str]
    noised: list[int]
    stands_first: str
    answer: str
    clean: float
    corrupted: float
    draws: int
    recovery: list[list[float | None]]
    crossover: float | None
    predictions: list[tuple[str, float]]
    leaders: list[tuple[str, float]]
    probability: list[float]
    rank: list[int]
    leads: int | None
    settled: int | None
    folder: str | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON can write it."""
        return asdict(self)


def traced(job: Job, progress: Progress, *, out: Path | None = None) -> TracedPrompt:
    """Carry a causal trace of one prompt out, and read its answer at every depth.

    Args:
        job: of causal_trace, about one prompt.
        progress: told about every piece of work.
        out: the folder below which the run folder goes; None keeps no files.
    """
    folder: RunFolder | None = None
    if out is None:
        result = running.run_in_memory(job, progress)
    else:
        folder = running.run(job, out, progress)
        result = folder.result()
    (prompt,) = job.inputs.prompts
    first = result.isel(prompt=0)
    answer = int(first.answer_id)
    path = _path(job.model, prompt, answer)
    return TracedPrompt(
        model=job.model.facts.name,
        tokens=list(prompt.tokens.texts),
        noised=list(prompt.noised),
        stands_first=str(job.record.asked.bos.get("text") or "nothing"),
        answer=restored(str(first.answer_text.values)),
        clean=float(first.clean_probability),
        corrupted=float(np.exp(first.noised_log_probability.values).mean()),
        draws=int(result.sizes["sample"]),
        recovery=_by_token(result, prompt),
        crossover=_known(first.transition_layer),
        predictions=_predictions(job.model, prompt),
        leaders=list(path.leaders) if path else [],
        probability=list(path.probability) if path else [],
        rank=list(path.rank) if path else [],
        leads=path.leads if path else None,
        settled=path.settled if path else None,
        folder=None if folder is None else str(folder.path),
    )


def _path(model: LayeredModel, prompt: TokenisedPrompt, answer: int) -> AnswerPath | None:
    """What the logit lens reads at the last token; None where the model allows none."""
    if "unembed" in model.refused:
        return None
    table = read_lens_table(model, prompt.tokens.ids, [prompt.last], answer=answer)
    top = zip(table.tokens[0, :, 0].tolist(), table.probability[0, :, 0].tolist(), strict=True)
    return AnswerPath(
        answer=str(model.tokenizer.decode([answer])),
        leaders=[(str(model.tokenizer.decode([token])), probability) for token, probability in top],
        probability=table.target_probability[0].tolist(),
        rank=table.rank[0].tolist(),
    )


def _predictions(model: LayeredModel, prompt: TokenisedPrompt) -> list[tuple[str, float]]:
    found = model.logits(as_batch(prompt.tokens.ids), last=True)[0, -1].float().softmax(-1).topk(_PREDICTIONS)
    return [
        (str(model.tokenizer.decode([token])), probability)
        for token, probability in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def _by_token(result: xr.Dataset, prompt: TokenisedPrompt) -> list[list[float | None]]:
    """Recovery [token][depth]; tokens that were not traced have none."""
    rows: list[list[float | None]] = [[None] * result.sizes["depth"] for _ in range(prompt.n_tokens)]
    values = result.recovery.transpose("token", "depth").values
    for place, row in zip(result.position.values.tolist(), values, strict=True):
        rows[place] = [_known(value) for value in row]
    return rows


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
