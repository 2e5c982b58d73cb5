"""The load check on every family, in default shape and with every switch flipped."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertLMHeadModel, PreTrainedModel

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models import check_attention, lengths
from layerscope.models.attention import Watch, watched
from layerscope.models.check import check_model
from layerscope.models.lengths import check_length
from layerscope.models.load import load_model
from layerscope.models.probe import probe_ids
from layerscope.models.rounding import close
from layerscope.models.sites import THROUGH_ATTENTION

EVERY_SHAPE = [(family, flipped) for family in zoo.FAMILIES for flipped in (False, True)]
POST_NORM = {("opt", True), ("bloom", True)}
OWN_ATTENTION = {"gptj", "bloom"}


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_each_family_allows_what_its_architecture_allows(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)

    expected = set(THROUGH_ATTENTION) if family in OWN_ATTENTION else set()
    if (family, flipped) in POST_NORM:
        expected |= {"attn_out", "mlp_out"}
    assert set(model.refused) == expected


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_random_weights_spread_the_logits(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)

    logits = model.logits(probe_ids(model))

    # A flat distribution would hide a wrong patch.
    assert logits.std(-1).min() > 0.02
    assert (logits[:, -1] - logits[:, 0]).abs().max() > 0.05


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_unembedding_the_last_state_gives_the_models_own_logits(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    ids = probe_ids(model)
    states = []
    handle = model.blocks[-1].register_forward_hook(
        lambda module, args, output: states.append(output[0] if isinstance(output, tuple) else output)
    )

    logits = model.logits(ids)
    handle.remove()

    torch.testing.assert_close(model.unembed(states[0]), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", sorted(set(zoo.FAMILIES) - OWN_ATTENTION))
def test_watching_attention_restores_the_callers_setting_to_the_bit(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    ids, before = probe_ids(model), model.module.config._attn_implementation
    logits = model.logits(ids)

    def fail_while_watching() -> None:
        with watched(model.module, {}):
            assert model.module.config._attn_implementation == "layerscope"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_watching()

    assert model.module.config._attn_implementation == before
    assert torch.equal(model.logits(ids), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_half_precision_finds_the_same_added_vectors(family: str, flipped: bool, dtype: torch.dtype) -> None:
    half = load_model(zoo.make(family, flipped=flipped).to(dtype), tokenizer=zoo.tokenizer())

    assert half.additions == zoo.layered(family, flipped=flipped).additions
    assert all(parameter.dtype == dtype for parameter in half.module.parameters())


def test_loading_leaves_no_hook_and_no_watch_behind() -> None:
    model = zoo.layered("gemma2", flipped=True)

    for module in model.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not [name for name in vars(module) if "layerscope" in name]


def test_nan_weights_are_refused_by_name() -> None:
    broken = zoo.make("llama")
    with torch.no_grad():
        broken.model.layers[2].mlp.up_proj.weight[3, 5] = float("nan")

    with pytest.raises(LayerscopeError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        load_model(broken, tokenizer=zoo.tokenizer())


def test_a_model_that_looks_ahead_is_refused() -> None:
    config = BertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    with pytest.raises(LayerscopeError, match="looks ahead"):
        load_model(BertLMHeadModel(config), tokenizer=zoo.tokenizer())


def test_a_wrong_attention_function_refuses_attention_sites_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from layerscope.models.attention import AttentionCall

    shares = AttentionCall.shares
    monkeypatch.setattr(AttentionCall, "shares", lambda call, scores: shares(call, scores * 1.1))
    model = zoo.layered("llama")

    assert set(model.refused) == set(THROUGH_ATTENTION)
    with pytest.raises(LayerscopeError, match="pattern is not available"):
        model.need("pattern")


def test_heads_that_write_nothing_anywhere_refuse_attention_sites() -> None:
    model = zoo.make("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()

    refused = load_model(model, tokenizer=zoo.tokenizer()).refused

    assert refused["pattern"] == "replacing the heads' outputs leaves the logits as they were"


def test_one_block_whose_heads_write_nothing_is_no_reason_to_refuse() -> None:
    model = zoo.make("gpt2")
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.zero_()

    assert load_model(model, tokenizer=zoo.tokenizer()).refused == {}


def test_an_unknown_logit_scale_refuses_the_lens_and_nothing_else() -> None:
    model = zoo.make("llama")
    head = model.lm_head
    model.lm_head = torch.nn.Identity()
    inner = model.forward

    def scaled(*args: object, **kwargs: object) -> object:
        output = inner(*args, **kwargs)
        output.logits = head(output.logits) * 1.5
        return output

    model.forward = scaled
    model.get_output_embeddings = lambda: head

    assert set(load_model(model, tokenizer=zoo.tokenizer()).refused) == {"unembed"}


def test_the_check_sees_a_block_that_differs_from_its_replay() -> None:
    model = zoo.layered("gpt2")
    calls = []

    def drift(module: torch.nn.Module, args: object, output: object) -> object:
        calls.append(1)
        return (
            output[0] * (1 + 0.1 * len(calls))
            if isinstance(output, tuple)
            else output * (1 + 0.1 * len(calls))
        )

    broken = copy.deepcopy(model.module)
    broken.transformer.h[1].register_forward_hook(drift)

    # Each call gives something else, so even causality cannot be trusted: the model is refused whole.
    with pytest.raises(LayerscopeError):
        load_model(broken, tokenizer=zoo.tokenizer())


def test_close_is_relative_to_the_largest_entry() -> None:
    a = torch.tensor([100.0, 1.0])

    assert close(a + torch.tensor([0.0, 0.01]), a)
    assert not close(a + torch.tensor([0.0, 0.1]), a)


def test_checking_twice_gives_the_same_verdicts() -> None:
    model = zoo.layered("granite", flipped=True)
    first, model.checks = model.checks, []

    check_model(model)

    assert model.checks == first


def test_in_half_precision_a_soft_cap_that_hardly_bends_the_logits_is_still_found() -> None:
    module = zoo.make("gemma2", flipped=True).bfloat16()
    module.config.final_logit_softcapping = 30.0  # Gemma 2's own

    model = load_model(module, tokenizer=zoo.tokenizer())

    assert model.structure.logit_map == (("soft cap", 30.0),)


@pytest.mark.parametrize(("apart", "refused"), [(1e-3, True), (1e-6, False)])
@pytest.mark.parametrize("at", [check_attention, lengths])
def test_attention_rows_that_do_not_sum_to_one_refuse_attention(
    at: ModuleType, apart: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched_wrongly(
        model: PreTrainedModel, watches: Mapping[nn.Module, Watch]
    ) -> AbstractContextManager[None]:
        def shown(watch: Watch) -> Watch:
            return lambda call: watch(replace(call, pattern=call.pattern * (1 + apart)))

        return watched(model, {module: shown(watch) for module, watch in watches.items()})

    monkeypatch.setattr(at, "watched", watched_wrongly)
    model = load_model(zoo.make("llama"), tokenizer=zoo.tokenizer())
    check_length(model, 20)

    assert set(model.refused) == (set(THROUGH_ATTENTION) if refused else set())
    assert not refused or "sum to 1 only within 0.001" in model.refused["pattern"]
