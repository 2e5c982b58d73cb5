"""How does the state move through depth: how long is it, how far does each layer move it, and does it turn?

For every token of every passage: the norm of the residual stream at each depth, the length of each
layer's step beside the state it starts from, the cosine between one step and the next, and the cosine
between the states before and after each layer; what attention and MLP make of each step, and whether
they write along the state or against it. For some tokens the cosine between the states at every two
depths, and over them centred kernel alignment. The growth rate is the slope of log norm over depth,
without its first and last step. With prompts, the same of the last token, by category.

Cosines are given as they are, with the mean state taken away, and without the massive dimensions: the
few entries that hold most of the squared norm. Every token is kept; averages leave out the first
positions, which are shown apart (the first token can be twenty times longer than any other), and treat
passages and prompts, not tokens, as independent. Lengths and their ratios are averaged as logarithms.
The first token is BOS where one is put in front. Categories of prompts are compared in every layer and
quantity by permutation of prompts, corrected for all of them and for all pairs.
Phases are stretches of layers that behave alike, found by change-point detection on all curves
together; they are claimed only where they describe the curves better than a smooth drift.

Beware: the state grows while steps keep their length, so the cosine between neighbouring depths rises
for that reason alone; read it beside the relative step. In a layer whose MLP reads after its attention,
both are compared with the state before the layer.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", hidden states; Heimersheim & Turner 2023,
"Residual stream norms grow exponentially over the forward pass"; Csordás et al. 2025, "Do language
models use their depth efficiently?"; Kornblith et al. 2019 (CKA); Sun et al. 2024, "Massive activations
in large language models".
"""

from layerscope.contract import Stage
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.hidden_states import items, measure
from layerscope.experiments.hidden_states.claims import claims
from layerscope.experiments.hidden_states.conclude import conclude, over_depth
from layerscope.experiments.hidden_states.figures import draw
from layerscope.experiments.hidden_states.settings import Settings
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

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()
HEADLINES = ("growth_rate",)
PLACE = 1
STAGES = (
    Stage("centre", items=items.centre_items, measure=measure.centre, combine=sum_of_parts),
    Stage("passages", items=items.passage_items, measure=measure.passages, along=(*GROWS, "sampled")),
    Stage("prompts", items=items.prompt_items, measure=measure.prompts, along=(*GROWS, "sampled")),
)
