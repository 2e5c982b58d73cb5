"""Muon: momentum whose matrices are made orthogonal before each step, so that no direction is left behind.

Method: K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024); the
coefficients of the iteration are theirs. How many steps it saves on this world was not measured. For
matrices of the blocks only: embeddings, gains and biases are left to AdamW.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, columns] with singular values brought near to one; in bfloat16, which is exact enough."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Queries, keys and values of one GPT-2 matrix are three matrices and are stepped as such.

    `lr` is the mean size (root mean square) of a step's entries, as AdamW's is, roughly.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                ahead = weight.grad + group["momentum"] * state["momentum"]
                for part, direction in zip(_parts(weight), _parts(ahead), strict=True):
                    alike[part.shape].append((part, direction))
            for shape, pairs in alike.items():
                steps = orthogonal(torch.stack([direction for _, direction in pairs]))
                for (part, _), step in zip(pairs, steps, strict=True):
                    part.mul_(1 - group["lr"] * group["weight_decay"])
                    part.add_(step, alpha=-group["lr"] * max(shape) ** 0.5)


def _parts(matrix: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One matrix as it is, or the three of attention that GPT-2 keeps side by side (views, not copies)."""
    rows, columns = matrix.shape
    return matrix.split(rows, dim=1) if columns == 3 * rows else (matrix,)
