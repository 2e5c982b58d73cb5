"""The untrained twin of a model: the same architecture, freshly initialised.

What is measured on the twin comes from the architecture, the tokens, their positions and random mixing, not
from training: it is the control that a measurement on the trained model must be held against. Any
experiment can be run on it, since it is a model like any other (`--untrained-twin`).
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.use import hold_together


def untrained_twin(model: LayeredModel, seed: int = 0) -> LayeredModel:
    """A model of the same configuration and tokenizer, with weights as its family initialises them.

    Drawn on the CPU in float32, whatever the model's device and dtype, so that a seed gives one twin
    everywhere; then moved. Global random state is left as it was. The twin passes the load check by
    itself; a site that the check refused on the model is refused on its twin too, so that both are
    measured alike.

    Args:
        model: the trained model; it is not touched.
        seed: seed of the weights.

    Returns:
        The twin: its name says what it is, and its facts keep the seed, so that a run on it can be
        resumed and replayed like one on the model.

    Raises:
        LayerscopeError: the model's class cannot be made from its configuration, or the load check
            refuses the twin as a whole.
    """
    module = _initialised(model, seed)
    hold_together(model.module, module)
    twin = load_model(module, tokenizer=model.tokenizer)
    twin.facts = twin.facts.model_copy(
        update={
            "name": f"{model.facts.name} untrained",
            "source": model.facts.source,
            "loadable": model.facts.loadable,
            "revision": model.facts.revision,
            "trust_remote_code": model.facts.trust_remote_code,
            "files": model.facts.files,
            "untrained": seed,
        }
    )
    twin.trained = weakref.ref(model)
    twin.refused = {
        site: f"{why} (on the trained model)" for site, why in model.refused.items()
    } | twin.refused
    return twin


def kept_twin(model: LayeredModel, seed: int = 0) -> LayeredModel:
    """The untrained twin, kept until another seed is asked for: pieces of work ask for it one after another.

    A twin follows from the configuration and the seed alone, so a kept one is as good as a new one.
    """
    kept = _KEPT.get(model)
    if kept is None or kept[0] != seed:
        kept = _KEPT[model] = (seed, untrained_twin(model, seed))
    return kept[1]


_KEPT: WeakKeyDictionary[LayeredModel, tuple[int, LayeredModel]] = WeakKeyDictionary()


def _initialised(model: LayeredModel, seed: int) -> Any:
    config = copy.deepcopy(model.module.config)
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config  # quantised weights are trained ones: the twin's are plain
    kind = type(model.module)
    try:
        with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]), _default_dtype(torch.float32):
            torch.manual_seed(seed)
            module = kind(config)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise LayerscopeError(
            "this model has no untrained twin",
            found=f"{kind.__name__}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="a transformers model that can be made from its configuration alone",
            hint="leave the untrained control out of the settings",
        ) from error
    module.config._attn_implementation = model.module.config._attn_implementation
    module.requires_grad_(False)
    return module.to(device=model.device, dtype=_dtype_of(model)).eval()


_ONE_AT_A_TIME = threading.Lock()
"""Two threads that draw weights from the one global generator would draw each other's."""


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _dtype_of(model: LayeredModel) -> torch.dtype:
    found: torch.dtype = getattr(torch, model.facts.dtype)
    return found if found.is_floating_point else torch.float32
