"""When does the answer appear, when is it settled, and which heads and MLPs write it?

At every depth the state is sent through the model's own final norm and unembedding, with its soft cap
and scale, as if the layers after it did not exist. Read off: the divergence from the final distribution,
and rank and probability of the answer. For prompts the answer is the one they state, read at the last
token; for passages it is the token that the model itself ends up preferring, read at some positions of
each. The answer first leads at the first depth where it has rank 1, and is settled at the depth from
which it keeps it. A tuned lens, where its folder is given, is read beside: it translates each state by
an affine map that was trained for that depth.

Direct logit attribution says who writes the answer of a prompt: what every layer's attention and MLP, and every
head, add to its logit through the model's own final norm (its scale as in the full pass) and unembedding. The
parts sum to the logit. They are compared with what the same parts give to the answer of another prompt of the
same category, by sign-flip permutation over prompts, corrected for all heads (or MLPs) and for categories. Depths
at which categories are settled are compared by permutation over prompts, Holm's correction over pairs.

Of a few prompts (`shown`) the six most probable tokens are kept at every depth of their last positions.

Nulls: the log-probability of another position's answer (for prompts, of another prompt's); and the
divergence from the average of the other positions' final distributions, which is what a lens would
reach that knows nothing of the token. Every token is kept; passages and prompts are independent.

Beware: what a lens cannot read at a depth may be there all the same, in a form that only later layers
can use; early depths of some families look like noise through the logit lens and not through a tuned
one. The last lens is the model itself, and a run in which it is not is refused. A direct effect leaves out what a
head does by way of later layers, and a head may write what a later one takes back.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, "Eliciting latent
predictions from transformers with the tuned lens"; Elhage et al. 2021, "A mathematical framework for transformer
circuits", and Wang et al. 2022 (direct logit attribution).
"""

from layerscope.contract import Stage
from layerscope.experiments.logit_lens import items, measure
from layerscope.experiments.logit_lens.claims import claims
from layerscope.experiments.logit_lens.claims.answer_path import tell
from layerscope.experiments.logit_lens.conclude import conclude, over_depth
from layerscope.experiments.logit_lens.figures import draw
from layerscope.experiments.logit_lens.measure.direct import direct
from layerscope.experiments.logit_lens.measure.shown import shown
from layerscope.experiments.logit_lens.settings import Settings

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
    "tell",
]

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()
HEADLINES = ("settled", "attention_less_mlps")
PLACE = 1
STAGES = (
    Stage("passages", items=items.passage_items, measure=measure.passages),
    Stage("prompts", items=items.prompt_items, measure=measure.prompts),
    Stage("direct", items=items.direct_items, measure=direct),
    Stage(
        "shown",
        items=items.shown_items,
        measure=shown,
        along=("shown_token",),
        expected=items.expected_shown,
    ),
)
