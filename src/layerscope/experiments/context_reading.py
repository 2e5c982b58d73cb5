"""What does each layer read from afar, as opposed to relay, carry or amplify?

Every target token is read with its whole context and with BOS and its last k tokens alone. In each block the
difference of the two states grows, and its growth is split exactly into four: fresh (attention to keys
beyond the last k, in this block), relayed (near keys and values that bring it because they had read far
before), own (the target's own query, key and value being different) and MLP. Only own and MLP carry or
amplify what is there; fresh and relayed bring it.

Fresh reading is also taken by distance: what attention adds when it may read one range of distances more.
The primary index is the centroid of its depth, far less near: above 0, far context is read in deeper layers
than near context; at 0, all distances are read in the same layers. Heights are shares of what the block's
attention adds; intervals are over passages.

Beware: a range is read fresh also by heads that spread their attention over everything, as untrained ones do;
shares of a vector's length do not sum to one, the projections on the final difference do. How much is read
says nothing about its use.

Source: after Nanda et al. 2023, "Fact Finding" part 5, and the comments by Linsefors, who named the confound
that this split removes; the split is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.experiments import _reading_figures
from layerscope.experiments._contract import Claim, Earlier, Inputs, Stage, WorkItem
from layerscope.experiments._coordinates import (
    groups_along,
    layer_coordinate,
    number_coordinate,
    text_coordinate,
)
from layerscope.experiments._distances import (
    NOT_OWED_TO_TRAINING,
    RangesOfDistance,
    cautions_of_unread,
    ends_of_ranges,
    far_targets,
    longest_first,
    longest_passage,
    names_of_ranges,
    need_bos,
    said_of_range,
    unread,
)
from layerscope.experiments._summaries import as_curve, interval_variables, number_or_none
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.depth_profile import apart, centroid
from layerscope.maths.similarity import norm
from layerscope.plots.numbers import number
from layerscope.results.schema import quantity, write_json
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"passages"}

PARTS = ("fresh", "relayed", "own", "MLP")


class Settings(RangesOfDistance):
    """Choices about distances, cuts and targets."""

    cut_passages: int = Field(12, ge=1, description="passages that are cut, the longest ones")
    targets: int = Field(
        8, ge=1, description="targets of each passage, evenly spread where there is far context"
    )
    weight: Literal["share", "norm"] = Field(
        "share",
        description="heights of the centroid: length over that of what attention adds, or the length alone",
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages")


class ReadingItem(WorkItem):
    """One passage, to be read at some targets."""

    passage: TokenisedPassage
    targets: tuple[int, ...]
    ends: tuple[int, ...]
    tokens_per_pass: int


def _items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ReadingItem]:
    need_bos(inputs)
    ends = ends_of_ranges(settings.ranges, longest_passage(inputs))
    for passage in longest_first(inputs.passages, settings.cut_passages):
        targets = far_targets(len(passage.tokens), ends[-1], settings.targets)
        if targets:
            rows = 2 + len(ends) + 1 + 2
            size = rows * len(passage.tokens) + len(targets) * (ends[0] + ends[-1] + 2)
            yield ReadingItem(
                name=passage.name,
                size=size,
                passage=passage,
                targets=targets,
                ends=ends,
                tokens_per_pass=inputs.tokens_per_pass,
            )


def _measure(model: LayeredModel, item: ReadingItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    runs.need_split(model)
    text = runs.full_run(model, item.passage.tokens.ids)
    cuts = tuple(dict.fromkeys((item.ends[0], item.ends[-1])))
    found = runs.split_context(
        model,
        text,
        item.targets,
        distances=(1, *item.ends),
        cuts=cuts,
        tokens_per_pass=item.tokens_per_pass,
    )
    steps = np.concatenate([found.from_within.cpu().numpy(), found.attention[None].cpu().numpy()])
    fresh = np.diff(steps, axis=0)  # what one range more brings [range layer target width]
    parts, difference = found.parts.cpu().numpy(), found.difference.cpu().numpy()
    final = difference[:, -1]
    onto = np.einsum("cpltw,ctw->cplt", parts, final) / (final**2).sum(-1)[:, None, None]
    gap = parts.sum(1) - np.diff(difference, axis=1)
    variables = {
        "fresh_by_range": quantity(
            norm(fresh).transpose(2, 0, 1),
            "token range layer",
            "length of what is read fresh from a range of distances",
        ),
        "attention": quantity(
            norm(found.attention).cpu().numpy().T,
            "token layer",
            "length of what attention adds in the full run",
        ),
        "part_length": quantity(
            norm(parts).transpose(3, 0, 1, 2), "token cut_at part layer", "length of a part"
        ),
        "projection": quantity(
            onto.transpose(3, 0, 1, 2),
            "token cut_at part layer",
            "a part along the final difference, as its share",
        ),
        "difference": quantity(
            norm(difference).transpose(2, 0, 1)[..., 1:],
            "token cut_at layer",
            "length of full less cut state, after the block",
        ),
        "gap": quantity(
            norm(gap).transpose(2, 0, 1),
            "token cut_at layer",
            "length of what the four parts leave unexplained",
        ),
    }
    return xr.Dataset(variables, coords=_coordinates(model, item, cuts))


def _coordinates(model: LayeredModel, item: ReadingItem, cuts: tuple[int, ...]) -> dict[str, xr.Variable]:
    n = len(item.targets)
    return {
        "token_passage": text_coordinate([item.passage.name] * n, "token", "passage of the token"),
        "position": number_coordinate(item.targets, "token", "position in the passage"),
        "token_unread": unread(item.passage, n),
        "token_text": text_coordinate(
            [item.passage.tokens.texts[t] for t in item.targets], "token", "token, as JSON text"
        ),
        "range": text_coordinate(names_of_ranges(item.ends), "range", "range of distances [tokens]"),
        "cut_at": number_coordinate(cuts, "cut_at", "tokens of context kept, itself included"),
        "part": text_coordinate(list(PARTS), "part", "part of the growth"),
        "layer": layer_coordinate(model.n_layers),
    }


STAGES = (Stage("reading", items=_items, measure=_measure),)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Profiles of fresh reading by range, the four parts, their projections, and the index."""
    reading = stages["reading"]
    rows = groups_along(reading, "token_passage")
    largest = float((reading.gap / reading.difference.max("layer")).max())
    gap = quantity(
        np.float64(largest), "", "largest gap of the split, over the largest difference of its token"
    )
    result = reading.assign(
        _profiles(reading, rows, settings) | _indices(reading, rows, settings) | {"largest_gap": gap}
    ).assign_coords(passage=xr.Variable(("passage",), np.array(list(rows)), {"long_name": "passage"}))
    return write_json(
        result.assign_attrs(passages=len(rows)), cautions=[*_cautions(largest), *cautions_of_unread(result)]
    )


