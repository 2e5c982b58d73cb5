"""Which contexts excite an MLP key, and how shallow is what they share?

Keys are drawn at random in every layer (or chosen), and the corpus is searched for the contexts that
excite each most, at both tails where there are two. What excites a key is what multiplies its row of
the MLP's output projection: in gated MLPs the product of gate and up. Contexts that end alike count
once. Then, instead of people's judgement, measured shallowness: how often two of a key's contexts end in
the same token, two tokens, three tokens; how alike they are otherwise (cosine of their rare tokens,
pairs from one passage left out); how much of the activation is left when the last token is replaced, or
everything before the last 1, 2, 5, 20 tokens, by the text of another passage; the radius of a key is the
fewest last tokens that carry 80 % of its activation. Then the values: is the token that a key's value
raises most the one that follows, more often than its frequency would make it; how does the value rank
the next token among tokens of like frequency. And the sum: how many keys are active, and how often does
a layer's output say what no single active value says.

Every context, with its tokens and activations, is kept, for reading and for annotation by people
(`layerscope annotate`). Keys, not contexts, are independent: intervals are over keys, nulls are random
contexts of the same corpus. Layers are compared with these by permutation over keys, Holm's correction over layers;
halves of the model by permutation of keys between them, Holm's correction over five such comparisons.

Beware: contexts are the highest of many, so their activations fall back when anything is touched; read
what is kept beside what replacing everything leaves. Replacements are made in a window of the last
tokens, moved to the front of a text: what the window alone keeps is shown. Likeness of rare tokens is
likeness of subject, not of meaning. A value read by the unembedding passes no later layer.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories": 10 random keys of
each layer, top 25 contexts, token removal, value agreement, composition; Gurnee et al. 2023, "Finding
Neurons in a Haystack".
"""

from layerscope.contract import Stage
from layerscope.experiments.trigger_examples import items, measure
from layerscope.experiments.trigger_examples.claims import claims
from layerscope.experiments.trigger_examples.conclude import conclude, over_depth
from layerscope.experiments.trigger_examples.figures import draw
from layerscope.experiments.trigger_examples.items.contexts import context_items, expected_contexts
from layerscope.experiments.trigger_examples.pages import pages as read
from layerscope.experiments.trigger_examples.pages.annotations import judged, sheet
from layerscope.experiments.trigger_examples.settings import Settings

__all__ = [
    "HEADLINES",
    "PLACE",
    "STAGES",
    "TAKES",
    "Settings",
    "claims",
    "conclude",
    "draw",
    "judged",
    "over_depth",
    "read",
    "sheet",
]

TAKES = {"passages"}
HEADLINES = ("all_shared_last_token", "all_kept_without_last")
PLACE = 1
STAGES = (
    Stage("values", items=items.layers, measure=measure.measure_values, along=("layer",)),
    Stage("census", items=items.census_passages, measure=measure.measure_census, combine=measure.fold_census),
    Stage(
        "search",
        items=items.search_items,
        measure=measure.measure_search,
        combine=measure.fold_search,
        expected=items.expected_search,
    ),
    Stage(
        "contexts",
        items=context_items,
        measure=measure.measure_contexts,
        along=("context",),
        expected=expected_contexts,
    ),
    Stage("topics", items=items.topic_items, measure=measure.measure_topics),
)
