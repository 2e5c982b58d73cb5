"""What each stage of a causal trace measures, for one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import (
    depth_coordinate,
    layer_coordinate,
    number_coordinate,
    prompt_coordinates,
    prompt_token_coordinates,
    text_coordinate,
)
from layerscope.experiments._trace_items import PromptItem, TraceItem, depths_that_matter, pilot_depths
from layerscope.experiments._trace_runs import (
    NoisedItem,
    first_token,
    noised_positions,
    prompt_runs,
)
from layerscope.experiments._trace_settings import Settings
from layerscope.maths.moments import Moments, moments_of
from layerscope.maths.recovery import recovery_by_draw
from layerscope.maths.sample_size import unit_means
from layerscope.results.schema import quantity
from layerscope.results.words import stored
from layerscope.text.constraints import clean_constraint
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

OUTPUTS: tuple[Literal["attn_out", "mlp_out"], ...] = ("attn_out", "mlp_out")
_KINDS = {"log_probability": ("log-probability of the answer", "nat"), "metric": ("metric", "1")}


# -- the clean run: what the model says, and how large embeddings are ---------------------------


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


# -- pilot draws: how many does a prompt need? ---------------------------------------------------


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


# -- the corrupted run: how much is lost --------------------------------------------------------


def noised(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The corrupted run, and all noised tokens exchanged together at every depth."""
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
        f"clean_answer_{kind}": quantity([value], "prompt", f"{_KINDS[kind][0]}, clean", _KINDS[kind][1])
        for kind, value in zip(_KINDS, whole, strict=True)
    }
    variables |= _values(corrupted[None], "noised", "prompt sample", "under noise")
    variables |= _values(
        subject[None], "subject", "prompt depth sample", "with all noised tokens exchanged together"
    )
    return _kept(variables, settings, prompt_coordinates(item.prompt) | _depths(model))


def _base_values(item: NoisedItem, settings: Settings, earlier: Earlier) -> np.ndarray:
    """What the run reads that patched runs leave, for every draw [sample 2], from the stage before."""
    measured = earlier["noised"]
    here = measured.isel(prompt=int(np.flatnonzero(measured.prompt.values == stored(item.prompt.name))[0]))
    name = "noised" if settings.direction == "restore" else "clean_answer"
    kinds = [f"{name}_log_probability", f"{name}_{'log_probability' if settings.of_answer else 'metric'}"]
    values = np.stack([np.broadcast_to(here[kind].values, item.slots) for kind in kinds], axis=-1)
    return values.astype(np.float32)


def _values(values: np.ndarray, name: str, dims: str, what: str) -> dict[str, xr.Variable]:
    return {
        f"{name}_{kind}": quantity(values[..., column], dims, f"{long_name} {what}", unit)
        for column, (kind, (long_name, unit)) in enumerate(_KINDS.items())
    }


def _kept(variables: dict[str, xr.Variable], settings: Settings, coords: dict[str, Any]) -> xr.Dataset:
    """Without the metric where it follows from the log-probability."""
    dropped = [name for name in variables if settings.of_answer and name.endswith("_metric")]
    return xr.Dataset({n: v for n, v in variables.items() if n not in dropped}, coords=coords)


def _depths(model: LayeredModel) -> dict[str, xr.Variable]:
    """Depth, with both conventions: the block whose input it is, and the one whose output (−1, none)."""
    n_layers = model.n_layers
    inputs = [*range(n_layers), -1]
    return {
        "depth": depth_coordinate(n_layers),
        "input_of": number_coordinate(inputs, "depth", "block that this state is the input of (resid_pre)"),
        "output_of": number_coordinate(
            range(-1, n_layers), "depth", "block that this state is the output of (resid_post)"
        ),
    }


# -- the trace: every token, every depth --------------------------------------------------------


