"""The load check: every model is tried before anything is measured on it.

A check that the whole laboratory rests on (finite weights, causality, equal batches) refuses the
model; any other refuses only the sites that need it, by name and with the reason.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from layerscope.models import verdicts
from layerscope.models.check_attention import arguments_are_understood, attention_is_ours_to_watch
from layerscope.models.check_blocks import (
    additions_close,
    replay_gives_the_logits,
    states_belong_to_tokens,
    states_can_be_put,
)
from layerscope.models.hooks import first_of
from layerscope.models.layered import LayeredModel
from layerscope.models.noting import failing_refuses, note, refusal
from layerscope.models.probe import Recorded, moved, probe_ids, record
from layerscope.models.rounding import close
from layerscope.models.sites import OF_THE_STREAM, THROUGH_ATTENTION
from layerscope.models.takes import keeps_last, takes_positions


@torch.no_grad()
def check_model(model: LayeredModel) -> None:
    """Try a freshly loaded model; fills its `checks`, `refused`, `additions` and `attention_modules`.

    What an earlier trial of the same weights found, on this device by this code, is taken as it was.

    Raises:
        LayerscopeError: a weight is NaN or infinite, the model is not causal, or rows of a batch
            influence each other.
    """
    if verdicts.recall(model):
        return
    _weights_are_finite(model)
    ids = probe_ids(model)
    recorded = record(model, ids)
    _is_causal(model, ids, recorded.logits)
    alone = torch.cat([model.logits(row[None]) for row in ids])
    _batches_agree(model, alone, recorded.logits)
    model.takes_positions = takes_positions(model.module, ids[:1], alone[:1])
    model.keeps_last = keeps_last(model.module, ids[:1], alone[:1])
    if states_belong_to_tokens(model, ids, recorded):
        with failing_refuses(model, "a state can be put in another's place", *OF_THE_STREAM, "branches"):
            states_can_be_put(model, ids, recorded)
        with failing_refuses(model, "layer-by-layer replay gives the model's own logits", "unembed"):
            replay_gives_the_logits(model, recorded)
        with failing_refuses(model, "what a layer adds is found", "attn_out", "mlp_out"):
            additions_close(model, recorded)
    with failing_refuses(model, "attention can be watched and edited", *THROUGH_ATTENTION):
        attention_is_ours_to_watch(model, ids, recorded.logits)
    with failing_refuses(model, "what layers are given beside the state can be cut to positions", "branches"):
        arguments_are_understood(model, ids)
    _device_agrees_with_cpu(model, recorded)
    verdicts.keep(model)


def _weights_are_finite(model: LayeredModel) -> None:
    # A sum is four times as fast as looking at every entry, and NaN or infinity survives it.
    suspects = [
        (n, p) for n, p in model.module.named_parameters() if not bool(p.sum(dtype=torch.float32).isfinite())
    ]
    broken = [name for name, p in suspects if not bool(p.isfinite().all())]
    if broken:
        raise refusal(
            model,
            "weights are not numbers",
            f"NaN or infinity in {', '.join(broken[:3])}{' ...' if len(broken) > 3 else ''}",
            "finite weights",
            "download or convert the checkpoint again",
        )
    note(model, "weights are finite", True, f"{model.facts.n_parameters:,} parameters")


def _is_causal(model: LayeredModel, ids: Tensor, logits: Tensor) -> None:
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.facts.vocabulary
    again = model.logits(changed)
    if not close(again[:, :-1], logits[:, :-1]):
        raise refusal(
            model,
            "this model looks ahead",
            f"{model.facts.architecture}: a later token changes earlier predictions (an encoder?)",
            "a decoder-only model, in which a token sees only what stands before it",
            "gpt2, EleutherAI/pythia-160m, or another decoder",
        )
    note(model, "causal", True, "changing the last token leaves earlier predictions alone")


def _batches_agree(model: LayeredModel, alone: Tensor, logits: Tensor) -> None:
    if not close(alone, logits):
        raise refusal(
            model,
            "rows of a batch influence each other",
            f"logits alone and in a batch differ by {float((alone - logits).abs().max()):.2g}",
            "the same logits",
            "--dtype float32",
        )
    note(model, "a batch of one equals a batch of many", True, "same logits")


def _device_agrees_with_cpu(model: LayeredModel, recorded: Recorded) -> None:
    if model.device.type == "cpu":
        return
    args, kwargs = moved(recorded.calls[0], "cpu")
    block = copy.deepcopy(model.blocks[0]).to("cpu")
    there = first_of(block(*args, **kwargs))
    holds = close(there, recorded.outputs[0].cpu())
    if not holds:
        raise refusal(
            model,
            "this device computes something else than the CPU",
            f"layer 0 differs by {float((there - recorded.outputs[0].cpu()).abs().max()):.2g}",
            "the same numbers up to rounding",
            "--device cpu",
        )
    note(model, "one layer on the device agrees with the CPU", True, str(model.device))
