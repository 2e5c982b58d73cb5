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

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.attention_patterns import items, measure
from layerscope.experiments.attention_patterns.claims import claims
from layerscope.experiments.attention_patterns.conclude import conclude, over_depth
from layerscope.experiments.attention_patterns.figures import draw
from layerscope.experiments.attention_patterns.measure.fixed_queries import means_at_fixed_queries
from layerscope.experiments.attention_patterns.measure.sentences import sums_of_sentences
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.results.schema import GROWS

__all__ = [
    "HEADLINES",
    "NEEDS",
    "PLACE",
    "STAGES",
    "TAKES",
    "Settings",
    "claims",
    "conclude",
    "draw",
    "over_depth",
]

TAKES = {"passages", "treebank"}
NEEDS = {"passages"}
HEADLINES = ("block_end",)
PLACE = 1
STAGES = (
    Stage("means", items=items.first_token_items, measure=measure.first_patterns, combine=sum_of_parts),
    Stage("fixed_means", items=items.fixed_mean_items, measure=means_at_fixed_queries, combine=sum_of_parts),
    Stage("passages", items=items.passage_items, measure=measure.sums_of_passages),
    Stage("sentences", items=items.sentence_items, measure=sums_of_sentences),
    Stage("repeats", items=items.repeat_items, measure=measure.sums_of_repeats, along=(*GROWS, "sample")),
)
