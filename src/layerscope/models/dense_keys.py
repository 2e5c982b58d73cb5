"""The keys and values of an MLP that every token meets: what comes into its output projection, and its rows.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerscope.models.hooks import first_of


@dataclass(frozen=True)
class MlpKeys:
    """The keys of one block whose MLP serves every token.

    Attributes:
        name: the output projection's dotted name inside the block.
        projection: that module: keys' activations come in, values' sum goes out.
        n_keys: how many keys there are.
    """

    name: str
    projection: nn.Module
    n_keys: int

    def values(self, keys: Iterable[int]) -> Float[Tensor, "key width"]:
        """The value vectors of some keys: what the projection adds for an activation of 1, in float32."""
        wanted = torch.tensor(list(keys), dtype=torch.long)
        module = self.projection
        if type(module) is nn.Linear:
            linear = module.weight.detach()
            return linear[:, wanted.to(linear.device)].T.float()
        if type(module) is Conv1D:
            weight = cast(Tensor, module.weight).detach()
            return weight[wanted.to(weight.device)].float()
        return self._by_trying(wanted)

    @torch.no_grad()
    def _by_trying(self, wanted: Tensor) -> Tensor:
        # Packed weights have no rows to look at, but they can be asked.
        parameter = next(self.projection.parameters())
        dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
        asked = torch.zeros(len(wanted) + 1, self.n_keys, device=parameter.device, dtype=dtype)
        asked[torch.arange(len(wanted)), wanted] = 1.0
        answered = first_of(self.projection(asked)).float()
        return answered[:-1] - answered[-1]
