"""Contributions against hooks set by hand on the bare transformers model."""

from typing import Any

import pytest
import torch

import zoo
from layerscope.runs import read_contributions, read_last_tokens, read_states

IDS = [0, 40, 77, 120, 33, 210, 55]
WRITERS = {  # modules whose outputs are added, and the factor on them
    "gpt2": ("attn", "mlp", 1.0),
    "llama": ("self_attn", "mlp", 1.0),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm", 1.0),
    "gpt_oss": ("self_attn", "mlp", 1.0),
    "granite": ("self_attn", "mlp", 0.5),
}


def by_hand(family: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the named modules of every block give, times the factor."""
    module: Any = zoo.make(family, flipped=True)
    attention, mlp, factor = WRITERS[family]
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    seen: dict[str, list[torch.Tensor]] = {attention: [], mlp: []}

    def keeper(name: str) -> Any:
        def keep(_: Any, __: Any, output: Any) -> None:
            seen[name].append((output[0] if isinstance(output, tuple) else output).squeeze(0) * factor)

        return keep

    for block in blocks:
        for name in seen:
            getattr(block, name).register_forward_hook(keeper(name))
    with torch.no_grad():
        module(torch.tensor([IDS]), use_cache=False)
    return seen[attention], seen[mlp]


@pytest.mark.parametrize("family", list(WRITERS))
def test_parts_equal_those_read_by_hand_and_sum_to_the_step(family: str) -> None:
    found = read_contributions(zoo.layered(family, flipped=True), IDS)

    attention, mlp = by_hand(family)
    torch.testing.assert_close(found.attention, torch.stack(attention), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mlp, torch.stack(mlp), rtol=1e-4, atol=1e-4)
    steps = found.states[1:] - found.states[:-1]
    torch.testing.assert_close(found.attention + found.mlp, steps, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral", "recurrent_gemma"])
def test_last_tokens_of_a_batch_are_those_of_each_text(family: str) -> None:
    model = zoo.layered(family)
    texts = [IDS, IDS[:1] + IDS[:0:-1], [0, 9, 8, 7, 6, 5, 4]]

    together = read_last_tokens(model, texts)

    for place, ids in enumerate(texts):
        alone = read_contributions(model, ids)
        torch.testing.assert_close(together.states[:, place], alone.states[:, -1], rtol=1e-3, atol=1e-4)
        for part in ("attention", "mlp"):
            torch.testing.assert_close(
                getattr(together, part)[:, place],
                getattr(alone, part)[:, -1],
                rtol=1e-3,
                atol=1e-4,
                equal_nan=True,
            )
        torch.testing.assert_close(alone.states, read_states(model, ids).float())
        torch.testing.assert_close(
            together.logits[place], model.logits(torch.tensor([ids]))[0, -1], rtol=1e-3, atol=1e-3
        )


def test_blocks_with_norms_behind_the_sum_have_no_parts() -> None:
    found = read_contributions(zoo.layered("opt", flipped=True), IDS)

    assert bool(found.attention.isnan().all())
    assert not bool(found.states.isnan().any())
