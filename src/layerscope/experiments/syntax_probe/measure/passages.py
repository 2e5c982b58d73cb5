"""The stage of passages: their token ids, their labels, and since how many tokens each label is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import text_coordinate
from layerscope.experiments.syntax_probe.items.passages import PassageItem
from layerscope.experiments.syntax_probe.settings import Settings
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity, write_json

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def rows_of(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One passage's token ids and labels, and since how many tokens each label is given."""
    n = item.tokens
    if not item.kinds:
        return write_json(xr.Dataset(), not_asked=list(item.not_asked))
    since = np.stack([np.arange(n) - given if given >= 0 else np.full(n, -1) for given in item.given], axis=1)
    labels = np.array([[stored(label)] for label in item.labels], dtype=str)
    found = xr.Dataset(
        {
            "token_id": quantity(np.array(item.passage.tokens.ids[:n]), "token", "token id"),
            "since": quantity(since, "token label_kind", "tokens since the label was given"),
            "passage_tokens": quantity(np.array([n]), "passage", "tokens that are read"),
        },
        coords={
            "label_kind": text_coordinate(item.kinds, "label_kind", "which label"),
            "token_passage": text_coordinate([item.name] * n, "token", "passage of the token"),
            "passage": text_coordinate([item.name], "passage", "passage"),
            "passage_label": xr.Variable(
                ("label_kind", "passage"), labels, {"long_name": "label of the passage, or none"}
            ),
        },
    )
    return write_json(found, not_asked=list(item.not_asked))
