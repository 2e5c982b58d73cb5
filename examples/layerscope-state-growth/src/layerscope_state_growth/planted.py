"""Models whose states grow at a known rate. `layerscope selftest` runs the experiment on them.

An effect that Layerscope plants nowhere is written by hand, with `Canvas` of `layerscope.planted`.
"""

from functools import partial

from layerscope.planted import Answer, Trial
from layerscope.planted.growing import growing, passages

TRIALS = (
    Trial(
        experiment="state_growth",
        plants="the residual stream grows by 5% per layer, single words by 5% ± 2%",
        model=lambda rate: growing(rate=rate),
        opposite=lambda: growing(rate=-0.05),
        answers=(
            Answer(
                "growth",
                float,  # what is expected is the strength itself
                tolerance=0.005,
                nothing=0.0,
                p="growth_p_adjusted",
                says="grows",
                opposite="shrinks",
            ),
        ),
        texts=partial(dict, passages=passages()),
        strengths=(0.05, 0.01, 0.005),
        strength_is="growth per layer; 12 passages of 24 words",
    ),
)