def trace(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One state exchanged, at every position and depth."""
    cells = [
        (row, depth)
        for row, position in enumerate(item.positions)
        for depth in depths_that_matter(item, position, settings, model.n_layers)
    ]
    values = np.tile(_base_values(item, settings, earlier), (len(item.positions), model.n_layers + 1, 1, 1))
    if cells:
        run = prompt_runs(model, item, settings, earlier["clean"])
        rows, depths = np.array(cells).T
        values[rows, depths] = run.values(
            [(runs.Put("state", (depth,), (item.positions[row],)),) for row, depth in cells]
        )
    return _kept(
        _values(values, "restored", "token depth sample", "with one state exchanged"),
        settings,
        _tokens(item, item.positions, settings) | _depths(model),
    )


def _tokens(item: NoisedItem, positions: Sequence[int], settings: Settings) -> dict[str, xr.Variable]:
    prompt = item.prompt
    coordinates = prompt_token_coordinates(prompt, positions, noised_positions(prompt, settings))
    classes = [token_class(prompt, position) for position in positions]
    return coordinates | {
        "token_class": text_coordinate(classes, "token", "part of the prompt that the token belongs to"),
        "final": xr.Variable(
            ("token",),
            np.array([position == prompt.last for position in positions]),
            {"long_name": "whether it is the last token"},
        ),
    }


TOKEN_CLASSES = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)


def token_class(prompt: TokenisedPrompt, position: int) -> str:
    """ROME's six classes of tokens, and what stands before the subject.

    A subject of one token counts as its last; a token right after it that ends the prompt, as the last.

    Source: Meng et al. 2022, figure 2.
    """
    first, last = prompt.noised[0], prompt.noised[-1]
    if position == prompt.last:
        return TOKEN_CLASSES[6]
    if position < first:
        return TOKEN_CLASSES[0]
    if position == last:
        return TOKEN_CLASSES[3]
    if position < last:
        return TOKEN_CLASSES[1] if position == first else TOKEN_CLASSES[2]
    return TOKEN_CLASSES[4] if position == last + 1 else TOKEN_CLASSES[5]


# -- outputs of attention and MLPs, severed states, heads ---------------------------------------


def outputs(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What attention or MLPs add over a window of blocks, exchanged at one token."""
    n_layers, shape = model.n_layers, (len(OUTPUTS), len(item.positions), model.n_layers)
    cells = list(np.ndindex(*shape))
    edits = [
        (runs.Put(OUTPUTS[site], settings.blocks_round(layer, n_layers), (item.positions[row],)),)
        for site, row, layer in cells
    ]
    values = _values_or_nothing(model, item, settings, earlier, edits, OUTPUTS).reshape(*shape, -1, 2)
    coords = _tokens(item, item.positions, settings)
    return _kept(
        _values(values, "output", "site output_token layer sample", "with outputs over a window exchanged"),
        settings,
        _renamed(coords, "output_token")
        | {
            "layer": layer_coordinate(n_layers),
            "site": text_coordinate(OUTPUTS, "site", "what is exchanged"),
        },
    )


def _renamed(coords: dict[str, xr.Variable], dimension: str) -> dict[str, xr.Variable]:
    """Token coordinates of a stage that holds other tokens than the trace."""
    names = {
        "token_prompt": f"{dimension}_prompt",
        "token_text": f"{dimension}_text",
        "token_class": f"{dimension}_class",
    }
    return {
        names.get(name, f"{dimension}_{name}"): xr.Variable((dimension,), variable.values, variable.attrs)
        for name, variable in coords.items()
    }


def _values_or_nothing(
    model: LayeredModel,
    item: TraceItem,
    settings: Settings,
    earlier: Earlier,
    edits: list[tuple[Any, ...]],
    needs: Sequence[str],
) -> np.ndarray:
    """What patched runs read; NaN on models that have no such vectors, by the load check."""
    if any(site in model.refused for site in needs):
        return np.full((len(edits), item.slots, 2), np.nan, dtype=np.float32)
    return prompt_runs(model, item, settings, earlier["clean"]).values(edits)


def severed(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """A state exchanged while this token's MLPs, or attention, stay what they were in the run it enters."""
    n_layers = model.n_layers
    shape = (len(OUTPUTS), len(item.positions), n_layers)
    edits = []
    for site, row, depth in np.ndindex(*shape):
        token = (item.positions[row],)
        frozen = runs.Put(OUTPUTS[site], tuple(range(depth, n_layers)), token, "base")
        edits.append((runs.Put("state", (depth,), token), frozen))
    values = _values_or_nothing(model, item, settings, earlier, edits, OUTPUTS).reshape(*shape, -1, 2)
    coords = _renamed(_tokens(item, item.positions, settings), "severed_token")
    return _kept(
        _values(
            values, "severed", "site severed_token layer sample", "with one state exchanged, others severed"
        ),
        settings,
        coords
        | {"layer": layer_coordinate(n_layers), "site": text_coordinate(OUTPUTS, "site", "what is severed")},
    )


def heads(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Single heads exchanged at one token."""
    n_heads = model.facts.n_heads or 1
    shape = (len(item.positions), model.n_layers, n_heads)
    edits = [
        (runs.Put("head_out", (layer,), (item.positions[row],), heads=(head,)),)
        for row, layer, head in np.ndindex(*shape)
    ]
    values = _values_or_nothing(model, item, settings, earlier, edits, ("head_out",)).reshape(*shape, -1, 2)
    coords = _renamed(_tokens(item, item.positions, settings), "head_token")
    return _kept(
        _values(values, "head", "head_token layer head sample", "with one head exchanged"),
        settings,
        coords
        | {
            "layer": layer_coordinate(model.n_layers),
            "head": number_coordinate(range(n_heads), "head", "head"),
        },
    )


# -- each subject token alone, and other doses ---------------------------------------------------


def one_by_one(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One token of the subject noised alone; its own state, the subject's last and the prompt's exchanged."""
    last_of_subject = noised_positions(item.prompt, settings)[-1]
    rows, losses = [], []
    for position in item.positions:
        run = prompt_runs(model, item, settings, earlier["clean"], only=position)
        places = (position, last_of_subject, item.prompt.last)
        edits = [
            (runs.Put("state", (depth,), (place,)),)
            for place in places
            for depth in range(model.n_layers + 1)
        ]
        rows.append(run.values(edits).reshape(3, model.n_layers + 1, -1, 2))
        losses.append(run.corrupted_values())
    coords = _renamed(_tokens(item, item.positions, settings), "subject_token")
    places_coordinate = text_coordinate(
        ("the token itself", "the subject's last token", "the last token"), "place", "token that is exchanged"
    )
    return _kept(
        _values(
            np.stack(rows),
            "alone",
            "subject_token place depth sample",
            "with one token noised, one exchanged",
        )
        | _values(np.stack(losses), "alone_noised", "subject_token sample", "with one token noised"),
        settings,
        coords | _depths(model) | {"place": places_coordinate},
    )


def doses(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The two rows at several sizes of the noise."""
    rows, losses = [], []
    depths = range(model.n_layers + 1)
    for dose in settings.doses:
        run = prompt_runs(model, item, settings, earlier["clean"], dose=dose)
        edits = [
            (runs.Put("state", (depth,), places),)
            for places in (run.noised, (item.prompt.last,))
            for depth in depths
        ]
        rows.append(run.values(edits).reshape(2, len(depths), -1, 2))
        losses.append(run.corrupted_values())
    coords = prompt_coordinates(item.prompt) | _depths(model)
    dose_coordinate = xr.Variable(
        ("dose",), np.array(settings.doses, dtype=np.float64), {"long_name": "factor on the noise"}
    )
    dose_rows = text_coordinate(("noised tokens", "last token"), "dose_row", "row of the trace")
    return _kept(
        _values(np.stack(rows)[None], "dose", "prompt dose dose_row depth sample", "at another noise level")
        | _values(
            np.stack(losses)[None], "dose_noised", "prompt dose sample", "under noise of another level"
        ),
        settings,
        coords | {"dose": dose_coordinate, "dose_row": dose_rows},
    )
