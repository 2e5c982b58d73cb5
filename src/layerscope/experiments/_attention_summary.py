"""What attention patterns say once all sums are there: ratios by head and layer, nulls, and the block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._attention_measuring import SENTENCE_SUMS
from layerscope.experiments._attention_settings import Settings
from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import number_coordinate, text_coordinate
from layerscope.experiments._summaries import interval_variables
from layerscope.maths.arrays import divide
from layerscope.maths.attention import DISTANCE_BINS, OFFSETS, bin_name, crossings, variability
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts
from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored, stored

THRESHOLDS = (0.1, 0.2, 0.3, 0.5)
SINK_MEASURES = ("first token", "sink tokens", "first token by value norm")


@dataclass(frozen=True)
class Statistic:
    """A ratio of two sums.

    Attributes:
        above, below: names of the sums.
        long_name, units: of the ratio.
    """

    above: str
    below: str
    long_name: str
    units: str = "1"


STATISTICS = {
    "first_token_share": Statistic("first token", "every", "share of attention on the first token"),
    "kept_share": Statistic("every", "queries", "attention that counts, of one for each query"),
    "entropy": Statistic("entropy", "entropy queries", "entropy of attention", "nat"),
    "span": Statistic("span", "entropy queries", "effective span of attention", "tokens"),
    "distance": Statistic("distance", "every", "mean distance of attention", "tokens"),
    "fixed_distance": Statistic(
        "fixed distance", "fixed", "mean distance of attention at fixed queries", "tokens"
    ),
    "own_token_share": Statistic("self", "every", "share of attention on the token itself"),
    "previous_token_share": Statistic("previous token", "every", "share of attention on the previous token"),
    "duplicate_share": Statistic(
        "duplicate token", "with duplicate", "share on earlier copies of the token, where there are any"
    ),
    "induction_share": Statistic(
        "induction",
        "with induction",
        "share on what followed earlier copies of the token, where there are any",
    ),
}
REPEATED = {
    "repeat_previous_token_share": STATISTICS["previous_token_share"],
    "repeat_duplicate_share": Statistic(
        "duplicate token",
        "with duplicate",
        "share on the same token of the first reading, random text read twice",
    ),
    "repeat_induction_share": Statistic(
        "induction", "with induction", "share on what followed in the first reading, random text read twice"
    ),
}
DEPENDENCIES = {
    "dependency_share": Statistic("dependency", "every", "share of attention along dependencies"),
    "to_head_share": Statistic("to head", "every", "share of attention on the word depended on"),
    "to_dependent_share": Statistic("to dependent", "every", "share of attention on words that depend on it"),
}
_HEADED = "definition layer head"
_ROUNDING = 1e-5

ONE_BY_ONE = (
    "first_token_share", "previous_token_share", "repeat_duplicate_share", "repeat_induction_share",
    "dependency_share", "variability",
)  # fmt: skip
"""Statistics that have an interval for every head: those by which single heads are named."""


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """The whole result from the saved sums."""
    passages = stages["passages"]
    result = xr.Dataset(
        _of_texts(passages.model_sums, passages.uniform_sums, STATISTICS, settings)
        | _distances(passages, settings)
        | _content(passages, settings)
        | _block(passages, settings),
        coords={name: passages[name].variable for name in ("definition", "layer", "passage", "tokens")}
        | {
            "offset": number_coordinate(range(OFFSETS), "offset", "distance [tokens]"),
            "distance_bin": text_coordinate(
                [bin_name(*ends) for ends in DISTANCE_BINS], "distance_bin", "distance [tokens]"
            ),
            "threshold": xr.Variable(
                ("threshold",), list(THRESHOLDS), {"long_name": "share that ends the block"}
            ),
            "sink_measure": text_coordinate(SINK_MEASURES, "sink_measure", "what a layer rests on"),
        },
    )
    result = result.assign(
        passage_first_token_share=quantity(
            divide(_sum(passages.model_sums, "first token"), _sum(passages.model_sums, "every")),
            f"passage {_HEADED}",
            "share of attention on the first token, by passage",
        ),
        value_source=passages.value_source.variable,
        fixed_queries=quantity(passages.fixed_queries.values, "end", "queries at which distances are read"),
        left_out_because=_left_out(passages),
    ).assign_coords(end=passages.end.variable)
    result = _with_repeats(result, stages["repeats"], settings)
    result = _with_sentences(result, stages["sentences"], settings)
    return write_json(result, cautions=_cautions(result, settings))


def _sum(sums: xr.DataArray, name: str) -> np.ndarray:
    """One sum [unit definition layer head]."""
    dimension = str(sums.dims[-1])
    return np.asarray(sums.values[..., list(sums[dimension].values).index(name)], dtype=np.float64)


def _known(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values)  # a layer or head that is not there has no sums, and so no ratio


def _of_texts(
    model: xr.DataArray, uniform: xr.DataArray, statistics: Mapping[str, Statistic], settings: Settings
) -> dict[str, Any]:
    """Each statistic by layer with its interval, by head, and of uniform attention."""
    variables: dict[str, Any] = {}
    for name, statistic in statistics.items():
        above, below = (_known(_sum(model, part)) for part in (statistic.above, statistic.below))
        variables |= _by_layer_and_head(name, above, below, statistic, settings)
        null = ratio(*(_known(_sum(uniform, part)) for part in (statistic.above, statistic.below)))
        variables[f"uniform_{name}"] = quantity(
            known_mean(null), "definition layer", f"{statistic.long_name}, uniform attention", statistic.units
        )
    return variables


def _by_layer_and_head(
    name: str,
    above: np.ndarray,
    below: np.ndarray,
    statistic: Statistic,
    settings: Settings,
    dims: str = _HEADED,
) -> dict[str, Any]:
    find = partial(
        bootstrap_ratio, above, below, seed=settings.seed, level=settings.level, resamples=settings.resamples
    )
    variables: dict[str, Any] = interval_variables(
        name,
        find(mean_of_last=True),
        dims.removesuffix(" head"),
        f"{statistic.long_name}, mean over heads",
        statistic.units,
    )
    head, units = f"head_{name}", statistic.units
    if name not in ONE_BY_ONE:
        return variables | {head: quantity(ratio(above, below), dims, statistic.long_name, units)}
    by_head = interval_variables(head, find(), dims, statistic.long_name, units)
    return variables | {key: value for key, value in by_head.items() if not key.endswith("_n")}


# -- distances at fixed queries ---------------------------------------------------------------------


def _distances(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Mass at each distance and in each bin, at queries that stand equally deep in all texts."""
    model, uniform = (_binned(_known_sums(passages[name])) for name in ("model_sums", "uniform_sums"))
    total, uniform_total = (_known(_sum(passages[name], "fixed")) for name in ("model_sums", "uniform_sums"))
    shares = bootstrap_ratio(
        model,
        np.broadcast_to(total[:, None], model.shape),
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
        mean_of_last=True,
    )
    null = known_mean(ratio(uniform, np.broadcast_to(uniform_total[:, None], uniform.shape)))
    # A distance that uniform attention does not reach, but for rounding, lies beyond the layer's window.
    seen = null[:, :1] > _ROUNDING
    value, low, high = (np.where(seen, part, np.nan) for part in (shares.value, shares.low, shares.high))
    shares = Interval(value, low, high, shares.n)
    dims = "distance_bin definition layer"
    offsets = np.stack([_sum(passages.model_sums, f"offset {offset}") for offset in range(OFFSETS)], axis=1)
    by_offset = ratio(_known(offsets), np.broadcast_to(total[:, None], offsets.shape))
    return (
        interval_variables("bin_share", shares, dims, "share of attention by distance at fixed queries")
        | {"uniform_bin_share": quantity(null, dims, "share by distance at fixed queries, uniform attention")}
        | {
            "head_offset_share": quantity(
                by_offset, f"offset {_HEADED}", "share of attention at one distance"
            )
        }
        | _fixed_offset(_known(offsets)[:, :, 0], total[:, 0], settings)
    )


