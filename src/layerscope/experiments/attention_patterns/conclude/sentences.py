"""Attention along dependencies and by part of speech, documents being what is independent."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, text_coordinate
from layerscope.experiments.attention_patterns.conclude.ratios import (
    DEPENDENCIES,
    Statistic,
    beside_nulls,
    by_layer_and_head,
    of_texts,
    over_heads,
    sum_of,
)
from layerscope.experiments.attention_patterns.measure.sentences import SENTENCE_SUMS
from layerscope.experiments.attention_patterns.measure.tables import CORNERS
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.results.escaping import restored

_BY_TAG = Statistic("", "", "share of attention by part of speech")


def syntax(sentences: xr.Dataset, settings: Settings) -> list[xr.Dataset]:
    """Shares along dependencies and by part of speech; nothing where no sentence was read."""
    if not sentences.sizes.get("sentence"):
        return []
    sums = {
        source: _by_document(sentences[f"{source}_sentence_sums"], sentences.document.values)
        for source in ("model", "uniform", *CORNERS)
    }
    over = Over(sums["model"].to_dataset(name="sums"), settings, rows="document")
    found = of_texts(over, sums["model"], sums["uniform"], DEPENDENCIES)
    for name, statistic in DEPENDENCIES.items():
        parts = {source: statistic.parts(sums[source]) for source in CORNERS}
        found += beside_nulls(over, name, parts, statistic)
    names = [str(name) for name in sums["model"].sentence_sum.values]
    tags = [name for name in names if name not in SENTENCE_SUMS]
    labels = {
        "tag": text_coordinate([restored(tag).removeprefix("tag ") for tag in tags], "tag", "part of speech"),
        "document": xr.Variable(("document",), over.names, {"long_name": "document"}),
    }
    return [*found, *_by_tag(sums, tags, over), xr.Dataset(coords=labels)]


def _by_document(sums: xr.DataArray, documents: np.ndarray) -> xr.DataArray:
    """Sums over the sentences of each document."""
    names = sorted(set(documents.tolist()))
    values = np.stack([sums.values[documents == name].sum(axis=0, dtype=np.float64) for name in names])
    coords = {name: sums[name].variable for name in sums.dims[1:] if name in sums.coords}
    return xr.DataArray(values, dims=("document", *sums.dims[1:]), coords={**coords, "document": names})


def _by_tag(sums: dict[str, xr.DataArray], tags: list[str], over: Over) -> list[xr.Dataset]:
    def parts(source: str) -> tuple[xr.DataArray, xr.DataArray]:
        own = sums[source]
        return xr.concat([sum_of(own, tag) for tag in tags], dim="tag"), sum_of(own, "every")

    null = f"{_BY_TAG.long_name}, uniform attention"
    return [
        *by_layer_and_head(over, "tag_share", *parts("model"), _BY_TAG),
        over_heads("uniform_tag_share", *parts("uniform"), over.unit, null),
        *beside_nulls(over, "tag_share", {source: parts(source) for source in CORNERS}, _BY_TAG),
    ]
