"""What every stage of a trace keeps of its runs: two numbers a run, over tokens and depths that are named alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import (
    depth_coordinate,
    number_coordinate,
    prompt_token_coordinates,
    text_coordinate,
)
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.measure.tokens import token_class
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

KINDS = {"log_probability": ("log-probability of the answer", "nat"), "metric": ("metric", "1")}


def base_values(item: NoisedItem, settings: Settings, earlier: Earlier) -> np.ndarray:
    """What the run reads that patched runs leave, for every draw [sample 2], from the stage before."""
    measured = earlier["noised"]
    here = measured.isel(prompt=int(np.flatnonzero(measured.prompt.values == stored(item.prompt.name))[0]))
    name = "noised" if settings.direction == "restore" else "clean_answer"
    kinds = [f"{name}_log_probability", f"{name}_{'log_probability' if settings.of_answer else 'metric'}"]
    values = np.stack([np.broadcast_to(here[kind].values, item.slots) for kind in kinds], axis=-1)
    return values.astype(np.float32)


def of_kinds(values: np.ndarray, name: str, dims: str, what: str) -> dict[str, xr.Variable]:
    """Log-probability and metric of some runs, as variables."""
    return {
        f"{name}_{kind}": quantity(values[..., column], dims, f"{long_name} {what}", unit)
        for column, (kind, (long_name, unit)) in enumerate(KINDS.items())
    }


def kept(variables: dict[str, xr.Variable], settings: Settings, coords: dict[str, Any]) -> xr.Dataset:
    """Without the metric where it follows from the log-probability."""
    dropped = [name for name in variables if settings.of_answer and name.endswith("_metric")]
    return xr.Dataset({n: v for n, v in variables.items() if n not in dropped}, coords=coords)


def depths_of(model: LayeredModel) -> dict[str, xr.Variable]:
    """Depth, with both conventions: the block whose input it is, and the one whose output (−1, none)."""
    n_layers = model.n_layers
    inputs = [*range(n_layers), -1]
    return {
        "depth": depth_coordinate(n_layers),
        "input_of": number_coordinate(inputs, "depth", "block that this state is the input of (resid_pre)"),
        "output_of": number_coordinate(
            range(-1, n_layers), "depth", "block that this state is the output of (resid_post)"
        ),
    }


def tokens_of(item: NoisedItem, positions: Sequence[int], settings: Settings) -> dict[str, xr.Variable]:
    """Coordinates of some tokens of a prompt, with their part of it."""
    prompt = item.prompt
    coordinates = prompt_token_coordinates(prompt, positions, noised_positions(prompt, settings))
    classes = [token_class(prompt, position) for position in positions]
    return coordinates | {
        "token_class": text_coordinate(classes, "token", "part of the prompt that the token belongs to"),
        "final": xr.Variable(
            ("token",),
            np.array([position == prompt.last for position in positions]),
            {"long_name": "whether it is the last token"},
        ),
    }
