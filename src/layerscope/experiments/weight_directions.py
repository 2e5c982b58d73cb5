"""Do the main directions of OV, QK and MLP matrices mean something in the vocabulary?

Every head's OV matrix (W_V·W_O), its query-key form, and the MLP's matrices are decomposed into singular
directions on the side of the residual stream. What is read is held against the embedding, what is written
against the unembedding, and each direction is shown as the tokens at both of its ends. It counts as
coherent where the tokens of an end are more alike than those of 95 % of random directions and of directions
made of unrelated tokens: by the mean cosine of their vectors in the model's own embedding, less what all
embeddings share; by co-occurrence in texts; in another model's embedding; or by what a language model says.
Raters are first tried on directions made of known sets of tokens: one that does not see these is not used.
The rate is held against random directions, rotations inside the space that the same directions span, and
the same matrices of an untrained twin. Near-equal singular values are shown as subspaces. The most coherent
written directions are removed, and the change of their own tokens' logits compared with others as likely.

Beware: in its own embedding a model agrees with itself; only the other raters are independent of it. Random
directions show what the choosing of tokens alone gives, and rotations what a meaningful space gives whatever
basis is taken in it: only what exceeds both speaks for the singular directions. Coherence follows frequency.
Directions of one matrix are orthogonal, not independent, so errors of rates are a little too small.

Source: Millidge & Black 2022, "The singular value decompositions of transformer weight matrices are highly
interpretable", with johnswentworth's objection about close singular values; Dar et al. 2022 for QK as pairs.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from layerscope.contract import Claim, Earlier, Stage
from layerscope.experiments import (
    _weight_claims,
    _weight_depth,
    _weight_figures,
    _weight_pages,
    _weight_summaries,
)
from layerscope.experiments._language_rater import items_for_rater, measure_answers
from layerscope.experiments._weight_measuring import (
    GROWING,
    items_of_parts,
    items_of_twin,
    measure_part,
    measure_random,
    measure_twin,
    measure_vocabulary,
    one_item,
)
from layerscope.experiments._weight_power import measure_power
from layerscope.experiments._weight_removals import items_of_edits, measure_edit
from layerscope.experiments._weight_settings import Settings as Settings
from layerscope.experiments._weight_sinks import items_of_sinks, measure_sinks
from layerscope.results.pages import Page

TAKES: set[str] = set()

STAGES = (
    Stage("vocabulary", items=one_item("vocabulary", 1.0), measure=measure_vocabulary),
    Stage("random", items=one_item("random directions", 1.0), measure=measure_random),
    Stage("power", items=one_item("known token sets", 1.0), measure=measure_power),
    Stage("directions", items=items_of_parts, measure=measure_part, along=GROWING),
    Stage("untrained", items=items_of_twin, measure=measure_twin),
    Stage("sinks", items=items_of_sinks, measure=measure_sinks, along=("sink_text",)),
    Stage("edits", items=items_of_edits, measure=measure_edit, along=("edit",)),
    Stage("answers", items=items_for_rater, measure=measure_answers, along=("asked",)),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Rates by kind and layer with their controls, character, subspaces, removals, and every direction's tokens."""
    return _weight_summaries.concluded(stages, settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """How often directions mean something, whether that is more than their space does, and how it goes over depth."""
    return _weight_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The share of interpretable directions in each layer, all kinds together, beside that of random ones."""
    return _weight_depth.rate_over_layers(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Rates by kind, character over depth, gaps of spectra, removals."""
    return _weight_figures.draw(result)


def read(result: xr.Dataset) -> dict[str, Page]:
    """The tokens at both ends of the leading directions, a page for each layer."""
    return _weight_pages.pages(result)
