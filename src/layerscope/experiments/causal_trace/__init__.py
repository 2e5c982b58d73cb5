"""Which states carry the subject's information to the answer, and at which depth does the last token take over?

The subject's tokens are corrupted by noise (or replaced by another subject's), so that the model loses the
answer. Then, for every token and every depth, the clean state is restored there alone, and the answer is
read again: recovery is 0 where that changes nothing and 1 where it brings the clean value back. Early
in depth the corrupted tokens' own states recover the answer; later, the last token's. The crossover depth is
where the last token's recovery passes the corrupted tokens' for the last time. Where several tokens are
corrupted, they are restored together, so that their recovery starts at 1 for every prompt.

If asked for, the same is done with what attention and MLPs add, over a window of layers; with a token's MLPs
or attention severed, which tells whether a state works through them; with single heads; with each token of
the subject corrupted alone; at several noise levels; and in the other direction, corrupted states in the
clean run. A screen by gradients can be laid beside it, and what it misses measured. Everything is run
as branches, computed only where it can differ.

Every draw is kept. Draws are averaged before the ratio, prompts last, with bootstrap intervals
over prompts. Prompts that the model gets wrong are left out and listed, and so are prompts on which
corruption changes too little for a ratio to mean anything. Categories are compared by permutation over prompts,
corrected for all pairs (and depths, where each depth is compared); matched pairs by flipping signs pair by pair; a
regression with the subject's distance and the answer's log-odds held fixed is by least squares with HC3 errors, its
terms corrected by Holm's method.

Beware: noise takes the model off the text that it was trained on; a restored state that recovers the
answer is sufficient in this setting, which does not make it the place where a fact is stored (Hase et
al. 2023); probability hides states that speak against the answer (Zhang & Nanda 2023); and windows
of several layers show higher peaks than their layers one by one.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2"; Meng et al. 2022, "Locating and Editing
Factual Associations in GPT", section 2 and appendix B.
"""

from layerscope.contract import Stage
from layerscope.experiments.causal_trace import items, measure
from layerscope.experiments.causal_trace.claims import claims
from layerscope.experiments.causal_trace.conclude import conclude, over_depth
from layerscope.experiments.causal_trace.figures import draw
from layerscope.experiments.causal_trace.items.kept import on_kept
from layerscope.experiments.causal_trace.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"prompts"}
HEADLINES = ("mean_transition", "difference")
PLACE = 1
STAGES = (
    Stage("clean", items=items.clean_items, measure=measure.clean),
    on_kept("pilot", items.pilot_items, measure.pilot),
    on_kept("noised", items.noised_items, measure.noised),
    on_kept("trace", items.trace_items, measure.trace),
    on_kept("outputs", items.output_items, measure.outputs, along="output_token"),
    on_kept("severed", items.severed_items, measure.severed, along="severed_token"),
    on_kept("heads", items.head_items, measure.heads, along="head_token"),
    on_kept("one by one", items.one_by_one_items, measure.one_by_one, along="subject_token"),
    on_kept("doses", items.dose_items, measure.doses),
    on_kept("screen", items.screen_items, measure.screen, along="screened"),
)
