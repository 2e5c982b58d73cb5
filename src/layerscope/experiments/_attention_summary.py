"""What attention patterns say once all sums are there: ratios by head and layer, nulls, and the block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments._attention_block import SINK_MEASURES, THRESHOLDS, block
from layerscope.experiments._attention_first_tokens import beside_nulls, content
from layerscope.experiments._attention_fixed import own_mean_distances
from layerscope.experiments._attention_measuring import CORNERS, SENTENCE_SUMS
from layerscope.experiments._attention_ratios import (
    DEPENDENCIES,
    HEADED,
    REPEATED,
    STATISTICS,
    Statistic,
    by_layer_and_head,
    of_texts,
    sum_of,
    zero_where_absent,
)
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.attention import DISTANCE_BINS, OFFSETS, bin_name
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts
from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio
from layerscope.results.escaping import restored, stored
from layerscope.results.schema import quantity, write_json

_ROUNDING = 1e-5


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """The whole result from the saved sums."""
    passages = stages["passages"]
    result = xr.Dataset(
        of_texts(passages.model_sums, passages.uniform_sums, STATISTICS, settings)
        | _distances(passages, settings)
        | own_mean_distances(passages)
        | content(passages, settings)
        | block(passages, settings),
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
            divide(sum_of(passages.model_sums, "first token"), sum_of(passages.model_sums, "every")),
            f"passage {HEADED}",
            "share of attention on the first token, by passage",
        ),
        value_source=passages.value_source.variable,
        fixed_texts=quantity(
            int(passages.get("fixed_texts", 0)), "", "texts that the mean pattern at fixed queries is of"
        ),
        fixed_queries=quantity(passages.fixed_queries.values, "end", "queries at which distances are read"),
        left_out_because=_left_out(passages),
    ).assign_coords(end=passages.end.variable)
    result = _with_repeats(result, stages["repeats"], settings)
    result = _with_sentences(result, stages["sentences"], settings)
    return write_json(result, cautions=_cautions(result, settings))


# -- distances at fixed queries ---------------------------------------------------------------------


def _distances(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Mass at each distance and in each bin, at queries that stand equally deep in all texts."""
    model, uniform = (_binned(_known_sums(passages[name])) for name in ("model_sums", "uniform_sums"))
    total, uniform_total = (
        zero_where_absent(sum_of(passages[name], "fixed")) for name in ("model_sums", "uniform_sums")
    )
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
    offsets = np.stack([sum_of(passages.model_sums, f"offset {offset}") for offset in range(OFFSETS)], axis=1)
    by_offset = ratio(zero_where_absent(offsets), np.broadcast_to(total[:, None], offsets.shape))
    return (
        interval_variables("bin_share", shares, dims, "share of attention by distance at fixed queries")
        | {"uniform_bin_share": quantity(null, dims, "share by distance at fixed queries, uniform attention")}
        | {"head_offset_share": quantity(by_offset, f"offset {HEADED}", "share of attention at one distance")}
        | _fixed_offset(zero_where_absent(offsets)[:, :, 0], total[:, 0], settings)
    )


def _known_sums(sums: xr.DataArray) -> xr.DataArray:
    return sums.copy(data=np.nan_to_num(sums.values.astype(np.float64)))


def _binned(sums: xr.DataArray) -> np.ndarray:
    """Mass in each distance bin at fixed queries [unit bin definition layer head]."""
    bins: list[np.ndarray] = []
    for first, last in DISTANCE_BINS:
        if last is None:
            bins.append(np.maximum(sum_of(sums, "fixed") - np.sum(bins, axis=0), 0))
        elif last < OFFSETS:
            near = [sum_of(sums, f"offset {offset}") for offset in range(first, last + 1)]
            bins.append(np.sum(near, axis=0))
        else:
            bins.append(sum_of(sums, f"distance from {first}"))
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


# -- random text read twice, and sentences -----------------------------------------------------------


def _with_repeats(result: xr.Dataset, repeats: xr.Dataset, settings: Settings) -> xr.Dataset:
    if not repeats.sizes.get("sample"):
        return result
    variables = of_texts(repeats.repeat_model_sums, repeats.repeat_uniform_sums, REPEATED, settings)
    for name, statistic in REPEATED.items():
        own = repeats.repeat_own_mean_sums
        null = ratio(*(zero_where_absent(sum_of(own, part)) for part in (statistic.above, statistic.below)))
        variables[f"own_mean_{name}"] = quantity(
            known_mean(null),
            "definition layer",
            f"{statistic.long_name}: the same places of text that is not",
            statistic.units,
        )
    return result.assign(variables)


def _with_sentences(result: xr.Dataset, sentences: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Attention along dependencies and by part of speech, documents being what is independent."""
    if not sentences.sizes.get("sentence"):
        return result
    sums = {
        source: _by_document(sentences[f"{source}_sentence_sums"], sentences.document.values)
        for source in ("model", "uniform", *CORNERS)
    }
    variables = of_texts(sums["model"], sums["uniform"], DEPENDENCIES, settings)
    for name, statistic in DEPENDENCIES.items():
        parts = {
            source: [
                zero_where_absent(sum_of(sums[source], part)) for part in (statistic.above, statistic.below)
            ]
            for source in CORNERS
        }
        variables |= beside_nulls(name, parts, statistic, "definition layer", settings)
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
        above = np.stack([zero_where_absent(sum_of(sums[source], tag)) for tag in tags], axis=1)
        every = zero_where_absent(sum_of(sums[source], "every"))[:, None]
        return above, np.broadcast_to(every, above.shape)

    variables = by_layer_and_head("tag_share", *parts("model"), statistic, settings, dims=f"tag {HEADED}")
    variables["uniform_tag_share"] = quantity(
        known_mean(ratio(*parts("uniform"))),
        "tag definition layer",
        f"{statistic.long_name}, uniform attention",
    )
    early = {source: parts(source) for source in CORNERS}
    return variables | beside_nulls("tag_share", early, statistic, "tag definition layer", settings)


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