def _known_sums(sums: xr.DataArray) -> xr.DataArray:
    return sums.copy(data=np.nan_to_num(sums.values.astype(np.float64)))


def _binned(sums: xr.DataArray) -> np.ndarray:
    """Mass in each distance bin at fixed queries [unit bin definition layer head]."""
    bins: list[np.ndarray] = []
    for first, last in DISTANCE_BINS:
        if last is None:
            bins.append(np.maximum(_sum(sums, "fixed") - np.sum(bins, axis=0), 0))
        elif last < OFFSETS:
            near = [_sum(sums, f"offset {offset}") for offset in range(first, last + 1)]
            bins.append(np.sum(near, axis=0))
        else:
            bins.append(_sum(sums, f"distance from {first}"))
    return np.stack(bins, axis=1)


def _fixed_offset(offsets: np.ndarray, total: np.ndarray, settings: Settings) -> dict[str, Any]:
    """The one distance that takes more than half of a head's attention, over fixed queries; else NaN."""
    counts = resampled_counts(len(total), seed=settings.seed, resamples=settings.resamples)
    value = _majority(ratio(offsets, np.broadcast_to(total[:, None], offsets.shape))[None])[0]
    draws = _majority(
        divide(np.tensordot(counts, offsets, axes=1), np.tensordot(counts, total, axes=1)[:, None])
    )
    interval = interval_of_draws(value, draws, units=len(total), level=settings.level)
    return interval_variables(
        "fixed_offset",
        interval,
        "layer head",
        "distance that takes over half of a head's attention",
        "tokens",
    )


