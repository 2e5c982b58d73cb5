"""Causal steps of word_position_probe: states moved along the index, and heads taken out.

A state is moved, at one depth, by the difference of class means (within cells of equal position) between
its index and the next or the one before; what changes is read from the attention of its token in the
blocks behind, from the probes at later depths, and from the prediction. The control moves it as far along
a difference of two states of equal index and position.

Heads are chosen on training prompts, by what they attend to, and taken out of test prompts by putting
their mean output in the place of their output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence.coordinates import (
    depth_coordinate,
    layer_coordinate,
    number_coordinate,
    text_coordinate,
)
from layerscope.experiments.word_position_probe.items.prompts import Laid
from layerscope.experiments.word_position_probe.items.tasks import cases_of, judged
from layerscope.experiments.word_position_probe.measure.fitting import IndexProbe, decoded
from layerscope.experiments.word_position_probe.settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.class_contrasts import attended_index
from layerscope.maths.distributions import distribution, divergence, log_total
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

MOVES = ("none", "later", "earlier", "control forth", "control back")
"""How the state is moved; the two controls are one vector and its opposite."""


# -- which heads look at what ----------------------------------------------------------------------------


def looks(
    model: LayeredModel, prompts: Sequence[Laid], anchors: Sequence[int], depth: int, tokens_per_pass: int
) -> xr.Dataset:
    """For each head, how much more than its share it attends to beginnings of words, and how much to the anchor.

    Queries are last pieces. The token itself is left out. Preference is the attention on beginnings of
    words less what would fall on them if the attention on the words' tokens fell on all of these alike.
    With it, the mean output of every head below the depth, which is what stands in a head's place later.
    """
    words = len(prompts[0].last)
    run = runs.read_units(
        model,
        [prompt.ids for prompt in prompts],
        [prompt.last for prompt in prompts],
        tokens_per_pass=tokens_per_pass,
        groups=[_kinds(prompt, anchors) for prompt in prompts],
    )
    assert run.shares is not None
    shares = run.shares.numpy().reshape(len(prompts), words, *run.shares.shape[1:])
    means = {} if "head_out" in model.refused else _mean_outputs(model, prompts, depth, tokens_per_pass)
    preference = np.stack([_preference(prompt, row) for prompt, row in zip(prompts, shares, strict=True)])
    return xr.Dataset(
        {
            "start_preference": quantity(
                preference,
                "prompt layer head",
                "attention to beginnings of words beyond what an even spread over the words gives",
            ),
            "anchor_share": quantity(
                shares[..., 2].mean(axis=1), "prompt layer head", "attention to the anchor's tokens"
            ),
        }
        | means,
        coords={
            "prompt": text_coordinate([prompt.name for prompt in prompts], "prompt", "prompt"),
            "layer": layer_coordinate(model.n_layers),
            "head": number_coordinate(range(shares.shape[-2]), "head", "head"),
        },
    )


def _mean_outputs(
    model: LayeredModel, prompts: Sequence[Laid], depth: int, tokens_per_pass: int
) -> dict[str, xr.Variable]:
    """Of every head of the blocks below a depth [block_below head entry_of_head]; NaN where there is none."""
    layers = [layer for layer in range(depth) if model.attention_modules[layer] is not None]
    heads = [(layer, head) for layer in layers for head in range(model.facts.n_heads or 0)]
    means = runs.mean_head_outputs(
        model, [prompt.ids for prompt in prompts], heads, tokens_per_pass=tokens_per_pass
    )
    width = max((len(mean) for by_head in means.values() for mean in by_head.values()), default=0)
    found = np.full((depth, model.facts.n_heads or 0, width), np.nan, dtype=np.float32)
    for layer, by_head in means.items():
        for head, mean in by_head.items():
            found[layer, head, : len(mean)] = mean.numpy()
    says = "mean output of each head below the depth of the causal steps"
    return {"mean_output": quantity(found, "block_below head entry_of_head", says)}


def _kinds(prompt: Laid, anchors: Sequence[int]) -> Any:
    """[token group]: beginnings of words, the words' tokens, the anchor, and each last piece by itself."""
    import torch

    kinds = torch.zeros(len(prompt.ids), 3 + len(prompt.last))
    kinds[list(prompt.first), 0] = 1
    kinds[prompt.start :, 1] = 1
    kinds[list(anchors), 2] = 1
    for number, position in enumerate(prompt.last):
        kinds[position, 3 + number] = 1
    return kinds


def _preference(prompt: Laid, shares: np.ndarray) -> np.ndarray:
    """[layer head], a mean over the words before whose last piece there are beginnings and other tokens."""
    found = []
    for number, (first, last) in enumerate(zip(prompt.first, prompt.last, strict=True)):
        starts, region = number + (first < last), last - prompt.start
        if 0 < starts < region:
            own = shares[number, ..., 3 + number]
            on_starts = shares[number, ..., 0] - (own if first == last else 0)
            found.append(on_starts - (shares[number, ..., 1] - own) * starts / region)
    return np.mean(found, axis=0) if found else np.full(shares.shape[1:3], np.nan)


