"""Do the main directions of OV, QK and MLP matrices mean something in the vocabulary?

Every head's OV matrix (W_V·W_O), its query-key form, and the MLP's matrices are decomposed into singular
directions on the side of the residual stream. What is read is held against the embedding, what is written
against the unembedding, and each direction is shown as the tokens at both of its ends. It counts as
coherent where the tokens of an end are more alike than those of 95 % of random directions and of directions
made of unrelated tokens: by the mean cosine of their vectors in the model's own embedding, less what all
embeddings share; by co-occurrence in texts; in another model's embedding; or by what a language model says.
Raters are first tried on directions made of known sets of tokens: one that does not see these is not used.
The rate is held against random directions, rotations inside the space that the same directions span, and
the same matrices of an untrained twin. Near-equal singular values are shown as subspaces. The most coherent
written directions are removed, and the change of their own tokens' logits compared with others as likely.

Beware: in its own embedding a model agrees with itself; only the other raters are independent of it. Random
directions show what the choosing of tokens alone gives, and rotations what a meaningful space gives whatever
basis is taken in it: only what exceeds both speaks for the singular directions. Coherence follows frequency.
Directions of one matrix are orthogonal, not independent, so errors of rates are a little too small.

Source: Millidge & Black 2022, "The singular value decompositions of transformer weight matrices are highly
interpretable", with johnswentworth's objection about close singular values; Dar et al. 2022 for QK as pairs.
"""

from layerscope.contract import Stage
from layerscope.experiments.weight_directions import items, measure
from layerscope.experiments.weight_directions.claims import claims
from layerscope.experiments.weight_directions.conclude import conclude, over_depth
from layerscope.experiments.weight_directions.figures import draw
from layerscope.experiments.weight_directions.items.asking import items_for_rater
from layerscope.experiments.weight_directions.items.edits import expected_edits, items_of_edits
from layerscope.experiments.weight_directions.pages import pages as read
from layerscope.experiments.weight_directions.settings import Settings

__all__ = [
    "HEADLINES",
    "PLACE",
    "STAGES",
    "TAKES",
    "Settings",
    "claims",
    "conclude",
    "draw",
    "over_depth",
    "read",
]

TAKES: set[str] = set()
HEADLINES = ("whole_rate",)
PLACE = 2
STAGES = (
    Stage(
        "vocabulary",
        items=items.one_item("vocabulary", items.of_vocabulary),
        measure=measure.measure_vocabulary,
    ),
    Stage(
        "random", items=items.one_item("random directions", items.of_random), measure=measure.measure_random
    ),
    Stage("power", items=items.one_item("known token sets", items.of_sets), measure=measure.measure_power),
    Stage("directions", items=items.items_of_parts, measure=measure.measure_part, along=measure.GROWING),
    Stage("untrained", items=items.items_of_twin, measure=measure.measure_twin),
    Stage("sinks", items=items.items_of_sinks, measure=measure.measure_sinks, along=("sink_text",)),
    Stage(
        "edits", items=items_of_edits, measure=measure.measure_edit, along=("edit",), expected=expected_edits
    ),
    Stage("answers", items=items_for_rater, measure=measure.measure_answers, along=("asked",)),
)
