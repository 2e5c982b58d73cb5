"""Model objects within wrappers, with blocks in odd places, in two threads, under inference mode."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layerscope as ls
import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.load import load_model
from quick import PROMPTS, QUICK

# What torch.compile and peft say of themselves on this torch and transformers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]
IDS = torch.tensor([[5, 9, 2, 31]])
ASKED = [{**prompt, "answer": ""} for prompt in PROMPTS]


def loaded(module: Any) -> Any:
    return load_model(module, tokenizer=zoo.tokenizer())


# -- layers ---------------------------------------------------------------------------------------


def test_one_layer_at_two_places_is_refused() -> None:
    model = zoo.make("llama")
    model.model.layers[2] = model.model.layers[1]

    with pytest.raises(LayerscopeError, match="3 modules at 4 places"):
        loaded(model)


def test_layers_that_run_in_another_order_are_refused() -> None:
    model = zoo.make("llama")
    layers = list(model.model.layers)
    layers[1].forward, layers[2].forward = (
        lambda *args, **kwargs: layers[2].__class__.forward(layers[2], *args, **kwargs),
        lambda *args, **kwargs: layers[1].__class__.forward(layers[1], *args, **kwargs),
    )
    assert loaded(model).n_layers == 4  # what a module computes is its own affair

    model = zoo.make("llama")
    inner = model.model
    run = type(inner).forward

    def backwards(*args: Any, **kwargs: Any) -> Any:
        inner.layers = nn.ModuleList(reversed(inner.layers))
        try:
            return run(inner, *args, **kwargs)
        finally:
            inner.layers = nn.ModuleList(reversed(inner.layers))

    inner.forward = backwards
    with pytest.raises(LayerscopeError, match="run in the order 3, 2, 1, 0"):
        loaded(model)


def test_a_vision_tower_that_outweighs_the_text_layers_is_not_taken_for_them() -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        vocab_size=zoo.VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, image_size=28
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision)).eval()

    found = loaded(model)

    assert "language_model" in found.structure.blocks_path
    torch.testing.assert_close(found.logits(IDS), model(IDS).logits)
    states = ls.read(found, "the red fox", sites=["resid_pre 0", "resid_post 2"])
    assert states.sizes["width"] == 32


@pytest.mark.parametrize("error", [TypeError, IndexError, AssertionError, RuntimeError, KeyError])
def test_whatever_a_model_raises_while_it_is_checked_refuses_it_by_name(error: type[Exception]) -> None:
    model = zoo.make("llama")
    model.config._name_or_path = "mine"
    layer = model.model.layers[1]
    forward, calls = layer.forward, []

    def fails_later(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise error("no more")
        return forward(*args, **kwargs)

    layer.forward = fails_later

    with pytest.raises(LayerscopeError, match=rf"mine fails while it is checked[\s\S]*{error.__name__}"):
        loaded(model)


# -- wrappers -------------------------------------------------------------------------------------


def test_a_compiled_model_is_unwrapped_and_traced() -> None:
    model = zoo.make("gpt2")
    found = loaded(torch.compile(model))

    assert found.module is model
    trace = ls.run("causal_trace", found, ASKED[:1], progress=False, **QUICK)
    assert np.isfinite(trace.restored_probability.values).any()


def test_parts_that_are_compiled_are_refused() -> None:
    for compile_part in (
        lambda model: model.compile(),
        lambda model: model.model.layers[1].compile(),
        lambda model: model.model.layers.__setitem__(2, torch.compile(model.model.layers[2])),
    ):
        model = zoo.make("llama")
        compile_part(model)
        with pytest.raises(LayerscopeError, match="compiled"):
            loaded(model)


def lora(model: Any, seed: int = 0) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config).eval()


def test_a_peft_model_is_unwrapped_with_its_adapter() -> None:
    plain = zoo.make("llama")
    before = plain(IDS).logits
    wrapped = lora(plain)
    found = loaded(wrapped)

    torch.testing.assert_close(found.logits(IDS), wrapped(IDS).logits)
    assert not torch.allclose(found.logits(IDS), before, atol=1e-3)
    # Its own signature names no positions; whether they are used is tried.
    assert found.takes_positions
    merged = loaded(lora(zoo.make("llama")).merge_and_unload())
    similarity = [
        ls.run("truncated_context", model, ["the red fox met the old dog in the town"], progress=False)
        for model in (found, merged)
    ]
    for name in similarity[0].data_vars:
        if similarity[0][name].dtype.kind == "f":
            np.testing.assert_allclose(similarity[0][name], similarity[1][name], atol=2e-4, err_msg=name)


def test_directions_of_weights_that_have_an_adapter_beside_them_are_refused() -> None:
    from layerscope.models.projections import find_projections

    with pytest.raises(LayerscopeError, match=r"adapter beside[\s\S]*q_proj"):
        find_projections(loaded(lora(zoo.make("llama"))), 0)
    assert find_projections(loaded(lora(zoo.make("llama")).merge_and_unload()), 0).missing == {}


def test_a_wrapper_that_adds_something_is_refused() -> None:
    peft = pytest.importorskip("peft")
    prompts = peft.get_peft_model(
        zoo.make("llama"), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    with pytest.raises(LayerscopeError, match="adds something of its own"):
        loaded(prompts)


@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.Sequential, lambda model: object()])
def test_any_other_wrapper_is_refused(wrap: Any) -> None:
    with pytest.raises(LayerscopeError, match="not a transformers model"):
        loaded(wrap(zoo.make("llama")))


def test_a_wrapper_that_hands_everything_on_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = self.inner(*args, **kwargs)
            output.logits = output.logits * 2
            return output

    with pytest.raises(LayerscopeError, match="not a transformers model"):
        loaded(Scaled(zoo.make("llama")))


# -- what a model takes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "takes"), [("gpt2", True), ("llama", True), ("opt", True), ("gptj", True), ("bloom", False)]
)
def test_whether_positions_are_used_is_tried(family: str, takes: bool) -> None:
    model = zoo.layered(family)
    assert model.takes_positions is takes
    assert model.keeps_last


def test_a_model_that_swallows_positions_does_not_take_them() -> None:
    model = zoo.make("llama")
    forward = model.forward

    def deaf(input_ids: Any = None, position_ids: Any = None, logits_to_keep: Any = None, **more: Any) -> Any:
        return forward(input_ids, **more)

    model.forward = deaf
    found = loaded(model)

    assert not found.takes_positions
    assert not found.keeps_last
    assert found.logits(IDS, last=True).shape[1] == 1
    with pytest.raises(LayerscopeError, match="takes no position ids"):
        ls.run("truncated_context", found, ["the red fox met"], positions="original", progress=False)


def test_a_model_whose_positions_have_no_effect_still_takes_them() -> None:
    model = zoo.make("gpt2")
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()

    assert loaded(model).takes_positions


# -- threads and modes ----------------------------------------------------------------------------


def assert_same_numbers(a: Any, b: Any) -> None:
    assert set(a.data_vars) == set(b.data_vars)
    assert sum(int(np.isfinite(a[name]).sum()) for name in a.data_vars if a[name].dtype.kind == "f") > 20
    for name in a.data_vars:
        if a[name].dtype.kind == "f":
            assert a[name].values.tobytes() == b[name].values.tobytes(), name


def test_two_threads_on_one_model_give_the_numbers_of_one() -> None:
    module = zoo.make("llama")
    models = [loaded(module), loaded(module)]  # two handles on one object
    asked = [(0, ASKED[0]), (1, ASKED[1])]

    def answer(which: int, prompt: Any) -> Any:
        return ls.run("causal_trace", models[which], [prompt], progress=False, **QUICK)

    alone = [answer(*question) for question in asked]
    together: list[list[Any]] = [[], []]

    def keep_asking(number: int) -> None:
        for _ in range(3):
            together[number].append(answer(*asked[number]))

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in (0, 1):
        assert len(together[number]) == 3
        for result in together[number]:
            assert_same_numbers(result, alone[number])


def test_a_second_thread_waits_until_the_model_is_let_go() -> None:
    model = zoo.layered("llama")
    order: list[str] = []

    def second() -> None:
        with model.in_use():
            order.append("second")

    twin = ls.untrained_twin(model)
    with twin.in_use(), model.in_use():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_screening_works_under_inference_mode(tiny: Any) -> None:
    def screened(model: Any) -> Any:
        return ls.run("causal_trace", model, ASKED[:1], screen=True, progress=False, **QUICK)

    outer = load_model(str(tiny))
    with torch.inference_mode():
        inside = screened(load_model(str(tiny)))
        given = screened(outer)
    outside = screened(load_model(str(tiny)))

    assert_same_numbers(inside, outside)
    assert_same_numbers(given, outside)


def test_weights_made_under_inference_mode_are_refused_by_name() -> None:
    with torch.inference_mode():
        model = zoo.make("llama")
        with pytest.raises(LayerscopeError, match="inference_mode"):
            loaded(model)