def without_heads(
    model: LayeredModel,
    name: str,
    heads: Sequence[tuple[int, int]],
    prompts: Sequence[Laid],
    looked: xr.Dataset,
    probes: Mapping[int, IndexProbe],
    tokens_per_pass: int,
    units: int,
) -> xr.Dataset:
    """What the probes guess of test prompts that are run without some heads."""
    import torch

    means: dict[int, dict[int, Any]] = {}
    for layer, head in heads:
        mean = looked.mean_output.values[layer, head]
        means.setdefault(layer, {})[head] = torch.from_numpy(mean[np.isfinite(mean)])
    run = runs.read_units(
        model,
        [prompt.ids for prompt in prompts],
        [prompt.last for prompt in prompts],
        tokens_per_pass=tokens_per_pass,
        means=means,
    )
    return judged(name, prompts, cases_of(prompts, "last"), _at_all_depths(run.states.numpy(), probes), units)


def _at_all_depths(states: np.ndarray, probes: Mapping[int, IndexProbe]) -> np.ndarray:
    """Probabilities [case depth class] that the probes give to [case depth width] states."""
    return decoded(np.moveaxis(states, 1, 0), probes, range(states.shape[1]))


# -- moved states -----------------------------------------------------------------------------------------


def moved(
    model: LayeredModel,
    prompts: Sequence[Laid],
    vectors: xr.Dataset,
    probes: Mapping[int, IndexProbe],
    settings: Settings,
    *,
    depth: int,
    tokens_per_pass: int,
) -> xr.Dataset:
    """What follows when the state of one word's last piece is moved, in texts that end there."""
    import torch

    word = settings.moved_word
    runs.need_prefixes(model, max(len(prompt.ids) for prompt in prompts))
    cut = [prompt.ids[: prompt.last[word] + 1] for prompt in prompts]
    deltas = _deltas(prompts, vectors, settings)
    watched = "pattern" not in model.refused
    kept: dict[str, list[np.ndarray]] = {"attended": [], "decoded": [], "logits": []}
    for move in MOVES:
        run = runs.read_units(
            model,
            cut,
            [[prompt.last[word]] for prompt in prompts],
            tokens_per_pass=tokens_per_pass,
            groups=[_words_before(prompt, word) for prompt in prompts] if watched else None,
            moved=None if move == "none" else (depth, torch.from_numpy(deltas[move]).float()),
            logits=True,
        )
        assert run.logits is not None
        shares = (
            run.shares.numpy()
            if run.shares is not None
            else np.full((len(prompts), model.n_layers, 1, word), np.nan)
        )
        kept["attended"].append(attended_index(shares))
        classes = _at_all_depths(run.states.numpy(), probes)
        kept["decoded"].append((classes * np.arange(classes.shape[2])).sum(axis=2))
        kept["logits"].append(run.logits.numpy())
    return _as_moved(model, prompts, kept)


def _words_before(prompt: Laid, word: int) -> Any:
    """[token group]: the tokens of each earlier word."""
    import torch

    groups = torch.zeros(prompt.last[word] + 1, word)
    for number in range(word):
        groups[prompt.first[number] : prompt.last[number] + 1, number] = 1
    return groups


def _deltas(prompts: Sequence[Laid], vectors: xr.Dataset, settings: Settings) -> dict[str, np.ndarray]:
    later, earlier, controls = (vectors[name].values for name in ("later", "earlier", "control"))
    rng = settings.seeded("control directions")
    drawn = controls[rng.integers(len(controls), size=len(prompts))]
    length = (np.linalg.norm(later) + np.linalg.norm(earlier)) / 2
    control = drawn * divide(np.full(len(drawn), length), np.linalg.norm(drawn, axis=1))[:, None]
    each = np.ones((len(prompts), 1))
    return {
        "later": each * later,
        "earlier": each * earlier,
        "control forth": np.nan_to_num(control),
        "control back": -np.nan_to_num(control),
    }


def _as_moved(model: LayeredModel, prompts: Sequence[Laid], kept: dict[str, list[np.ndarray]]) -> xr.Dataset:
    clean, *others = kept["logits"]
    there = distribution(clean)
    kl = [np.zeros(len(prompts)), *(divergence(there, other, log_total(other)) for other in others)]
    changed = [np.zeros(len(prompts), bool), *(clean.argmax(-1) != other.argmax(-1) for other in others)]
    attended = np.stack(kept["attended"], axis=1)
    return xr.Dataset(
        {
            "attended_word": quantity(
                attended.astype(np.float32),
                "prompt move layer head",
                "mean index of the earlier words attended to",
                "word",
            ),
            "decoded_word": quantity(
                np.stack(kept["decoded"], axis=1).astype(np.float32),
                "prompt move depth",
                "mean index that the probe gives",
                "word",
            ),
            "kl_from_unmoved": quantity(
                np.stack(kl, axis=1), "prompt move", "divergence of the next token's distribution", "nat"
            ),
            "prediction_changed": quantity(
                np.stack(changed, axis=1), "prompt move", "whether the most probable next token changed"
            ),
        },
        coords={
            "prompt": text_coordinate([prompt.name for prompt in prompts], "prompt", "prompt"),
            "move": text_coordinate(MOVES, "move", "how the state is moved"),
            "layer": layer_coordinate(model.n_layers),
            "head": number_coordinate(range(attended.shape[-1]), "head", "head"),
            "depth": depth_coordinate(model.n_layers),
        },
    )
