"""Translators of a tuned lens, read from a folder as the tuned-lens package writes it.

The folder holds `config.json` (d_model, num_hidden_layers) and the translators' weights: `params.pt`, or
`params.safetensors` with the same names, "0.weight" [width width] and "0.bias" [width] for depth 0 and so
on. There is a translator for every depth but the last, and what it gives is added to the state before
the final norm. A `.pt` file is read as tensors alone: whatever else it may hold is refused, never run.

Source: Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens", and the
documentation of its package.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.errors import LayerscopeError


@dataclass(frozen=True, eq=False)
class TunedLens:
    """One affine translator per depth.

    Attributes:
        weights: [depth width width], for all depths but the last.
        biases: [depth width].
    """

    weights: Float[Tensor, "depth width width"]
    biases: Float[Tensor, "depth width"]

    def translate(self, depth: int, states: Float[Tensor, "token width"]) -> Float[Tensor, "token width"]:
        """h + W h + b."""
        weight, bias = self.weights[depth].to(states), self.biases[depth].to(states)
        return states + torch.nn.functional.linear(states, weight, bias)

    def translate_change(
        self, depth: int, changes: Float[Tensor, "token width"]
    ) -> Float[Tensor, "token width"]:
        """v + W v: by how much the translation of a state changes where v is added; the last depth has none."""
        if depth >= len(self.weights):
            return changes
        return changes + torch.nn.functional.linear(changes, self.weights[depth].to(changes))


def lens_digest(folder: str) -> str:
    """sha256 over the files that the lens is read from.

    Raises:
        LayerscopeError: the folder lacks one of them.
    """
    summary = hashlib.sha256()
    for path in _files(folder):
        summary.update(path.name.encode() + b"\0" + path.read_bytes())
    return summary.hexdigest()


def read_tuned_lens(folder: str, *, n_layers: int, width: int, digest: str | None = None) -> TunedLens:
    """The lens of a folder.

    Args:
        folder: as the tuned-lens package writes it.
        n_layers, width: of the model.
        digest: what `lens_digest` said when the run began; None to take the files as they are.

    Raises:
        LayerscopeError: files that are missing, have changed, or cannot be read safely, or a lens of another
            model.
    """
    now = lens_digest(folder)
    if digest not in (None, now):
        raise LayerscopeError(
            "the tuned lens has changed since this run began",
            found=folder,
            expected=f"the files with digest {str(digest)[:12]}",
            hint="the same files, or a new run",
        )
    return _read(str(Path(folder).expanduser()), now, n_layers, width)


@lru_cache(maxsize=1)
def _read(folder: str, digest: str, n_layers: int, width: int) -> TunedLens:
    config_file, weights_file = _files(folder)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        shape = int(config["num_hidden_layers"]), int(config["d_model"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(config_file, f"{type(error).__name__}: {error}") from error
    if shape != (n_layers, width):
        raise LayerscopeError(
            "this tuned lens belongs to another model",
            found=f"{shape[0]} layers of width {shape[1]} in {config_file}",
            expected=f"{n_layers} layers of width {width}",
            hint="the lens that was trained for this model",
        )
    tensors = _tensors(weights_file)
    try:
        weights = torch.stack([tensors[f"{depth}.weight"].float() for depth in range(n_layers)])
        no_bias = torch.zeros(width)
        biases = torch.stack([tensors.get(f"{depth}.bias", no_bias).float() for depth in range(n_layers)])
    except (KeyError, RuntimeError, AttributeError) as error:
        raise _unreadable(weights_file, f"{type(error).__name__}: {error}") from error
    if weights.shape[1:] != (width, width) or biases.shape[1:] != (width,):
        raise _unreadable(weights_file, f"translators of shape {tuple(weights.shape[1:])}")
    return TunedLens(weights, biases)


def _tensors(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _unreadable(file, (str(error).splitlines() or [type(error).__name__])[0]) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise _unreadable(file, str(error)) from error
    if not isinstance(found, dict):
        raise _unreadable(file, type(found).__name__)
    return found


def _files(folder: str) -> tuple[Path, Path]:
    place = Path(folder).expanduser()
    weights = next(
        (place / name for name in ("params.safetensors", "params.pt") if (place / name).is_file()), None
    )
    if weights is None or not (place / "config.json").is_file():
        there = sorted(path.name for path in place.iterdir())[:5] if place.is_dir() else []
        raise LayerscopeError(
            "there is no tuned lens in this folder",
            found=f"{folder}: {', '.join(there) or 'no files'}",
            expected="config.json, and params.safetensors or params.pt",
            hint="--set tuned=FOLDER, as the tuned-lens package saves a lens",
        )
    return place / "config.json", weights


def _unreadable(file: Path, found: str) -> LayerscopeError:
    return LayerscopeError(
        f"this tuned lens cannot be read: {file}",
        found=found,
        expected="tensors named 0.weight, 0.bias, 1.weight, ..., and nothing else",
        hint="a lens saved by the tuned-lens package, or the same tensors as params.safetensors",
    )
