"""At which depth are the pieces of a split word joined?

Three looks at words of several tokens, all over depth. Paired patching: two words that share their last
piece stand behind one prefix; the states of one word's pieces are put into the other's run, and the
recovery of the first word's next-token prediction is read. Early on it comes with the earlier pieces'
states, later with the last piece's: they cross where the word is joined. What attention and what the MLP
of each layer add at the last piece is put in likewise. Twins: words that are one token are written in two
pieces, and the last piece's state is compared with the single token's. Erasure: a probe is trained, on
other words, to decode from the last piece's state which piece came before.

Each has its control. Pairs with the same earlier pieces before another last piece, which make no word of
the list. The same last piece behind another word's first piece. The word before a word, decoded across the
blank instead of within a word.

Beware: putting in a state shows what is sufficient there, on a prediction that a short prefix hardly
supports. A forced split is a spelling that the model may never have met. That a probe does not decode the
earlier piece does not show that nothing of it is left. "Made up" means only: not in this list.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", multiply-tokenised words; Feucht et al. 2024,
"Token Erasure as a Footprint of Implicit Vocabulary Items"; Kaplan et al. 2024, "From Tokens to Words";
Busigin & Pinter 2026, paired patching of split words.
"""

from layerscope.contract import Stage
from layerscope.experiments.word_formation import items, measure
from layerscope.experiments.word_formation.claims import claims
from layerscope.experiments.word_formation.conclude import conclude, over_depth
from layerscope.experiments.word_formation.figures import draw
from layerscope.experiments.word_formation.settings import Settings

__all__ = ["HEADLINES", "PLACE", "STAGES", "TAKES", "Settings", "claims", "conclude", "draw", "over_depth"]

TAKES = {"words"}
HEADLINES = ("mean_crossing",)
PLACE = 4
STAGES = (
    Stage("design", items=items.one_design, measure=measure.design),
    Stage("pairs", items=items.pairs_items, measure=measure.pairs, expected=items.expected_pairs),
    Stage("twins", items=items.twins_items, measure=measure.twins, expected=items.expected_twins),
    Stage("erasure", items=items.erasure_items, measure=measure.erasure, expected=items.expected_erasures),
)
