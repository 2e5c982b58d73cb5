"""Layerscope: what does each layer of a decoder-only language model do?

import layerscope as ls
model = ls.load_model("gpt2-xl")
prompts = ls.load_prompts("known_1000.json")
trace = ls.run("causal_trace", model, prompts, noise=0.5, samples=10)
ls.draw(trace)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from layerscope.first_use import imported_at_first_use

__version__ = "0.1.0"

if "torch" not in sys.modules:
    # Matrix products whose rounding does not depend on where in memory the operands happen to lie:
    # without it a resumed run could differ from an uninterrupted one in the last bit. Read once, when
    # torch loads its matrix library; at no visible cost in speed.
    os.environ.setdefault("MKL_CBWR", "AVX512,STRICT")

if TYPE_CHECKING:
    from layerscope.api import draw as draw
    from layerscope.api import open_run as open_run
    from layerscope.api import read as read
    from layerscope.api import report as report
    from layerscope.api import run as run
    from layerscope.api import show as show
    from layerscope.api import trace as trace
    from layerscope.atlas.compare import compare as compare
    from layerscope.atlas.layers import layers as layers
    from layerscope.atlas.reproduced import reproduce as reproduce
    from layerscope.errors import LayerscopeError as LayerscopeError
    from layerscope.experiments.causal_trace.measure.runs import metric as metric
    from layerscope.models.load import load_model as load_model
    from layerscope.models.untrained import untrained_twin as untrained_twin
    from layerscope.text.passages import load_passages as load_passages
    from layerscope.text.prompts import load_prompts as load_prompts

# Importing layerscope loads neither torch nor xarray; the first use of a name does.
__getattr__ = imported_at_first_use(__name__)


def __dir__() -> list[str]:
    return ["__version__", *__getattr__("__all__")]
