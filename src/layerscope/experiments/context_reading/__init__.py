"""Which layers read distant context directly, rather than relay, carry or amplify it?

Every target token is read with its whole context and with BOS and its last k tokens alone. In each layer the
difference of the two states grows, and its growth is split exactly into four: read directly (attention to keys
beyond the last k, in this layer), relayed (near keys and values that bring it because they had read far
before), amplified by its own attention (the target's own query, key and value being different) and changed by
MLPs. Only the first two bring distant context; the last two work on what is there.

Direct reading is also taken by distance: what attention adds when it may read one range of distances more.
The primary index is the centroid of its depth, far less near: above 0, far context is read in later layers
than near context; at 0, all distances are read in the same layers. Heights are shares of what the layer's
attention adds; intervals are over passages, p by flipping signs of passages.

Beware: a range is read directly also by heads that spread their attention over everything, as untrained ones
do; and a split of vectors says what a layer adds, not what the model uses.

Source: after Nanda et al. 2023, "Fact Finding" part 5, and the comments by Linsefors, who named the confound
that this split removes; the split is ours.
"""

from layerscope.contract import Stage
from layerscope.experiments.context_reading.claims import claims
from layerscope.experiments.context_reading.conclude import conclude, over_depth
from layerscope.experiments.context_reading.figures import draw
from layerscope.experiments.context_reading.items import reading_items
from layerscope.experiments.context_reading.measure import reading
from layerscope.experiments.context_reading.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"passages"}
HEADLINES = ("far_less_near",)
PLACE = 2
STAGES = (Stage("reading", items=reading_items, measure=reading),)
