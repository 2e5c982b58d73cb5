"""At which layers does a token need to attend to which distances, or to the subject?

The attention of one token to a set of keys is cut, in one layer or a window of layers, and nothing else is
changed; what its prediction loses is read as the divergence of the next-token distribution from the model's
own, and as the log-probability of the actual next token (or of a prompt's answer). In passages the keys are
those within a range of distances, all those beyond one, or the first token; in prompts, where the last token
is cut, they are the subject, the other tokens, or the first token. The attention that lay on them is spread
over the other keys, sent to the first token, or kept on the heads' mean values: what all three agree on does
not depend on the choice. Each set is compared with keys drawn at random that hold as much attention in that
layer, and with the attention that was cut.

The primary index is the centroid of depth of the divergence, far less near, as in context_reading: above 0, far
context is needed in later layers than near context. The map of layers and sets is corrected as a whole, by
sign-flip permutation over passages or prompts. Every target,
draw and way of placing the removed attention is kept; averages are over passages.

Beware: one layer's reading can be made up for by another's, so single layers understate and windows overstate
(`windows`); cutting one token does not stop near tokens from relaying what they have read. A divergence is
above 0 whatever is cut, which is why random keys are cut too. The first token holds much attention and
little content: sent to it, attention is nearly removed.

Source: Geva et al. 2023, "Dissecting recall of factual associations", for cutting the last token from the subject
in windows; Nanda et al. 2023, "Fact Finding" part 5, and Linsefors' comments, for near and far. Where the
removed attention goes, the control and the index are ours.
"""

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.attention_knockout import items, measure
from layerscope.experiments.attention_knockout.claims import claims
from layerscope.experiments.attention_knockout.conclude import conclude, over_depth
from layerscope.experiments.attention_knockout.figures import draw
from layerscope.experiments.attention_knockout.measure.values import sums_of_values
from layerscope.experiments.attention_knockout.settings import Settings

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

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()
HEADLINES = ("far_less_near",)
PLACE = 2
STAGES = (
    Stage("values", items=items.value_items, measure=sums_of_values, combine=sum_of_parts),
    Stage("passages", items=items.passage_items, measure=measure.cut_passage),
    Stage("prompts", items=items.prompt_items, measure=measure.cut_prompts),
)
