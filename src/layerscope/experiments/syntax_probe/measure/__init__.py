"""What syntax_probe keeps: words, lengths of states, every probe's loss and answer about every tested word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence.probing import GroupItem, model_of, read_group
from layerscope.experiments.syntax_probe.items import FitItem, design
from layerscope.experiments.syntax_probe.items.sentences import SentencesItem
from layerscope.experiments.syntax_probe.measure.fitting import fit_depth
from layerscope.experiments.syntax_probe.measure.words import words_of
from layerscope.experiments.syntax_probe.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def words(model: LayeredModel, item: SentencesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Everything about some sentences that a probe can be asked, and their token ids."""
    return words_of(item, final_punctuation=settings.final_punctuation, subtypes=settings.subtypes)


def states(model: LayeredModel, item: GroupItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Read some sentences into the cache of states."""
    which = model_of(model, item.weights, settings.seed)
    return read_group(which, item, design(earlier, settings).tokens)


def fit(model: LayeredModel, item: FitItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Fit all tasks at one depth of the model, or of its untrained twin."""
    which = model_of(model, item.weights, settings.seed)
    return fit_depth(which, item, design(earlier, settings), settings)
