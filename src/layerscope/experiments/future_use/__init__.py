"""At which layers does a token's state serve its own prediction, and when later tokens'?

The state of one token at one depth is replaced, and everything behind it is computed anew. What follows is
read at the token's own prediction (the present) and at the predictions of the tokens behind it (the future):
the divergence of the next-token distribution from the model's own, and the log-probability of the actual
next token that is lost. The future share is the future's part of the two together, by depth; where it falls
below half for good, states begin to serve the present. After the last layer it is 0: nothing reads on.

What takes the state's place is the state of another text at the same position, so that it is one that the model
knows at that depth; or the mean state of the corpus, the state with noise in proportion to the corpus's
own spread, or the state that BOS and the last k tokens would have given, alone or behind another text. Beside
it stands a control: a random change of the same length.

Every target, sample and distance is kept. Averages and intervals are over passages; shares are compared with
the control's by sign-flip permutation over passages, corrected for all depths.

Beware: the future is counted over `horizon` later tokens only, and its share grows with them: the crossing is
shown for every horizon. A state that is replaced early is replaced in every later layer's reading too; what
is read at one layer alone, context_reading and attention_knockout tell. Corruption shows what states are used
for, not what they hold.

Source: the question is ours, after Nanda et al. 2023, "Fact Finding" part 5; states of another text as in
Ben-Artzy & Schwartz 2024, "Attend first, consolidate later".
"""

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.future_use import items, measure
from layerscope.experiments.future_use.claims import claims
from layerscope.experiments.future_use.conclude import conclude, over_depth
from layerscope.experiments.future_use.figures import draw
from layerscope.experiments.future_use.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"passages"}
HEADLINES = ("far_less_near", "half_gone")
PLACE = 3
STAGES = (
    Stage("spread", items=items.spread_items, measure=measure.sums_of_states, combine=sum_of_parts),
    Stage("effects", items=items.future_items, measure=measure.effects),
)
