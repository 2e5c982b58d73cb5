"""What breaks when a layer is skipped, repeated or swapped, or when its attention or MLP adds only its mean?

Each passage is run as it is; then, for every layer, again without it, with it twice, with it and the next
one in reverse order, with what its attention (or its MLP) adds replaced by the mean of that over a corpus;
and with the layer skipped for the earlier tokens only, read at the later ones: what of the layer's work do
later tokens use? (On request it is repeated or swapped for the earlier ones only as well.) Read off at every
token: the divergence of the ablated distribution from the model's own, whether the most probable token stays,
and how much the loss on the text's own next token rises.

The null is a push of the same length: the layer's step is kept, and a vector as long as that step is added,
which takes as much of the state's own direction away as skipping does and else points anywhere: the state is
left as long and as far turned. A skipped layer that does more harm than that has written something in
particular. Every token is kept; averages are over passages, by category of token; layers are compared with the
null by a permutation test that is corrected for all layers.

Beware: skipping takes the model off the states that it was trained on, and later layers may repair the
damage; a layer that can be skipped may have a twin. Steps of neighbouring tokens go together and random pushes
do not, so fresh weights are told from the null as well: its size decides, beside the untrained twin's. A mean
over a corpus still holds what is common to all texts. Layers keep their own positions and windows when they
are swapped.

Source: Lad et al. 2024, "The remarkable robustness of LLMs: stages of inference?"; Csordás et al. 2025, "Do
language models use their depth efficiently?", skipping a layer for earlier tokens.
"""

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.layer_ablation import items, measure
from layerscope.experiments.layer_ablation.claims import claims
from layerscope.experiments.layer_ablation.conclude import conclude, over_depth
from layerscope.experiments.layer_ablation.figures import draw
from layerscope.experiments.layer_ablation.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"passages"}
HEADLINES = ("mean_kl",)
PLACE = 2
STAGES = (
    Stage("mean", items=items.mean_items, measure=measure.mean, combine=sum_of_parts),
    Stage("ablations", items=items.ablated_items, measure=measure.ablations),
)
