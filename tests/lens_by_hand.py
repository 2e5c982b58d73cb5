"""The logit lens written out: final norm, unembedding, soft cap and scale of bare models, by their parts' names."""

from typing import Any

import numpy as np
import torch

import zoo

IDS = [0, 40, 77, 120, 33, 210, 55, 90]
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_oss", "granite", "cohere", "recurrent_gemma"]


def logits_by_hand(family: str, ids: list[int], change: Any = None) -> np.ndarray:
    """[depth token vocabulary], from the bare model's own parts, by their names."""
    module: Any = zoo.make(family, flipped=True)
    inner = module.transformer if family == "gpt2" else module.model
    blocks = inner.h if family == "gpt2" else inner.layers
    norm = inner.ln_f if family == "gpt2" else getattr(inner, "final_norm", None) or inner.norm
    seen: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    blocks[-1].register_forward_hook(lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        module(torch.tensor([ids]), use_cache=False)
        states = [
            state if change is None or depth == len(blocks) else change(depth, state)
            for depth, state in enumerate(seen)
        ]
        logits = torch.cat([module.lm_head(norm(state)) for state in states])
    if family in ("gemma2", "recurrent_gemma"):
        logits = 3.0 * torch.tanh(logits / 3.0)
    return (logits * {"cohere": 2.5, "granite": 1 / 3.0}.get(family, 1.0)).numpy()
