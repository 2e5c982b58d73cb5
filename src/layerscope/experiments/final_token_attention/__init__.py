"""What does the last token attend to, by prompt category: the first token, the subject, or itself?

Every prompt is read once, undisturbed. In each layer and head, the attention of the last token is kept for
every token; its share on the first token, on the tokens that a causal trace would corrupt, on itself and on
the rest is averaged over prompts of a category. The same is done for shares times the length of what the
head writes if it takes that key alone. Categories are compared head by head on the logarithm of the share,
as it is and over what uniform attention gives these tokens, labels dealt anew for whole prompts; a head counts
only if in both it exceeds the largest difference that any head, layer and row shows under chance, times the
number of pairs of categories. The peak is the layer in which heads on average give the corrupted tokens most.
Where the folder of a causal trace of the same prompts is given, it stands beside the crossover depth.

Prompts that the model gets wrong, or whose subject is the first or last token, are left out and listed.

Beware: categories may differ in length and in the distance from subject to end, and attention falls with
distance; attention is not influence; and a peak is no proof that the answer is read there, which is why
the trace stands beside it.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", final token attention; Westfall & Young 1993 for
the correction.
"""

from layerscope.contract import Stage
from layerscope.experiments.final_token_attention.claims import claims
from layerscope.experiments.final_token_attention.conclude import conclude, over_depth
from layerscope.experiments.final_token_attention.figures import draw
from layerscope.experiments.final_token_attention.items import prompts_items, trace_items
from layerscope.experiments.final_token_attention.measure import attention_of_last, saved_crossovers
from layerscope.experiments.final_token_attention.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"prompts"}
HEADLINES = ("mean_spike",)
PLACE = 2
STAGES = (
    Stage("trace", items=trace_items, measure=saved_crossovers),
    Stage("attention", items=prompts_items, measure=attention_of_last),
)
