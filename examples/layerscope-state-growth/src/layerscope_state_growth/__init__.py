"""How fast does the residual stream grow with depth?

For every token, the norm of the residual stream at each depth; the growth rate is the slope of log norm over
depth, without the first and the last step, and is said as growth per layer. The first token is left out. Intervals
are over passages, p by flipping signs of whole passages. A rate near zero: layers rotate the state more than they
add to it.

Beware: the first token's state can be twenty times longer than any other.

Source: Heimersheim & Turner 2023, "Residual stream norms grow exponentially over the forward pass".
"""

from layerscope.contract import Stage
from layerscope_state_growth.claims import claims
from layerscope_state_growth.conclude import conclude, over_depth
from layerscope_state_growth.figures import draw
from layerscope_state_growth.items import one_per_passage
from layerscope_state_growth.measure import lengths
from layerscope_state_growth.settings import Settings

__all__ = ["HEADLINES", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"passages"}
HEADLINES = ("growth",)
STAGES = (Stage("lengths", items=one_per_passage, measure=lengths),)
