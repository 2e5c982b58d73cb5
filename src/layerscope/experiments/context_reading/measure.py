"""One passage of context_reading: the growth of its differences, split into four, and direct reading by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import layer_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.evidence.distances import names_of_ranges, unread
from layerscope.experiments.context_reading.items import ReadingItem
from layerscope.experiments.context_reading.settings import Settings
from layerscope.maths.similarity import norm

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

PARTS = ("fresh", "relayed", "own", "MLP")
"""Parts of the growth, as results name them; `SAID` says them."""

SAID = {
    "fresh": "read directly",
    "relayed": "relayed by other tokens",
    "own": "amplified by its own attention",
    "MLP": "changed by MLPs",
}


def reading(model: LayeredModel, item: ReadingItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Lengths and projections of every part, at every target and layer."""
    runs.need_split(model)
    cuts = tuple(dict.fromkeys((item.ends[0], item.ends[-1])))
    found = runs.split_context(
        model,
        runs.full_run(model, item.passage.tokens.ids),
        item.targets,
        distances=(1, *item.ends),
        cuts=cuts,
        tokens_per_pass=item.tokens_per_pass,
    )
    steps = np.concatenate([found.from_within.cpu().numpy(), found.attention[None].cpu().numpy()])
    parts, difference = found.parts.cpu().numpy(), found.difference.cpu().numpy()
    final = difference[:, -1]
    onto = np.einsum("cpltw,ctw->cplt", parts, final) / (final**2).sum(-1)[:, None, None]
    by_part = ("cut_at", "part", "layer", "token")
    by_range = norm(np.diff(steps, axis=0))  # what one range more brings
    gap = norm(parts.sum(1) - np.diff(difference, axis=1))
    arrays = (
        named(
            by_range,
            "fresh_by_range",
            "length of what is read directly from a range of distances",
            dims=("range", "layer", "token"),
        ),
        named(
            norm(found.attention),
            "attention",
            "length of what attention adds in the full run",
            dims=("layer", "token"),
        ),
        named(norm(parts), "part_length", "length of a part", dims=by_part),
        named(onto, "projection", "a part along the final difference, as its share", dims=by_part),
        named(
            norm(difference)[:, 1:],
            "difference",
            "length of full less cut state, after the layer",
            dims=("cut_at", "layer", "token"),
        ),
        named(gap, "gap", "length of what the four parts leave", dims=("cut_at", "layer", "token")),
    )
    return samples(*(one.transpose("token", ...) for one in arrays), **_coordinates(model, item, cuts))


def _coordinates(model: LayeredModel, item: ReadingItem, cuts: tuple[int, ...]) -> dict[str, xr.Variable]:
    n, texts = len(item.targets), item.passage.tokens.texts
    return {
        "token_passage": text_coordinate([item.passage.name] * n, "token", "passage of the token"),
        "position": number_coordinate(item.targets, "token", "position in the passage"),
        "token_unread": unread(item.passage, n),
        "token_text": text_coordinate([texts[t] for t in item.targets], "token", "token, as JSON text"),
        "range": text_coordinate(names_of_ranges(item.ends), "range", "range of distances [tokens]"),
        "cut_at": number_coordinate(cuts, "cut_at", "tokens of context kept, itself included"),
        "part": text_coordinate(list(PARTS), "part", "part of the growth"),
        "layer": layer_coordinate(model.n_layers),
    }
