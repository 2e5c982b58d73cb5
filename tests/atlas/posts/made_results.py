"""Results as experiments would save them, with effects of a size that a test chooses.

`size` is the effect that claims look for, as a multiple of what counts as large; 0 is none. `noise` is the half-width
of stated intervals and the spread of units.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from layerscope.atlas.posts import recall_and_regurgitation as recall
from layerscope.atlas.posts.local_processing import CUT, KNOCKOUT, READING
from layerscope.atlas.posts.picture_of_gpt2 import ALONG, LAST, PATTERNS, SYNTAX, TRIGGERS
from layerscope.atlas.posts.svd_directions import WEIGHTS
from layerscope.atlas.posts.word_positions import PROBE
from layerscope.atlas.verdicts import Pinned

LAYERS, PROMPTS, PASSAGES, DRAWS = 48, 40, 12, 200
KINDS = (recall.SYMBOLS, recall.PLAIN, recall.RECALL)


class Made:
    """A result that is filled variable by variable."""

    def __init__(self, noise: float, layers: int = LAYERS) -> None:
        self.noise, self.layers = noise, layers
        self.rng = np.random.default_rng(1)
        self.result = xr.Dataset(attrs={"settings": json.dumps({"level": 0.95})})

    def coord(self, **names: Any) -> None:
        self.result = self.result.assign_coords({name: np.array(values) for name, values in names.items()})

    def put(self, name: str, dims: str, values: Any) -> None:
        self.result[name] = (dims.split(), np.asarray(values))

    def stated(self, name: str, dims: str, values: Any, *, n: int = PROMPTS, joint: bool = False) -> None:
        """A number with its interval."""
        values = np.asarray(values, dtype=float)
        ends = ("low", "high", *(("joint_low", "joint_high") if joint else ()))
        self.put(name, dims, values)
        for end in ends:
            self.put(f"{name}_{end}", dims, values + self.noise * (-1 if end.endswith("low") else 1))
        self.put(f"{name}_n", dims, np.full(values.shape, n))

    def curve(self, name: str, dims: str, values: Any) -> None:
        """A curve with its resamples."""
        values = np.asarray(values, dtype=float)
        self.stated(name, dims, values, n=PASSAGES)
        spread = self.rng.normal(0, self.noise / 2, (DRAWS, *values.shape))
        self.put(f"{name}_draws", f"draw {dims}", values + spread)

    def units(self, centre: Any, count: int) -> np.ndarray:
        """Values of units round a centre [unit ...]."""
        centre = np.asarray(centre, dtype=float)
        return centre + self.rng.normal(0, self.noise * np.sqrt(count) / 2, (count, *centre.shape))


def made(size: float, noise: float = 0.004) -> dict[Pinned, xr.Dataset]:
    """Results for every run that claims need."""
    trace = _trace(size, noise)
    return {
        recall.TRACE: trace,
        recall.INVENTED: _invented(size, noise),
        recall.ROME: _rome(size, noise),
        recall.STATES: _states(size, noise),
        LAST: _last(size, noise),
        PATTERNS: _patterns(size, noise),
        ALONG: _along(size, noise),
        SYNTAX: _syntax(size, noise),
        TRIGGERS: _triggers(size, noise),
        CUT: _cut(size, noise),
        READING: _reading(size, noise),
        KNOCKOUT: _knockout(size, noise),
        WEIGHTS: _weights(size, noise),
        PROBE: _probe(size, noise),
    }


def _prompts(made: Made) -> np.ndarray:
    """The kind of each prompt, 0 to 2 [prompt]."""
    kinds = np.repeat(np.arange(3), PROMPTS)
    made.result = made.result.assign_coords(
        prompt=[f"p{n}" for n in range(3 * PROMPTS)],
        prompt_category=("prompt", [json.dumps(KINDS[kind])[1:-1] for kind in kinds]),
    )
    return kinds


def _trace(size: float, noise: float) -> xr.Dataset:
    made = Made(noise * LAYERS)
    kinds = _prompts(made)
    at = 0.85 - 0.45 * size + size * 0.2 * (kinds - 1)
    crossing = LAYERS * at + made.units(0.0, len(kinds))
    made.put("transition_layer", "prompt", crossing)
    made.put("onset", "prompt", crossing)
    made.coord(dose=list(recall.LEVELS.values()), depth=range(LAYERS + 1))
    moved = 0.2 * size * LAYERS + np.stack([made.units(0.0, len(kinds)) for _ in recall.LEVELS], axis=1)
    made.put("dose_transition", "prompt dose", crossing[:, None] + moved)
    harm = np.stack([made.units(0.0, len(kinds)) / LAYERS for _ in recall.LEVELS], axis=1)
    harm[:, 0] += 0.3 * size
    made.put("dose_harmful", "prompt dose", harm)
    pairs = [(2, 0), (1, 0), (1, 2)]
    made.result = made.result.assign_coords(
        contrast_first=("contrast", [KINDS[a] for a, _ in pairs]),
        contrast_second=("contrast", [KINDS[b] for _, b in pairs]),
    )
    gaps = np.array([LAYERS * size * 0.2 * (a - b) for a, b in pairs])
    made.stated("difference", "contrast", gaps)
    for which in ("first", "second"):
        made.put(f"difference_n_{which}", "contrast", np.full(3, PROMPTS))
    made.coord(explanation=["distance from subject to end [tokens]", "clean log-odds of the answer [nat]"])
    made.noise = noise * LAYERS / 4
    made.stated("regression", "explanation", np.full(2, LAYERS * 0.05 * size))
    return made.result


def _invented(size: float, noise: float) -> xr.Dataset:
    made = Made(noise * LAYERS)
    made.coord(depth=range(LAYERS + 1))
    made.put("transition_layer", "prompt", LAYERS * 0.85 + made.units(0.0, PROMPTS))
    return made.result


def _rome(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    kinds = _prompts(made)
    made.coord(
        site=["attn_out", "mlp_out"],
        layer=range(LAYERS),
        token_class_name=["last subject token"],
        handed_to=["the subject's last token", "the last token"],
    )
    made.put("transition_layer", "prompt", np.full(len(kinds), 20.0))
    peak = 19.5 + LAYERS * (0.4 * size + made.units(0.0, len(kinds)))
    made.put("window_peak", "prompt site", np.stack([peak, peak], axis=1))
    tokens = np.repeat(np.arange(PROMPTS), 2)
    made.result = made.result.assign_coords(subject_token_prompt=("subject_token", [f"p{n}" for n in tokens]))
    made.put("tokens_to_subject_end", "subject_token", np.tile([1, 0], PROMPTS))
    to_end = 20 + LAYERS * (0.3 * size + made.units(0.0, 2 * PROMPTS))
    made.put("handover", "subject_token handed_to", np.stack([np.full(2 * PROMPTS, 20.0), to_end], axis=1))
    lost = np.where(np.arange(LAYERS) < LAYERS / 2, 0.5 * size, 0.0)
    made.stated(
        "severed_loss", "site layer token_class_name", np.stack([0 * lost, lost])[..., None], joint=True
    )
    return made.result


def _states(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    kinds = _prompts(made)
    made.coord(depth=range(LAYERS + 1), layer=range(LAYERS))
    recalled = (kinds == 2)[:, None]
    late = np.arange(LAYERS + 1) > LAYERS / 2
    growth = 1 + 0.5 * size * recalled * late + made.units(np.zeros(LAYERS + 1), len(kinds))
    made.put("prompt_norm", "prompt depth", np.maximum(growth, 0.1))
    turning = 0.3 * size * recalled * (np.arange(LAYERS) >= 20) + made.units(np.zeros(LAYERS), len(kinds))
    made.put("prompt_turn", "prompt layer", turning)
    profile = np.full(LAYERS, 0.9)
    profile[[0, -1]] -= 0.5 * size
    made.put("successive_cosine", "token layer", made.units(profile, 3 * PASSAGES))
    made.result = made.result.assign_coords(
        token_passage=("token", [f"t{n % PASSAGES}" for n in range(3 * PASSAGES)])
    )
    return made.result


def _last(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    kinds = _prompts(made)
    made.coord(weighting=["attention"], row=["first token", "noised tokens"], layer=range(LAYERS))
    made.put("uniform_overall", "row", [0.1, 0.1])
    share = np.full((1, 2, LAYERS), 0.1 + 0.5 * size)
    made.curve("overall_attention", "weighting row layer", share)
    level = 0.1 * np.exp(size * (kinds == 2) + made.units(0.0, len(kinds)))
    each = np.broadcast_to(level[:, None, None, None, None], (len(kinds), 1, 2, LAYERS, 1))
    made.put("prompt_attention", "prompt weighting row layer head", each)
    return made.result


def _patterns(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.coord(
        sink_measure=["first token"],
        threshold=[0.1, 0.2, 0.3, 0.5],
        definition=["all keys", "without first token"],
        layer=range(LAYERS),
    )
    end = 8 + (1 - size) * 30
    made.noise = noise * LAYERS / 4
    made.stated("block_end", "sink_measure threshold", [[8, 8, end, end]])
    made.noise = noise
    share = np.full((2, LAYERS), 0.8 * size)
    share[:, -1] = 0
    made.curve("first_token_share", "definition layer", share)
    late = np.arange(LAYERS) >= LAYERS / 3
    made.stated(
        "span", "definition layer", np.broadcast_to(10 * np.exp((size - 0.2) * late), (2, LAYERS)), n=PASSAGES
    )
    content = 0.1 + 0.3 * size * late * (np.arange(LAYERS) < LAYERS - 1)
    made.stated("variability", "definition layer", np.broadcast_to(content, (2, LAYERS)), n=PASSAGES)
    return made.result


def _along(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.coord(reading=["nothing added"], stretch=[1.0, 3.0, 50.0, 512.0])
    made.stated(
        "overall_along", "reading stretch", [[1.0, 0.1 + 0.6 * size, 0.1 + 0.3 * size, 0.1 + 0.3 * size]]
    )
    return made.result


def _syntax(size: float, noise: float) -> xr.Dataset:
    made = Made(noise * LAYERS)
    made.coord(task=["part of speech", "relation", "next relation"], depth=range(LAYERS + 1))
    made.stated("best_depth", "task", LAYERS * np.array([0.2, 0.2 + 0.2 * size, 0.4 + 0.3 * size]))
    return made.result


def _triggers(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.coord(statistic=["coherence", "shared_last_token"])
    made.stated("halves", "statistic", [0.2 * size, -0.3 * size])
    return made.result


def _cut(size: float, noise: float) -> xr.Dataset:
    made = Made(noise, 33)
    depths = 33
    made.coord(
        context_length=[5, 10],
        depth=range(depths),
        kept_tokens=[5],
        category=["common word", "other", "full stop"],
    )
    fall = np.clip(np.arange(depths) / 10.6, 0, 1)
    curve = 0.99 - 0.5 * size * fall
    turn = np.pi * np.arange(depths) / 4  # without an effect, the two curves go their own ways
    five, ten = (curve + 0.02 * (1 - size) * wave(turn) for wave in (np.sin, np.cos))
    both = np.stack([five, ten - 0.01])
    both[:, -3:] = both[:, -3:-2]
    both[:, -1] += 0.1 * size
    made.curve("median_similarity", "context_length depth", both)
    made.stated("recent_tokens", "", 0.5 * size)
    made.stated("category_difference", "category", [-0.2 * size, 0, 0])
    similar = np.broadcast_to(np.array([[0.5], [0.5 + 0.2 * size], [0.5]]), (3, depths))
    made.stated("category_similarity", "category depth", similar)
    tokens = 40 * PASSAGES
    tail = np.where(np.arange(tokens) % 40 < 4, -size, 0.0) + made.units(np.zeros(1), tokens)[:, 0]
    made.put(
        "similarity", "token kept_tokens depth", np.broadcast_to(tail[:, None, None], (tokens, 1, depths))
    )
    made.result = made.result.assign_coords(token_passage=("token", [f"t{n // 40}" for n in range(tokens)]))
    made.coord(name=[f"n{n}" for n in range(10)])
    made.put("last_token_similarity", "name depth", np.zeros((10, depths)))
    prefix = 0.5 * size + made.units(np.zeros(depths), 10)
    made.put("prefix_similarity", "name depth", prefix)
    return made.result


def _ranges(made: Made, size: float, over: str) -> np.ndarray:
    made.coord(**{over: ["1 to 9 back", "10 to 31 back", "128 back and more"]})
    return LAYERS * (0.3 + np.array([0, 0.3, 0.4]) * size + made.units(np.zeros(3), PASSAGES))


def _reading(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.put("passage_centroid", "passage range", _ranges(made, size, "range"))
    made.coord(layer=range(LAYERS))
    again = 0.1 + 0.3 * size * (np.arange(LAYERS) >= 15 * LAYERS / 32)
    made.stated("fresh_share", "range layer", np.broadcast_to(again, (3, LAYERS)), n=PASSAGES)
    return made.result


def _knockout(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.put("passage_centroid", "used_passage edges window", _ranges(made, size, "edges")[..., None])
    made.coord(layer=range(LAYERS))
    return made.result


def _weights(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    kinds = ["OV writes", "QK asks", "QK answers", "MLP reads", "MLP writes"]
    made.coord(kind=kinds, rater=["own"], layer=range(LAYERS))
    made.result.attrs["rate_by"] = json.dumps("own")
    made.stated("above_rotations", "kind rater", np.full((5, 1), 0.3 * size))
    depth = (np.arange(LAYERS) + 0.5) / LAYERS
    humps = ((depth >= 1 / 8) & (depth < 3 / 8)) | ((depth >= 5 / 8) & (depth < 7 / 8))
    made.stated(
        "rate", "kind layer rater", np.broadcast_to((0.1 + 0.4 * size * humps)[None, :, None], (5, LAYERS, 1))
    )
    made.stated("last_block", "kind rater", np.full((5, 1), -0.3 * size))
    return made.result


def _probe(size: float, noise: float) -> xr.Dataset:
    made = Made(noise)
    made.coord(
        task=["last", "sentences"], depth=range(13), unit=range(7), heads_out=["anchor"], layer=range(12)
    )
    made.result.attrs["causal_depth"] = 4
    made.stated("score", "task depth", np.full((2, 13), 0.3 * size))
    made.stated("score_lost", "heads_out depth", np.full((1, 13), 0.3 * size))
    made.put("ceiling_recall", "task unit", np.ones((2, 7)))
    prompts = PROMPTS if noise < 1 else 7
    index = np.tile(np.arange(7), prompts)
    guess = np.where(
        made.rng.random(index.size) < np.where(index >= 5, size, 0.0) + min(noise, 1) / 4,
        (index + 1) % 7,
        index,
    )
    probability = np.zeros((index.size, 13, 7))
    probability[np.arange(index.size), :, guess] = 1
    made.put("probability", "token depth unit", probability)
    made.result = made.result.assign_coords(
        case_task=("token", ["last"] * index.size),
        case_index=("token", index),
        case_prompt=("token", [f"p{n}" for n in np.repeat(np.arange(prompts), 7)]),
    )
    return made.result
