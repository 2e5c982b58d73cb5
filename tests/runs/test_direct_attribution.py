"""Direct logit attribution against a plain loop over the bare model's own norm, output projections and unembedding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from layerscope import LayerscopeError
from layerscope.models.structure import map_logits
from layerscope.runs import direct_logits

IDS = [0, 40, 77, 120, 33, 210, 55]
OTHERS = [0, 9, 8, 7, 6, 5, 4]
TOKEN, HEADS = 17, 4
# family: final norm, unembedding; in a block: output projection, norm behind it, MLP, norm behind it
PARTS: dict[str, tuple[str, str, str, str, str, str]] = {
    "gpt2": ("transformer.ln_f", "lm_head", "attn.c_proj", "", "mlp", ""),
    "llama": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
    "gemma3_text": ("model.norm", "lm_head", "self_attn.o_proj", "post_attention_layernorm", "mlp",
                    "post_feedforward_layernorm"),
    "cohere": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
    "gpt_neox": ("gpt_neox.final_layer_norm", "lm_head", "attention.dense", "", "mlp", ""),
    "granite": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
    "gemma2": ("model.norm", "lm_head", "self_attn.o_proj", "post_attention_layernorm", "mlp",
               "post_feedforward_layernorm"),
    "olmo2": ("model.norm", "lm_head", "self_attn.o_proj", "post_attention_layernorm", "mlp",
              "post_feedforward_layernorm"),
    "phi": ("model.final_layernorm", "lm_head", "self_attn.dense", "", "mlp", ""),
    "gpt_oss": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
    "starcoder2": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
    "mixtral": ("model.norm", "lm_head", "self_attn.o_proj", "", "mlp", ""),
}  # fmt: skip
FAST = ("gpt2", "gemma3_text", "cohere", "granite")


def scale_of(norm: nn.Module, vector: Tensor) -> Tensor:
    """What a norm divides a vector by, from its epsilon."""
    eps = next(getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name))
    centred = vector - vector.mean() if "LayerNorm" in type(norm).__name__ else vector
    return (centred.square().mean() + eps).sqrt()


def frozen(norm: nn.Module, vector: Tensor, whole: Tensor) -> Tensor:
    """The norm's own output for the vector alone, less its shift, at the scale of the whole state."""
    shift = getattr(norm, "bias", None)
    alone = norm(vector[None])[0] - (0 if shift is None else shift)
    return alone * scale_of(norm, vector) / scale_of(norm, whole)


