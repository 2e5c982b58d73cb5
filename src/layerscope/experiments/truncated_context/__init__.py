"""How well do the last k tokens preserve a state, for every k?

Every target token of a passage is read twice: with its whole context, and with BOS and its last k tokens
alone, itself counted. Their similarity is the cosine of the two states after the mean state of that depth
(over full runs of all passages) is removed from both; its square is the share of norm that the last k
tokens explain. One sweep gives every k up to `every` for all targets; a ladder of longer contexts is
climbed by some of them. The floor is the similarity that is left when another passage, equally long, stands
before the target token alone; the ceiling that of the full run with itself at moved positions.

Tokens are kept apart. Medians and quantile bands are over tokens, intervals over passages. Categories of
tokens are compared at matched positions where they stand in six passages or more, p by Holm's method over
categories, and drawn with and without tokens that act as sinks. Arrival curves show at
which depth what stands between two distances is felt; their half-rise says where. Names are read once more
behind a prefix ("Mr"), as the post did.

Beware: an input that is missing early is amplified by later work in place, so curves fall with depth, and
arrival curves rise, for that reason too; what is read where, context_reading tells apart. A cut context is
shorter, not only emptier: a delimiter that comes to stand first may become a sink, which the norms show.

Source: Nanda et al. 2023, "Fact Finding: do early layers specialise in local processing?" (part 5), with its
comments by Linsefors.
"""

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts, sum_of_states
from layerscope.experiments.truncated_context import items, measure
from layerscope.experiments.truncated_context.claims import claims
from layerscope.experiments.truncated_context.conclude import conclude, over_depth
from layerscope.experiments.truncated_context.figures import draw
from layerscope.experiments.truncated_context.measure.prefix import behind_prefix
from layerscope.experiments.truncated_context.pages import pages as read
from layerscope.experiments.truncated_context.settings import Settings

__all__ = [
    "HEADLINES",
    "PLACE",
    "STAGES",
    "TAKES",
    "Settings",
    "claims",
    "conclude",
    "draw",
    "over_depth",
    "read",
]

TAKES = {"passages"}
HEADLINES = ("early_less_middle", "half_rise_difference")
PLACE = 1
STAGES = (
    Stage("mean", items=items.whole_passages, measure=sum_of_states, combine=sum_of_parts),
    Stage("cut", items=items.cut_items, measure=measure.similarities),
    Stage("prefix", items=items.prefix_items, measure=behind_prefix, along=("name",)),
)
