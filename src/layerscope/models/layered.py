"""A loaded model with its parts at hand."""

from __future__ import annotations

import hashlib
import json
import weakref
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.arguments import Axes
from layerscope.models.facts import ModelFacts
from layerscope.models.structure import Addition, Structure, map_logits
from layerscope.models.use import in_use
from layerscope.models.wide_linear import apply_in_blocks

_NO_ARITHMETIC = {
    "_name_or_path",
    "transformers_version",
    "_commit_hash",
    "architectures",
    "torch_dtype",
    "dtype",
}


class LayeredModel:
    """A decoder as transformers runs it, and where its layers are.

    Attributes:
        module: the transformers model, unchanged.
        tokenizer: its tokenizer.
        facts: shape and identity, as plain values.
        structure: blocks, and what follows them.
        additions: per block, how to read the vectors that it adds; None where it adds none.
        attention_modules: per block, the module that calls the attention function; None where
            there is none (recurrent blocks) or where the family does not use it.
        refused: what cannot be read or edited on this model, with the reason, by site.
        checks: what the load check found, in order.
        takes_positions: whether it uses position ids; some families count positions themselves.
        keeps_last: whether it can be asked for the last token's logits alone.
        axes: per block, along which axis its arguments follow the positions; nothing where that is not known.
        checked_to: length of the longest text that the model was tried at beyond the load check, in tokens.
        branches_to: length of the longest text that branches were tried at.
        prefixes_to: length up to which a text's beginning is read as it is alone; None where no limit was found.
        halvings: bounds on tokens of a pass that memory forced, in the order in which it did.
        trained: of an untrained twin, the trained model while that is in memory.
    """

    def __init__(self, module: Any, tokenizer: Any, facts: ModelFacts, structure: Structure) -> None:
        self.module, self.tokenizer, self.facts, self.structure = module, tokenizer, facts, structure
        self.additions: tuple[Addition | None, ...] = (None,) * facts.n_layers
        self.attention_modules: tuple[nn.Module | None, ...] = (None,) * facts.n_layers
        self.refused: dict[str, str] = {}
        self.checks: list[dict[str, Any]] = []
        self.takes_positions: bool = False
        self.keeps_last: bool = False
        self.axes: tuple[Axes, ...] = ()
        self.checked_to: int = 0
        self.prefixes_to: int | None = None
        self.branches_to: int = 0
        self._digest: tuple[str, str] | None = None
        self.halvings: list[int] = []
        self.trained: weakref.ref[LayeredModel] | None = None

    def __repr__(self) -> str:
        facts = self.facts
        return (
            f"LayeredModel({facts.name}: {facts.architecture}, {facts.n_layers} layers, width {facts.width}, "
            f"{facts.dtype} on {facts.device})"
        )

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks in order."""
        return self.structure.blocks

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.facts.n_layers

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return next(self.module.parameters()).device

    def in_use(self) -> AbstractContextManager[None]:
        """Hold the model: one run at a time, other threads wait."""
        return in_use(self.module)

    @torch.no_grad()
    def logits(
        self,
        ids: Int[Tensor, "batch token"],
        *,
        positions: Int[Tensor, "batch token"] | None = None,
        last: bool = False,
    ) -> Float[Tensor, "batch kept vocabulary"]:
        """One whole forward pass by the model's own code, without cache.

        Args:
            ids: token ids, all rows equally long (nothing is ever padded).
            positions: position ids other than 0, 1, 2, ...
            last: compute logits at the last token only.
        """
        if any(module.training for module in self.module.modules()):
            self.module.eval()  # a caller may have trained it since
        ids = ids.to(self.device)
        # Explicit, because transformers takes jumping positions without a mask for packed sequences
        # and silently cuts the row.
        kwargs: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
        if positions is not None:
            kwargs["position_ids"] = positions.to(self.device)
        if last and self.keeps_last:
            kwargs["logits_to_keep"] = 1
        logits: Tensor = self.module(ids, **kwargs).logits
        return logits[:, -1:] if last else logits

    @torch.no_grad()
    def unembed(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits from states after the last block: final norm, projections, unembedding, soft cap and scale.

        Raises:
            LayerscopeError: the load check could not rebuild this model's own logits in this way.
        """
        self.need("unembed")
        for module in self.structure.after:
            states = apply_in_blocks(module, states)
        return map_logits(states, self.structure.logit_map)

    def need(self, site: str) -> None:
        """Refuse, by name and with the reason, what this model does not allow.

        Raises:
            LayerscopeError: the load check found that `site` cannot be trusted here.
        """
        if site in self.refused:
            works = [check["name"] for check in self.checks if check["holds"]]
            raise LayerscopeError(
                f"{site} is not available on {self.facts.name}",
                found=self.refused[site],
                expected=f"a model that allows {site}",
                hint=f"what works here: {', '.join(works) or 'whole forward passes'}",
            )

    def config_digest(self) -> str:
        """sha256 over the configuration, without paths and versions, and over the attention function in use."""
        return configuration_digest(self.module)

    def weights_digest(self) -> str:
        """sha256 over names, shapes, dtypes and bytes of all weights and buffers, as they are now.

        Known as long as no tensor has moved, been edited in place, or changed its sum: hashing takes seconds.
        """
        fingerprint = self.fingerprint()
        if self._digest is None or self._digest[0] != fingerprint:
            self._digest = (fingerprint, self._hashed_weights())
        return self._digest[1]

    def take_digest(self, digest: str) -> None:
        """Take what `weights_digest` said of the very same weights before."""
        self._digest = (self.fingerprint(), digest)

    def fingerprint(self) -> str:
        """What changes when a tensor is moved, edited in place, or given another sum (as by `weight.data.mul_`)."""
        sums = self.sums()
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return repr([(name, p.data_ptr(), p._version, sums[name]) for name, p in named])

    def sums(self) -> dict[str, float]:
        """The sum of every weight and buffer, by name."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: float(p.detach().sum(dtype=torch.float32)) for name, p in named}

    def _hashed_weights(self) -> str:
        summary = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            summary.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            summary.update(flat.view(torch.uint8).numpy().data)
        return summary.hexdigest()


def configuration_digest(module: Any) -> str:
    """sha256 over a transformers model's configuration, as `LayeredModel.config_digest` says."""
    config = module.config
    values = {name: value for name, value in config.to_dict().items() if name not in _NO_ARITHMETIC}
    values["attention function"] = config._attn_implementation
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
