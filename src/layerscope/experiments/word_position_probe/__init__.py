"""Is the index of a word decodable beyond its absolute position?

Prompts are a fixed prefix and then random words of one to three tokens each, length first, so that the
absolute position of a word's last token gives its index only in part. For every depth, a logistic
regression is trained on frozen states to tell which word of the prompt a token ends, and tested on prompts
of other words. What a guesser could do that knew nothing but the position is computed exactly. The score
that counts is taken within cells of equal position, every index weighing alike: there whoever knows only
the position scores exactly nothing, and 1 is perfect.

Beside it stand the same probe on the first piece of each word, on boundaries that come in another order,
on the untrained twin, on counts of token types in the place of states, behind a prefix without a full stop,
from one prefix to the other, and for two further coordinates: the sentence of a paragraph, and the name
across templates that the probe has not seen.

Two causal steps. A word's state is moved to where states of the next or the previous index lie, and the
attention of its token, the probes at later depths and the prediction are read. And heads are taken out:
those that attend most to beginnings of words, and those that attend most to the anchor.

Beware: a probe that reads the index does not show that the model uses it; that is what the causal steps
are for, and a moved state is one that the model never met. Counts of types do well wherever beginnings of
words have tokens of their own: a state that is the sum of the embeddings so far would do as well, so the
score to look at is the one above these counts. Intervals are over test prompts, for one set of words and
one training of the probe, with all heads in place; p of a gain over a control is corrected for all depths (largest
t) and for controls (Holm).

Source: Nanda & Gurnee 2023, "Tiny Mech Interp Projects: Emergent Positional Embeddings of Words".
"""

from layerscope.contract import Stage
from layerscope.experiments.word_position_probe import items, measure
from layerscope.experiments.word_position_probe.claims import claims
from layerscope.experiments.word_position_probe.conclude import conclude, over_depth
from layerscope.experiments.word_position_probe.figures import draw
from layerscope.experiments.word_position_probe.items import sizes
from layerscope.experiments.word_position_probe.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"words"}
HEADLINES = ("score",)
PLACE = 3
STAGES = (
    Stage("design", items=items.one_design, measure=measure.design),
    Stage(
        "states",
        items=items.groups,
        measure=measure.read,
        along=("group",),
        expected=sizes.expected_groups,
        reads_ahead=True,
    ),
    Stage(
        "probe",
        items=items.main_items,
        measure=measure.main_probe,
        along=("depth",),
        expected=sizes.expected_main,
    ),
    Stage("scores", items=items.score_items, measure=measure.scores, expected=sizes.expected_scores),
    Stage("looks", items=items.looks_items, measure=measure.looks, expected=sizes.expected_looks),
    Stage(
        "without heads", items=items.heads_items, measure=measure.without_heads, expected=sizes.expected_heads
    ),
    Stage("directions", items=items.directions_item, measure=measure.directions_of),
    Stage("moves", items=items.moves_items, measure=measure.moves, expected=sizes.expected_moves),
)
