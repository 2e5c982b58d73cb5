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
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if "torch" not in sys.modules:
    # Matrix products whose rounding does not depend on where in memory the operands happen to lie:
    # without it a resumed run could differ from an uninterrupted one in the last bit. Read once, when
    # torch loads its matrix library; at no visible cost in speed.
    os.environ.setdefault("MKL_CBWR", "AVX512,STRICT")

if TYPE_CHECKING:
    from layerscope.errors import LayerscopeError
    from layerscope.experiments.causal_trace.measure.runs import metric
    from layerscope.jobs.python import draw, open_run, read, run, trace
    from layerscope.models.load import load_model
    from layerscope.models.untrained import untrained_twin
    from layerscope.text.passages import load_passages
    from layerscope.text.prompts import load_prompts

_PLACES = {
    "LayerscopeError": "layerscope.errors",
    "draw": "layerscope.jobs.python",
    "load_model": "layerscope.models.load",
    "load_passages": "layerscope.text.passages",
    "load_prompts": "layerscope.text.prompts",
    "metric": "layerscope.experiments.causal_trace.measure.runs",
    "open_run": "layerscope.jobs.python",
    "read": "layerscope.jobs.python",
    "run": "layerscope.jobs.python",
    "trace": "layerscope.jobs.python",
    "untrained_twin": "layerscope.models.untrained",
}

__all__ = [
    "LayerscopeError",
    "__version__",
    "draw",
    "load_model",
    "load_passages",
    "load_prompts",
    "metric",
    "open_run",
    "read",
    "run",
    "trace",
    "untrained_twin",
]


def __getattr__(name: str) -> Any:
    # Importing layerscope loads neither torch nor xarray; the first use of a name does.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'layerscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
