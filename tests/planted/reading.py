"""What the tests of planted models read out of them."""

import torch

from layerscope.models.layered import LayeredModel
from layerscope.models.sites import parse_site
from layerscope.runs.answers import answer_of
from layerscope.runs.reading import read_sites, read_states
from layerscope.text.tokens import encode


def ids_of(model: LayeredModel, text: str) -> tuple[int, ...]:
    """BOS and the text."""
    return encode(model.tokenizer, text, "auto").ids


def site(model: LayeredModel, text: str, name: str) -> torch.Tensor:
    wanted = parse_site(name, model.n_layers)
    return read_sites(model, ids_of(model, text), [wanted])[wanted]


def states(model: LayeredModel, text: str) -> torch.Tensor:
    return read_states(model, ids_of(model, text))


def says(model: LayeredModel, text: str) -> str:
    return model.tokenizer.decode([answer_of(model, ids_of(model, text), None).top])
