"""Where does each head look: at the first token, how far, how widely, by content or by position, by syntax?

Every head's attention over passages is summed inside the attention function, one block of queries at a
time, and kept for each passage: the share on the first token, entropy and effective span (its exponential),
distance (its mean, and the mass at each distance at queries that stand equally deep in all texts), shares
on the token itself, the previous one, earlier copies of the token (duplicates) and what followed them
(induction). Induction is measured on random tokens read twice as well, where nothing else can help. How far
patterns depend on the words is their deviation from the head's mean pattern over texts, at the first
positions. On a treebank: the share on words that the word depends on or that depend on it, and by part of
speech.

Each number is a ratio of sums over all passages, w_ij being the attention that counts, under four
definitions: all keys; all but the first token; all but sink tokens (states over ten times as long as
their layer's median); and shares times the length of what the head writes if it takes that key alone,
‖(x_j W_V + b_V) W_O‖, which needs no threshold. Beside each stand the same number of attention that falls
on all visible keys alike, and, where content can matter, of the head's own mean pattern. A layer belongs to
the block of distributed attention while its heads give the first token less than a threshold; the layer
where the block ends, and where it returns at the end, are told for several thresholds.

Beware: attention is not influence, since a key's value may be short or cancel; the distance of a
head that rests on the first token says where it rests, not where it looks (compare the definitions); and
mean distance grows with the position of the query, so compare it at fixed queries only.

Source: Vig & Belinkov 2019, "Analyzing the structure of attention in a Transformer language model";
Kinniment 2022, "Recall and Regurgitation in GPT2", distributed attention; Kobayashi et al. 2020, "Attention
is not only a weight"; Olsson et al. 2022, "In-context learning and induction heads"; Gu et al. 2024, "When
attention sink emerges", for the share of 0.3.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from layerscope.contract import Claim, Earlier, Stage
from layerscope.evidence.curves import as_curve
from layerscope.experiments import (
    _attention_claims,
    _attention_figures,
    _attention_fixed,
    _attention_items,
    _attention_measuring,
    _attention_summary,
)
from layerscope.experiments._attention_settings import Settings as Settings
from layerscope.results.schema import GROWS

TAKES = {"passages", "treebank"}
NEEDS = {"passages"}

STAGES = (
    Stage(
        "means",
        items=_attention_items.first_token_items,
        measure=_attention_measuring.measure_first_tokens,
        combine=_attention_measuring.add_patterns,
    ),
    Stage(
        "fixed_means",
        items=_attention_fixed.fixed_mean_items,
        measure=_attention_fixed.measure_fixed_means,
        combine=_attention_fixed.add_columns,
    ),
    Stage("passages", items=_attention_items.passage_items, measure=_attention_measuring.measure_passages),
    Stage("sentences", items=_attention_items.sentence_items, measure=_attention_measuring.measure_sentences),
    Stage(
        "repeats",
        items=_attention_items.repeat_items,
        measure=_attention_measuring.measure_repeats,
        along=(*GROWS, "sample"),
    ),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Every statistic by head and by layer, its nulls, and the block of distributed attention."""
    return _attention_summary.conclude(stages, settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where the first token takes over, how far heads look, and which heads do one thing."""
    return _attention_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The first token's share of attention, beside that of uniform attention."""
    null = result.uniform_first_token_share.sel(definition="all keys", drop=True)
    whole = result.sel(definition="all keys", drop=True)
    return as_curve(whole, "first_token_share", null=null)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """First token, span, distance, content or position, syntax, and every head's own numbers."""
    return _attention_figures.draw(result)
