"""At which depth are part of speech and dependency decodable from a state, of this word and of the next?

For every depth, linear probes on frozen states, for coarse and fine part of speech and the relation to the
head, of the word that the state stands at and of the next one, on sentences of a treebank read one by one;
and for labels of whole documents (register, genre, language) on passages, by how much has been read since
the label was given. Words of any number of tokens are read at their last token, and at their first.

Each probe is a multinomial logistic regression, fitted to its optimum on some documents and tested on
others. Loss, accuracy and macro-F1 come with what they must be compared with: the word type alone,
and type with position; a control task, in which every word type has a label by chance, so that
accuracy less control (selectivity) does not come from memorising words; the same probes on an
untrained twin; and the length of an online code, which separates a label that lies open from one that takes
much data to find. Intervals are over test documents; p of the gain over the word type is adjusted for all depths
and tasks, p of a label's gain over its token for all depths and places.

Beware: what is decodable is not thereby used by the model. Depth 0 is the embedding: what is decodable there is
the token's own. Losses of tasks with different labels do not compare.

Source: Power 2020, "Looking for Grammar in all the Right Places" (frozen GPT-2, linear heads at every
depth, this and the next word); Hewitt & Liang 2019 (control tasks); Voita & Titov 2020 (online code).
"""

from layerscope.contract import Stage
from layerscope.experiments.syntax_probe import items, measure
from layerscope.experiments.syntax_probe.claims import claims
from layerscope.experiments.syntax_probe.conclude import conclude, over_depth
from layerscope.experiments.syntax_probe.figures import draw
from layerscope.experiments.syntax_probe.measure.labels import fit_labels
from layerscope.experiments.syntax_probe.measure.passages import rows_of
from layerscope.experiments.syntax_probe.settings import Settings

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

TAKES = {"treebank", "passages"}
NEEDS = {"treebank"}
HEADLINES = ("best_depth",)
PLACE = 2
STAGES = (
    Stage("words", items=items.sentences, measure=measure.words),
    Stage(
        "states",
        items=items.groups,
        measure=measure.states,
        along=("group",),
        expected=items.expected_groups,
        reads_ahead=True,
    ),
    Stage("fits", items=items.fits, measure=measure.fit, along=("fit",), expected=items.expected_fits),
    Stage("passages", items=items.passages, measure=rows_of),
    Stage(
        "labels",
        items=items.label_fits,
        measure=fit_labels,
        along=("fit",),
        expected=items.expected_label_fits,
    ),
)