def _majority(shares: np.ndarray) -> np.ndarray:
    """Place along axis 1 with a share above one half, NaN where there is none."""
    best = np.nan_to_num(shares).argmax(axis=1).astype(float)
    return np.where(np.nan_to_num(shares).max(axis=1) > 0.5, best, np.nan)


# -- content or position -----------------------------------------------------------------------------


def _content(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Variability, and entropy and distance beside those of the head's mean pattern, at the first tokens."""
    corner, own = passages.corner_sums, passages.own_mean_sums
    deviation, kept = _known(_sum(corner, "deviation")), _known(_sum(corner, "every"))
    long_name = f"deviation from the head's mean pattern, first {settings.mean_positions} tokens"
    variables = _by_layer_and_head(
        "variability",
        variability(deviation, np.ones_like(kept)),
        kept,
        Statistic("", "", long_name),
        settings,
    )
    for name in ("entropy", "distance"):
        statistic = STATISTICS[name]
        here = Statistic(
            "", "", f"{statistic.long_name}, first {settings.mean_positions} tokens", statistic.units
        )
        above, below = (_known(_sum(corner, part)) for part in (statistic.above, statistic.below))
        variables |= _by_layer_and_head(f"early_{name}", above, below, here, settings)
        null = ratio(*(_known(_sum(own, part)) for part in (statistic.above, statistic.below)))
        variables[f"own_mean_early_{name}"] = quantity(
            known_mean(null), "definition layer", f"{here.long_name}, head's mean pattern", here.units
        )
    return variables


# -- the block of distributed attention --------------------------------------------------------------


def _block(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Where layers begin to rest on the first token, and where they leave it again at the end."""
    sums = passages.model_sums
    first, every, queries = (_known(_sum(sums, name)) for name in ("first token", "every", "queries"))
    above = np.stack([first[:, 0], queries[:, 0] - every[:, 2], first[:, 3]], axis=1)
    below = np.stack([queries[:, 0], queries[:, 0], every[:, 3]], axis=1)
    # What a learned sink takes is nobody's attention, and no sink token's either.
    above[:, 1] = np.maximum(above[:, 1] - (queries[:, 0] - every[:, 0]), 0)
    counts = resampled_counts(len(above), seed=settings.seed, resamples=settings.resamples)
    draws = known_mean(divide(np.tensordot(counts, above, axes=1), np.tensordot(counts, below, axes=1)))
    value = known_mean(ratio(above, below))
    shares = interval_of_draws(value, draws, units=len(above), level=settings.level)
    variables = interval_variables(
        "resting_share", shares, "sink_measure layer", "share of attention at rest, mean over heads"
    )
    ends = np.array([[crossings(row[~np.isnan(row)], t) for t in THRESHOLDS] for row in value])
    moved = np.array(
        [[[crossings(row[~np.isnan(row)], t) for t in THRESHOLDS] for row in draw] for draw in draws]
    )
    for place, (name, what) in enumerate(
        (
            ("block_end", "layer at which attention comes to rest"),
            ("block_return", "layer at which it leaves again"),
        )
    ):
        interval = interval_of_draws(
            ends[..., place], moved[..., place], units=len(above), level=settings.level
        )
        variables |= interval_variables(name, interval, "sink_measure threshold", what, "block")
    there = ratio(first[:, 0], queries[:, 0])
    resting = np.where(np.isnan(there), np.nan, there > settings.sink_share)
    variables["sink_heads"] = quantity(
        np.nansum(resting, axis=-1).astype(np.int64),
        "layer",
        f"heads with over {settings.sink_share:g} on the first token",
    )
    return variables


# -- random text read twice, and sentences -----------------------------------------------------------


def _with_repeats(result: xr.Dataset, repeats: xr.Dataset, settings: Settings) -> xr.Dataset:
    if not repeats.sizes.get("sample"):
        return result
    return result.assign(
        _of_texts(repeats.repeat_model_sums, repeats.repeat_uniform_sums, REPEATED, settings)
    )


def _with_sentences(result: xr.Dataset, sentences: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Attention along dependencies and by part of speech, documents being what is independent."""
    if not sentences.sizes.get("sentence"):
        return result
    sums = {
        source: _by_document(sentences[f"{source}_sentence_sums"], sentences.document.values)
        for source in ("model", "uniform", "corner", "own_mean")
    }
    variables = _of_texts(sums["model"], sums["uniform"], DEPENDENCIES, settings)
    for name, statistic in DEPENDENCIES.items():
        for source in ("corner", "own_mean"):
            null = ratio(*(_known(_sum(sums[source], part)) for part in (statistic.above, statistic.below)))
            early = f"early_{name}" if source == "corner" else f"own_mean_early_{name}"
            whose = "" if source == "corner" else ", head's mean pattern"
            variables[early] = quantity(
                known_mean(null),
                "definition layer",
                f"{statistic.long_name}, first {settings.mean_positions} tokens{whose}",
            )
    tags = [str(name) for name in sums["model"].sentence_sum.values if str(name) not in SENTENCE_SUMS]
    variables |= _by_tag(sums, tags, settings)
    return result.assign(variables).assign_coords(
        tag=text_coordinate([restored(tag).removeprefix("tag ") for tag in tags], "tag", "part of speech"),
        document=xr.Variable(("document",), sums["model"].document.values, {"long_name": "document"}),
    )


def _by_document(sums: xr.DataArray, documents: np.ndarray) -> xr.DataArray:
    """Sums over the sentences of each document."""
    names = sorted(set(documents.tolist()))
    values = np.stack([sums.values[documents == name].sum(axis=0, dtype=np.float64) for name in names])
    return xr.DataArray(
        values,
        dims=("document", *sums.dims[1:]),
        coords={"document": names, "sentence_sum": sums.sentence_sum.values},
    )


def _by_tag(sums: Mapping[str, xr.DataArray], tags: list[str], settings: Settings) -> dict[str, Any]:
    statistic = Statistic("", "", "share of attention by part of speech")

    def parts(source: str) -> tuple[np.ndarray, np.ndarray]:
        above = np.stack([_known(_sum(sums[source], tag)) for tag in tags], axis=1)
        every = _known(_sum(sums[source], "every"))[:, None]
        return above, np.broadcast_to(every, above.shape)

    variables = _by_layer_and_head("tag_share", *parts("model"), statistic, settings, dims=f"tag {_HEADED}")
    for source, whose in (
        ("uniform", "uniform attention"),
        ("own_mean", "head's mean pattern, first tokens"),
    ):
        variables[f"{source}_tag_share"] = quantity(
            known_mean(ratio(*parts(source))), "tag definition layer", f"{statistic.long_name}, {whose}"
        )
    return variables


# -- what must be said beside the numbers ------------------------------------------------------------


def _left_out(passages: xr.Dataset) -> xr.Variable:
    """Passages that do not reach the fixed queries take part in everything else."""
    reasons = np.where(passages.tokens.values < 2, stored("shorter than two tokens"), "")
    return quantity(reasons.astype(str), "passage", "why the passage is left out, or empty")


def _cautions(result: xr.Dataset, settings: Settings) -> list[str]:
    first, end = (int(value) for value in result.fixed_queries.values)
    reaching = int((result.tokens.values >= end).sum()) if first >= 0 else 0
    cautions = [
        f"Distances are read at queries {first} to {end - 1}, "
        f"which {reaching} of {result.sizes['passage']} passages have."
        if first >= 0
        else "Passages are too short for distances at fixed queries."
    ]
    if first >= 0 and first < settings.fixed_query:
        cautions[0] += f" Most passages are not longer than fixed_query = {settings.fixed_query}."
    unfound = [
        int(layer)
        for layer, source in zip(result.layer.values, result.value_source.values, strict=True)
        if source == "the value itself"
    ]
    if unfound:
        cautions.append(
            f"In layers {', '.join(map(str, unfound))} no output projection was found behind the heads: "
            "value norms are those of the values themselves."
        )
    without = [
        int(layer)
        for layer, source in zip(result.layer.values, result.value_source.values, strict=True)
        if not source
    ]
    if without:
        cautions.append(
            f"Layers {', '.join(map(str, without))} have no attention: they are gaps in every curve."
        )
    if "dependency_share" not in result:
        cautions.append("No treebank was read: nothing is said about syntax.")
    if "repeat_induction_share" not in result:
        cautions.append("No random text was read twice: induction is known on natural text only.")
    return cautions