@torch.no_grad()
def by_hand(family: str, *, flipped: bool) -> dict[str, Any]:
    """Every part of one token's logit, one after another, from hooks on the bare model."""
    module: Any = zoo.make(family, flipped=flipped)
    final, unembedding, projection, after_attention, mlp, after_mlp = PARTS[family]
    factor = getattr(module.config, "residual_multiplier", 1.0)
    norm, head = module.get_submodule(final), module.get_submodule(unembedding)
    blocks = next(m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) == 4)
    seen: dict[Any, Tensor] = {}
    hooks = []

    def keep_input(name: Any, where: nn.Module) -> None:
        def keep(_: Any, args: Any, kwargs: Any) -> None:
            seen[name] = (args[0] if args else kwargs["hidden_states"])[0, -1]

        hooks.append(where.register_forward_pre_hook(keep, with_kwargs=True))

    def keep_output(name: Any, where: nn.Module) -> None:
        def keep(_: Any, __: Any, out: Any) -> None:
            seen[name] = (out[0] if isinstance(out, tuple) else out).reshape(len(IDS), -1)[-1]

        hooks.append(where.register_forward_hook(keep))

    keep_input("first", blocks[0])
    keep_input("final", norm)
    for layer, block in enumerate(blocks):
        keep_input((layer, "heads"), block.get_submodule(projection))
        keep_output((layer, "mlp"), block.get_submodule(after_mlp or mlp))
    module(torch.tensor([IDS]), use_cache=False)
    for hook in hooks:
        hook.remove()
    steps = dict(zoo.layered(family, flipped=flipped).structure.logit_map)
    times = steps.get("multiply", 1.0) / steps.get("divide", 1.0)

    def part(vector: Tensor) -> float:
        return float(frozen(norm, vector, seen["final"]) @ head.weight[TOKEN]) * times

    heads = torch.empty(4, HEADS)
    for layer, block in enumerate(blocks):
        out, given = block.get_submodule(projection), seen[layer, "heads"]
        nothing = out(torch.zeros_like(given)[None])[0]
        whole = out(given[None])[0]
        for place in range(HEADS):
            alone = torch.zeros_like(given).reshape(HEADS, -1)
            alone[place] = given.reshape(HEADS, -1)[place]
            vector = out(alone.reshape(1, -1))[0] - nothing
            if after_attention:
                vector = frozen(block.get_submodule(after_attention), vector, whole)
            heads[layer, place] = part(vector * factor)
    return {
        "embedding": part(seen["first"]),
        "mlp": torch.tensor([part(seen[layer, "mlp"] * factor) for layer in range(4)]),
        "head": heads,
    }


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in PARTS]
)
def test_every_part_equals_a_plain_loop(family: str, flipped: bool) -> None:
    found = direct_logits(zoo.layered(family, flipped=flipped), [IDS, OTHERS], [[-1, TOKEN], [3, -1]])

    expected = by_hand(family, flipped=flipped)
    torch.testing.assert_close(found.head[0, 1], expected["head"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.mlp[0, 1], expected["mlp"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        found.embedding[0, 1], torch.tensor(expected["embedding"]), rtol=1e-3, atol=1e-5
    )


EVERY = [(family, flipped) for family in (*zoo.FAMILIES, *zoo.MORE_FAMILIES) for flipped in (False, True)]


@pytest.mark.parametrize(
    ("family", "flipped"),
    [pytest.param(*one, marks=[] if one[0] in FAST else [pytest.mark.slow]) for one in EVERY],
)
def test_parts_sum_to_the_model_s_logit_or_are_refused_by_name(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    if "attn_out" in model.refused:
        with pytest.raises(LayerscopeError, match="attn_out is not available"):
            direct_logits(model, [IDS], [[TOKEN]])
        return

    found = direct_logits(model, [IDS, OTHERS], [[-1, TOKEN], [3, -1]])

    logits = model.logits(torch.tensor([IDS, OTHERS]), last=True)[:, -1].float()
    cap = tuple(step for step in model.structure.logit_map if step[0] == "soft cap")
    wanted = [logits[0].max(), logits[0, TOKEN], logits[1, 3]]
    capped = map_logits(torch.stack([found.logit[0, 0], found.logit[0, 1], found.logit[1, 0]]), cap)
    torch.testing.assert_close(capped, torch.stack(wanted), rtol=1e-4, atol=1e-4)
    whole = found.embedding + found.bias + found.attention.nansum(-1) + found.mlp.nansum(-1)
    torch.testing.assert_close(whole[0], found.logit[0])
    known = ~found.head[0, 0, :, 0].isnan()
    by_head = (found.head.sum(-1) + found.attention_bias)[0, :, known]
    torch.testing.assert_close(by_head, found.attention[0, :, known], rtol=1e-3, atol=1e-5)
    attends = [module is not None for module in model.attention_modules]
    assert known.tolist() == attends or found.one_projection
    for values in (found.logit, found.embedding, found.bias, found.attention, found.mlp, found.head):
        assert bool(values[1, 1].isnan().all())


def test_parts_that_do_not_sum_to_the_logit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerscope.runs import direct_attribution

    right = direct_attribution.frozen_scale
    monkeypatch.setattr(direct_attribution, "frozen_scale", lambda *args, **how: right(*args, **how) * 1.1)

    with pytest.raises(LayerscopeError, match="parts whose sum differs from the logit by up to"):
        direct_logits(zoo.layered("gpt2"), [IDS], [[TOKEN]])
