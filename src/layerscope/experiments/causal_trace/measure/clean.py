"""The clean run of a prompt, the pilot draws, and the corrupted run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    number_coordinate,
    prompt_coordinates,
    text_coordinate,
)
from layerscope.experiments.causal_trace.items import PromptItem, pilot_depths
from layerscope.experiments.causal_trace.items.noised import NoisedItem
from layerscope.experiments.causal_trace.measure.runs import first_token, prompt_runs
from layerscope.experiments.causal_trace.measure.values import (
    KINDS,
    depths_of,
    kept,
    of_kinds,
)
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.moments import Moments, moments_of
from layerscope.maths.recovery import recovery_by_draw
from layerscope.maths.sample_size import unit_means
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity
from layerscope.text.constraints import clean_constraint
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def clean(model: LayeredModel, item: PromptItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The model's answer, whether it is right, and the moments of the subject's embeddings."""
    prompt, reason = item.prompt, item.unfit
    if not item.runnable:
        return _clean_dataset(prompt, None, -1, "", "", np.zeros((0, model.facts.width)), reason, settings)
    answer = runs.answer_of(model, prompt.tokens.ids, None if prompt.own else prompt.answer_ids[0])
    top, text = (model.tokenizer.decode([token]) for token in (answer.top, answer.token))
    right = clean_constraint(
        prompt,
        top1_id=answer.top,
        top1_text=top,
        rank=answer.rank,
        probability=float(np.exp(answer.log_probability)),
    )
    if not reason and not right.holds:
        reason = right.detail
    rival = first_token(model, settings.rival) if settings.rival else answer.rival
    vectors = runs.token_contributions(model, prompt.tokens.ids)[list(prompt.noised)].cpu().numpy()
    return _clean_dataset(prompt, answer, rival, top, text, vectors, reason, settings)


def _clean_dataset(
    prompt: TokenisedPrompt,
    answer: runs.Answer | None,
    rival: int,
    top: str,
    text: str,
    vectors: np.ndarray,
    reason: str,
    settings: Settings,
) -> xr.Dataset:
    log_probability = answer.log_probability if answer else np.nan
    notes = (prompt.prompt.note, prompt.note)
    moments = moments_of(vectors) if vectors.size else Moments()
    dataset = xr.Dataset(
        {
            "clean_log_probability": quantity(
                [log_probability], "prompt", "log-probability of the answer, clean", "nat"
            ),
            "clean_probability": quantity(
                [np.exp(log_probability)], "prompt", "probability of the answer, clean"
            ),
            "answer_rank": quantity([answer.rank if answer else 0], "prompt", "rank of the answer, clean"),
            "answer_id": quantity([answer.token if answer else -1], "prompt", "token id of the answer"),
            "rival_id": quantity([rival], "prompt", "token id that the answer is compared with"),
            "answer_text": quantity([stored(text)], "prompt", "the answer's token"),
            "answer_tokens": quantity([len(prompt.answer_ids) or 1], "prompt", "tokens of the answer"),
            "top_text": quantity([stored(top)], "prompt", "the model's most probable token"),
            "own": quantity([prompt.own], "prompt", "whether the model's own top-1 is traced"),
            "subject_tokens": quantity([len(prompt.noised)], "prompt", "tokens of the subject"),
            "subject_distance": quantity(
                [prompt.last - prompt.noised[-1] if prompt.noised else -1],
                "prompt",
                "tokens from the subject's last one to the prompt's last one",
            ),
            "subject_entries": quantity([moments.count], "prompt", "embedding entries of the subject"),
            "subject_mean": quantity([moments.mean], "prompt", "mean embedding entry of the subject"),
            "subject_squares": quantity(
                [moments.squares], "prompt", "sum of squared deviations of those entries"
            ),
            "note": quantity(
                [stored("; ".join(filter(None, notes)))], "prompt", "what was done differently, or empty"
            ),
            "left_out_because": quantity([stored(reason)], "prompt", "why the prompt is left out, or empty"),
        },
        coords=prompt_coordinates(prompt),
    )
    if settings.corruption == "covariance":
        # On the one dimension that grows with every prompt's tokens; its positions are the noised ones.
        dataset["subject_vector"] = quantity(
            vectors.astype(np.float32), "token entry", "contribution of a subject's token to the first state"
        )
        dataset = dataset.assign_coords(
            entry=number_coordinate(range(vectors.shape[1]), "entry", "entry of the residual stream")
        )
    return dataset


def pilot(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """How far the recovery of both rows, averaged over depth, moves from one unit of draws to the next.

    The pilot draws have a seed of their own, so that none of them is among the draws of the trace.
    """
    elsewhere = settings.model_copy(update={"seed": runs.draw_number(settings.seed, "pilot draws")})
    run = prompt_runs(model, item, elsewhere, earlier["clean"])
    places, depths = (run.noised, (item.prompt.last,)), pilot_depths(model.n_layers)
    edits = [(runs.Put("state", (depth,), place),) for place in places for depth in depths]
    base, *exchanged = run.metric_of(run.values([(), *edits]))
    patched = np.stack(exchanged, axis=1).reshape(-1, len(places), len(depths))
    other = run.clean_values()[None] if settings.direction == "restore" else run.corrupted_values()
    noised, clean = (values.reshape(-1, 1, 1) for values in (base, run.metric_of(other)))
    parts = recovery_by_draw(patched, noised=noised, clean=clean).mean(axis=2)
    spread = unit_means(parts, settings.together).std(axis=0, ddof=1)
    # A prompt that will most likely be left out would ask for more draws than any other.
    hopeless = abs(float((clean - noised).mean())) < settings.smallest / 2
    spread = np.where(hopeless, np.nan, spread)
    return xr.Dataset(
        {
            "pilot_spread": quantity(
                spread[None],
                "prompt pilot_row",
                "SD between units of pilot draws, recovery averaged over depth",
            )
        },
        coords=prompt_coordinates(item.prompt)
        | {"pilot_row": text_coordinate(("noised tokens", "last token"), "pilot_row", "row of the trace")},
    )


def noised(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The corrupted run, and all corrupted tokens restored together at every depth."""
    run = prompt_runs(model, item, settings, earlier["clean"])
    # With one noised token the trace of that token is the same, and the conclusion takes it.
    depths = range(model.n_layers) if len(run.noised) > 1 else ()
    # Nothing exchanged is the run that patched runs leave: one more of them.
    base, *exchanged = run.values([(), *((runs.Put("state", (depth,), run.noised),) for depth in depths)])
    whole = run.clean_values()
    corrupted = base if settings.direction == "restore" else run.corrupted_values()
    subject = np.full((model.n_layers + 1, *base.shape), np.nan, dtype=np.float32)
    if exchanged:
        # After the last block only the last token is read, so exchanging others there is the base run.
        subject = np.stack([*exchanged, base])
    variables = {
        f"clean_answer_{kind}": quantity([value], "prompt", f"{KINDS[kind][0]}, clean", KINDS[kind][1])
        for kind, value in zip(KINDS, whole, strict=True)
    }
    variables |= of_kinds(corrupted[None], "noised", "prompt sample", "in the corrupted run")
    variables |= of_kinds(
        subject[None], "subject", "prompt depth sample", "with all corrupted tokens restored together"
    )
    return kept(variables, settings, prompt_coordinates(item.prompt) | depths_of(model))
