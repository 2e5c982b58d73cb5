"""Every key on a few passages: which are live, how many are active, and what their values add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments.trigger_examples.items import LayerItem, PassageItem
from layerscope.experiments.trigger_examples.items.units import two_sided
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.shallowness import effective_share
from layerscope.results.combine import concatenate
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def measure_values(model: LayeredModel, item: LayerItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The token that each value vector of a layer raises most, and the one that its opposite does."""
    from layerscope.models.mlp_keys import mlp_keys

    keys = mlp_keys(model)
    most, here = max(one.n_keys for one in keys), keys[item.layer]
    tops, lengths = np.full((1, 2, most), -1, dtype=np.int64), np.full((1, most), np.nan, dtype=np.float32)
    for start in range(0, here.n_keys, 2048):
        block = slice(start, min(start + 2048, here.n_keys))
        values = here.values(range(block.start, block.stop))
        lengths[0, block] = values.norm(dim=-1).cpu().numpy()
        if "unembed" not in model.refused:
            tops[0, 0, block] = runs.top_tokens(model, values).numpy()
            tops[0, 1, block] = runs.top_tokens(model, -values).numpy()
    return xr.Dataset(
        {
            "value_tops": quantity(tops, "layer side memory", "token that the value vector raises most"),
            "value_length": quantity(lengths, "layer memory", "length of the value vector"),
        },
        coords={
            "layer": number_coordinate([item.layer], "layer", "layer"),
            "side": number_coordinate([1, -1], "side", "sign of the value vector"),
            "memory": number_coordinate(range(most), "memory", "key of the MLP"),
        },
    )


