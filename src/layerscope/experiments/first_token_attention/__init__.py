"""How does attention to the first token fall along a long text, and does it need that token to be BOS?

The longest passages are read three times: with BOS in front, with nothing in front, and with another token
in BOS's place, drawn from the passages. For every layer, head and position, the share of attention that
falls on the first token is kept. Averaged over heads and passages it is drawn against position, beside the
share of attention that falls on all tokens alike, 1 / (position + 1). Over the second half of the text it
is a number for each layer and head, and each way of reading is compared with the first one passage by
passage: a share that stays when BOS goes belongs to the position, one that goes with it to the token.

Beware: without BOS the first token is an ordinary word, and a model that always met BOS has never read a text
without it; the texts grow with position, so a share that falls like 1 / position is what no preference
looks like; and beyond the lengths that a model was trained on, anything may happen.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", attention along 800 tokens of novels; Xiao et al.
2023, "Efficient streaming language models with attention sinks".
"""

from layerscope.contract import Stage
from layerscope.experiments.first_token_attention.claims import claims
from layerscope.experiments.first_token_attention.conclude import conclude, over_depth
from layerscope.experiments.first_token_attention.figures import draw
from layerscope.experiments.first_token_attention.items import text_items
from layerscope.experiments.first_token_attention.measure import shares_on_first
from layerscope.experiments.first_token_attention.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"passages"}
HEADLINES = ("late_share",)
PLACE = 3
STAGES = (Stage("attention", items=text_items, measure=shares_on_first),)