def _how(settings: Settings) -> dict[str, Any]:
    return {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}


def _by_passage(values: np.ndarray, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Means over the targets of each passage."""
    return np.stack([values[places].mean(axis=0) for places in rows.values()])


def _fresh_shares(reading: xr.Dataset) -> np.ndarray:
    """Where attention adds nothing there is no share of it, and no height. [token range layer]"""
    return divide(reading.fresh_by_range.values, reading.attention.values[:, None])


def _profiles(reading: xr.Dataset, rows: dict[str, np.ndarray], settings: Settings) -> dict[str, xr.Variable]:
    """Fresh reading by range, the lengths of the four parts, and what they have brought, layer by layer."""
    lengths = divide(reading.part_length.values, reading.attention.values[:, None, None])
    brought = np.cumsum(reading.projection.values, axis=-1)
    profiles = (
        (
            "fresh_share",
            _fresh_shares(reading),
            "range layer",
            "read fresh, over the length of what attention adds",
        ),
        ("part_share", lengths, "cut_at part layer", "length over that of what attention adds"),
        ("brought", brought, "cut_at part layer", "share of the final difference brought so far"),
    )
    found: dict[str, xr.Variable] = {}
    for name, values, dims, said in profiles:
        mean = bootstrap_mean(_by_passage(values, rows), **_how(settings))
        found |= interval_variables(name, mean, dims, said)
    return found


def _indices(reading: xr.Dataset, rows: dict[str, np.ndarray], settings: Settings) -> dict[str, xr.Variable]:
    """Centroids of depth by range, and how much deeper the farthest range is than the nearest."""
    by_length = centroid(_by_passage(reading.fresh_by_range.values, rows))  # [passage range]
    by_share = centroid(_by_passage(_fresh_shares(reading), rows))
    centroids = by_share if settings.weight == "share" else by_length
    indices = (
        ("centroid", centroids, "range", "centroid of depth of fresh reading"),
        ("far_less_near", _far_less_near(centroids), "", "centroid of depth of fresh reading, far less near"),
        (
            "far_less_near_by_length",
            _far_less_near(by_length),
            "",
            "the same with lengths instead of shares as heights",
        ),
    )
    found: dict[str, xr.Variable] = {}
    for name, values, dims, said in indices:
        found |= interval_variables(name, bootstrap_mean(values, **_how(settings)), dims, said, "block")
    found["passage_centroid"] = quantity(
        centroids, "passage range", "centroid of depth of fresh reading, of one passage", "block"
    )
    return found


def _far_less_near(centroids: np.ndarray) -> np.ndarray:
    return apart(centroids[:, -1], centroids[:, 0])


def _cautions(largest: float) -> list[str]:
    if largest < 1e-2:
        return []
    return [
        f"The four parts leave up to {largest:.1%} of a difference unexplained: rounding of half precision, or a model "
        "that does more in a block than attention and MLP."
    ]


def claims(result: xr.Dataset) -> list[Claim]:
    """The index, and who brings what lies far back."""
    value, low, high = (float(result[f"far_less_near{end}"]) for end in ("", "_low", "_high"))
    told = bool(low > 0 or high < 0)
    ranges = [str(name) for name in result["range"].values]
    where = ("deeper" if value > 0 else "shallower") if told else "not distinguishably deeper or shallower"
    other = float(result.far_less_near_by_length)
    index = Claim(
        text=f"what is {said_of_range(ranges[-1])} is read {where} than what is {said_of_range(ranges[0])}"
        + (f", by {number(abs(value))} blocks" if told else f" ({number(value)} blocks)"),
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        distinguishable=told,
        caveat=f"centroid of depth of fresh reading, mean over {result.attrs['passages']} passages; with lengths "
        f"instead of shares as heights {number(other)}; {NOT_OWED_TO_TRAINING}",
        select={"variable": "far_less_near"},
    )
    return [index, *(_brought(result, int(cut)) for cut in result.cut_at.values)]


def _brought(result: xr.Dataset, cut: int) -> Claim:
    last = int(result.layer[-1])
    final = {part: float(result.brought.sel(cut_at=cut, part=part, layer=last)) for part in PARTS}
    cell = {"cut_at": cut, "part": "fresh", "layer": last}
    others = ", ".join(f"{part} {final[part]:.0%}".replace("-", "−") for part in PARTS[1:])
    return Claim(
        text=f"of what the context beyond the last {cut} tokens changes in the final state, {final['fresh']:.0%} is "
        f"read fresh by the token itself ({others})",
        value=final["fresh"],
        low=number_or_none(result.brought_low.sel(cell)),
        high=number_or_none(result.brought_high.sel(cell)),
        caveat="sum over blocks of each part along the final difference; the four sum to one",
        select={"variable": "brought", **cell},
    )


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """What each layer reads fresh from the farthest range."""
    curve = as_curve(result, "fresh_share").isel(range=-1, drop=True).drop_vars("range", errors="ignore")
    farthest = said_of_range(str(result["range"].values[-1]))
    curve["value"].attrs["long_name"] = f"read fresh from {farthest}, over the length of what attention adds"
    return curve


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Fresh reading by distance, its centroids, the four parts, and what they bring in the end."""
    return _reading_figures.draw(result)