def measure_census(
    model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Every key on one passage: its highest and lowest activation, how many are active, what they write."""
    from layerscope.models.expert_keys import ExpertKeys
    from layerscope.models.mlp_keys import mlp_keys
    from layerscope.runs.reading import as_batch

    keys, n_layers = mlp_keys(model), model.n_layers
    most = max(one.n_keys for one in keys)
    seen = _Seen(n_layers, most, _sampled(item.passage, settings))
    show = {
        layer: seen.keys_of(layer, settings.first_position, keys[layer].n_keys) for layer in range(n_layers)
    }
    experts = [one if isinstance(one, ExpertKeys) else None for one in keys]
    outputs = (
        {layer: seen.output_of(layer) for layer in range(n_layers)} if settings.composition_tokens else {}
    )
    ids = as_batch(item.passage.tokens.ids)
    runs.show_key_activations(model, ids, show, outputs, routing_share=settings.routing_share)
    unmatched = _unmatched(model, seen, earlier.get("values"))
    per_layer = "passage layer"
    return xr.Dataset(
        {
            "highest": quantity(seen.highest, "layer memory", "highest activation in the census"),
            "lowest": quantity(seen.lowest, "layer memory", "lowest activation in the census"),
            "active_share": quantity(seen.active[None], per_layer, "share of keys above 0"),
            "effective_share": quantity(
                _effective(seen, earlier.get("values"))[None],
                per_layer,
                "share of keys over which the output is spread",
            ),
            "unmatched_share": quantity(
                unmatched[0][None], per_layer, "share of outputs whose top token no active value has"
            ),
            "unmatched_by_chance": quantity(
                unmatched[1][None], per_layer, "the same with another token's output"
            ),
            "experts": quantity(
                np.array([one.n_experts if one else 0 for one in experts]),
                "layer",
                "experts that tokens are sent to; 0 where one MLP serves every token",
            ),
            "expert_keys": quantity(
                np.array([one.n_units if one else 0 for one in experts]), "layer", "keys of each expert"
            ),
        },
        coords={
            "layer": layer_coordinate(n_layers),
            "memory": number_coordinate(range(most), "memory", "key of the MLP"),
            "passage": text_coordinate([item.passage.name], "passage", "passage of the census"),
        },
    )


def _sampled(passage: TokenisedPassage, settings: Settings) -> np.ndarray:
    first, last = settings.first_position, len(passage.tokens) - 1
    number = min(max(1, settings.composition_tokens), last - first + 1)
    return np.unique(np.linspace(first, last, number).round().astype(int))


class _Seen:
    """What is kept of one passage: extremes and shares of all tokens, activations and outputs of some."""

    def __init__(self, n_layers: int, most: int, sampled: np.ndarray) -> None:
        self.highest = np.full((n_layers, most), -np.inf, dtype=np.float32)
        self.lowest = np.full((n_layers, most), np.inf, dtype=np.float32)
        self.active = np.full(n_layers, np.nan)
        self.sampled = sampled
        self.activations: dict[int, np.ndarray] = {}
        self.outputs: dict[int, Any] = {}

    def keys_of(self, layer: int, first: int, count: int) -> Any:
        def see(activations: Any) -> None:
            sampled = self.activations[layer] = np.zeros((len(self.sampled), count), dtype=np.float32)
            above, seen = 0.0, 0
            for some, block in activations.every():
                kept = block[0, first:].float()
                self.highest[layer, some] = kept.amax(0).cpu().numpy()
                self.lowest[layer, some] = kept.amin(0).cpu().numpy()
                above, seen = above + float((kept > 0).float().sum()), seen + kept.numel()
                sampled[:, some] = block[0, self.sampled.tolist()].float().cpu().numpy()
            self.active[layer] = above / seen

        return see

    def output_of(self, layer: int) -> Any:
        def see(output: Any) -> None:
            self.outputs[layer] = output[0, self.sampled.tolist()].float().clone()

        return see


def _effective(seen: _Seen, values: xr.Dataset | None) -> np.ndarray:
    if values is None or "value_length" not in values:
        return np.full(len(seen.active), np.nan)
    return np.array(
        [
            float(np.nanmean(effective_share(np.abs(a) * values.value_length.values[layer, : a.shape[1]])))
            if np.abs(a).sum()
            else np.nan
            for layer, a in sorted(seen.activations.items())
        ]
    )


def _unmatched(model: LayeredModel, seen: _Seen, values: xr.Dataset | None) -> tuple[np.ndarray, np.ndarray]:
    """Share of outputs that say what no active value says; and where outputs are swapped among tokens."""
    shares = np.full((2, len(seen.active)), np.nan)
    if values is None or "value_tops" not in values or "unembed" in model.refused:
        return shares[0], shares[1]
    tops = values.value_tops.values
    for layer, activations in seen.activations.items():
        count = activations.shape[1]
        both = two_sided(seen.highest[layer, :count].max(), seen.lowest[layer, :count].min())
        said = np.where(activations > 0, tops[layer, 0, :count], -1)
        if both:
            said = np.where(activations < 0, tops[layer, 1, :count], said)
        output = seen.outputs[layer]
        spoken = (output.abs().sum(-1) > 0).cpu().numpy() & np.any(said >= 0, axis=1)
        if not spoken.any():
            continue
        own = runs.top_tokens(model, output).numpy()
        shares[0, layer] = _none_says(said, own)[spoken].mean()
        if len(own) > 1:
            shares[1, layer] = _none_says(said, np.roll(own, len(own) // 2))[spoken].mean()
    return shares[0], shares[1]


def _none_says(said: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(~(said == tokens[:, None]).any(axis=1))


def fold_census(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Extremes of both; the passages one after another."""
    rows = [one.drop_vars(["highest", "lowest", "memory"]) for one in (folded, part)]
    extremes = {
        "highest": folded.highest.variable.copy(data=np.maximum(folded.highest.values, part.highest.values)),
        "lowest": folded.lowest.variable.copy(data=np.minimum(folded.lowest.values, part.lowest.values)),
    }
    return concatenate(rows).assign(extremes).assign_coords(memory=folded.memory.variable)
