"""Families that break what others have in common: right against the model's own pass, or refused by name."""

import pytest
import torch
from torch import Tensor, nn

import layerscope as ls
import zoo
from families import configurations
from layerscope import LayerscopeError
from layerscope.models.arguments import NotUnderstoodError, along, at_positions, axes_of
from layerscope.models.attention import AttentionCall, attend, replaced
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.projections import find_projections
from layerscope.models.sites import OF_THE_STREAM, THROUGH_ATTENTION
from layerscope.runs.attention_questions import asked_of
from layerscope.runs.attention_statistics import attention_sums
from layerscope.runs.edits import Branch, Cut, Put
from layerscope.runs.patching import run_patched
from layerscope.runs.reading import read_states
from layerscope.runs.recordings import BaseRun
from layerscope.runs.value_lengths import ValueLengths
from layerscope.runs.windows import full_run, read_truncated


def text(tokens: int, *, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(2, zoo.VOCABULARY, (tokens - 1,), generator=generator).tolist()]


def probabilities(model: LayeredModel, branches: list[Branch], ids: list[int], **how: bool) -> Tensor:
    return run_patched(
        model,
        branches,
        base=BaseRun.of(ids),
        other=BaseRun.of(text(len(ids), seed=1)),
        read=lambda said, _: said.logits().float().softmax(-1),
        **how,
    )


def by_own_hooks(model: LayeredModel, ids: list[int], depth: int, token: int) -> Tensor:
    """A patched state by one hook on the model's own pass, under its own attention."""
    other = read_states(model, text(len(ids), seed=1))[depth, token]

    def put(_: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> object:
        stream = (args[0] if args else kwargs["hidden_states"]).clone()
        stream[0, token] = other
        return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

    handle = model.blocks[depth].register_forward_pre_hook(put, with_kwargs=True)
    try:
        return model.logits(torch.tensor([ids]))[0, -1].float().softmax(-1)
    finally:
        handle.remove()


@pytest.mark.parametrize("tokens", [9, 40])
@pytest.mark.parametrize("family", ["doge", "deepseek_v32", "beam"])
def test_patched_states_are_those_of_the_models_own_pass(family: str, tokens: int) -> None:
    model, ids = zoo.layered(family), text(tokens)
    places = [(depth, token) for depth in range(model.n_layers) for token in (1, tokens // 2, tokens - 2)]

    found = probabilities(model, [Branch((Put("state", (d,), (t,)),)) for d, t in places], ids)

    own = torch.stack([by_own_hooks(model, ids, depth, token) for depth, token in places])
    assert float((found[:, 0] - own).abs().max()) < 1e-5
    assert float((own.max(0).values - own.min(0).values).max()) > 1e-3  # the patches matter


def test_keys_chosen_by_an_indexer_refuse_attention_instead_of_being_dropped() -> None:
    model = zoo.layered("deepseek_v32")

    assert set(THROUGH_ATTENTION) <= set(model.refused)
    assert "hands over indices" in model.refused["pattern"]
    assert "indices" in model.refused["branches"] if "branches" in model.refused else True
    with pytest.raises(LayerscopeError, match="pattern is not available"):
        probabilities(model, [Branch((Cut((3,), (5,), (2,)),))], text(40))


def test_an_unknown_argument_is_never_dropped_whatever_its_value() -> None:
    from layerscope.models.attention import attention

    q = torch.randn(1, 2, 3, 4)
    same = attention(nn.Identity(), q, q, q, None, position_ids=torch.arange(3)[None], is_causal=True)[0]
    assert torch.equal(same, attention(nn.Identity(), q, q, q, None, unheard_of=None)[0])
    for unknown in (torch.ones(1), 0, False, "x"):
        with pytest.raises(LayerscopeError, match="hands over unheard_of"):
            attention(nn.Identity(), q, q, q, None, unheard_of=unknown)
    with pytest.raises(LayerscopeError, match="hands over dropout"):
        attention(nn.Identity(), q, q, q, None, dropout=0.1)


def cut_by_hand(model: LayeredModel, ids: list[int], layer: int, query: int, key: int) -> Tensor:
    """One edge cut by an own softmax over the scores of every head under its own mask."""

    def compute(call: AttentionCall) -> Tensor:
        heads = call.q.shape[1] // call.k.shape[1]
        k, v = (x.repeat_interleave(heads, dim=1) for x in (call.k, call.v))
        scores = call.q @ k.transpose(-1, -2) * call.scale + call.mask
        scores[:, :, query, key] = -torch.inf
        out: Tensor = scores.softmax(-1) @ v
        return out

    module = model.attention_modules[layer]
    assert module is not None
    with replaced(model.module, {module: compute}):
        return model.logits(torch.tensor([ids]))[0, -1].float().softmax(-1)


@pytest.mark.parametrize("flipped", [False, True], ids=["shared key-value heads", "a mask for every head"])
def test_masks_that_differ_by_head_and_content_are_taken_as_they_are(flipped: bool) -> None:
    model, ids = zoo.layered("doge", flipped=flipped), text(12)
    cuts = [(layer, query, key) for layer in (0, 2, 3) for query, key in ((11, 3), (9, 9), (11, 10))]

    found = probabilities(model, [Branch((Cut((la,), (q,), (k,)),)) for la, q, k in cuts], ids)

    by_hand = torch.stack([cut_by_hand(model, ids, *cut) for cut in cuts])
    assert float((found[:, 0] - by_hand).abs().max()) < 1e-5
    assert float((by_hand - by_hand[0]).abs().max()) > 1e-3
    assert "mask of the layer's own making" in model.refused["branches"]


@pytest.mark.parametrize("flipped", [False, True])
def test_attention_sums_see_every_heads_own_mask(flipped: bool) -> None:
    model = zoo.layered("doge", flipped=flipped)
    texts = [text(12), text(12, seed=3)]
    patterns: list[Tensor] = []

    def keep(call: AttentionCall) -> Tensor:
        seen = attend(call)
        patterns.append(seen.pattern)
        return seen.head_out

    with replaced(model.module, {m: keep for m in model.attention_modules if m is not None}):
        model.logits(torch.tensor(texts))
    sums = attention_sums(model, asked_of(texts), ValueLengths(model))

    every = torch.cat([pattern[:, :, 1:].sum((-1, -2)) for pattern in patterns], dim=1)
    previous = torch.cat([p.diagonal(-1, -2, -1).sum(-1) for p in patterns], dim=1)
    torch.testing.assert_close(sums.model["every"][0], every)
    torch.testing.assert_close(sums.model["previous token"][0], previous)
    alike = torch.cat([(p > 0) / (p > 0).sum(-1, keepdim=True) for p in patterns], dim=1)
    torch.testing.assert_close(sums.uniform["previous token"][0], alike.diagonal(-1, -2, -1).sum(-1))


def test_a_mask_of_the_layers_own_is_made_anew_for_a_truncated_context() -> None:
    model, ids = zoo.layered("doge"), text(24)
    wanted = [(20, 20), (20, 9), (12, 3)]
    found: dict[tuple[int, int], Tensor] = {}

    def see(depth: int, cells: object, states: Tensor) -> None:
        found.update({(depth, cell): state for cell, state in zip(cells.tolist(), states, strict=True)})

    read_truncated(model, full_run(model, ids), wanted, see, positions="shifted")

    for cell, (target, kept) in enumerate(wanted):
        alone = read_states(model, [0, *ids[target - kept + 1 : target + 1]])[:, -1]
        got = torch.stack([found[depth, cell] for depth in range(model.n_layers + 1)])
        torch.testing.assert_close(got, alone, rtol=2e-4, atol=2e-4)


def test_what_scales_queries_by_position_goes_along_in_branches() -> None:
    model, ids = zoo.layered("beam"), text(60)
    branches = [Branch((Put("state", (depth,), (token,)),)) for depth in range(4) for token in (3, 30, 58)]

    fast, whole = (probabilities(model, branches, ids, plain=plain) for plain in (False, True))

    assert "branches" not in model.refused
    assert any(axis == 2 for axes in model.axes for axis in axes.values())
    assert float((fast - whole).abs().max()) < 1e-5


def test_several_streams_are_refused_by_name() -> None:
    model = zoo.layered("gemma3n_text")

    assert {*OF_THE_STREAM, "unembed", "branches"} <= set(model.refused)
    assert "not one state for each token" in model.refused["resid_pre"]
    with pytest.raises(LayerscopeError, match="resid_pre is not available"):
        read_states(model, text(9))
    with pytest.raises(LayerscopeError, match="resid_pre is not available"):
        probabilities(model, [Branch((Put("state", (1,), (5,)),))], text(9))


def test_values_that_are_read_from_a_compressed_state_have_no_directions_in_it() -> None:
    found = find_projections(zoo.layered("deepseek_v32"), 1)

    assert found.heads is None
    assert "not from the state" in found.missing["attention"]


def test_arguments_are_cut_along_the_axis_that_grew_with_the_text() -> None:
    def call(tokens: int) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        square = torch.zeros(1, 1, tokens, tokens).masked_fill(
            torch.ones(tokens, tokens).triu(1).bool(), -1e9
        )
        return (torch.zeros(1, tokens, 4),), {
            "mask": square,
            "scale": torch.arange(tokens).float()[None, None, :, None],
            "turns": (torch.arange(tokens * 5.0).reshape(1, tokens, 5), None),
            "of_rows": torch.arange(2 * tokens).reshape(2, tokens),
            "places": torch.arange(tokens),
            "always": torch.ones(1, 5, 5),
            "use_cache": False,
        }

    whole, mask = call(5), call(5)[1]["mask"]
    axes = axes_of(whole, call(4), mask, tokens=(5, 4))
    assert axes == {("mask",): None, ("scale",): 2, ("turns", 0): 1, ("of_rows",): 1, ("places",): 0}

    _, packed = at_positions(whole, axes, along(torch.tensor([4, 1, 1]), torch.tensor([0, 1, 0])))
    assert packed["mask"] is None
    assert packed["scale"].flatten().tolist() == [4, 1, 1]
    assert packed["turns"][0][0, :, 0].tolist() == [20, 5, 5]
    assert packed["of_rows"].tolist() == [[4, 6, 1]]
    assert packed["places"].tolist() == [4, 1, 1]
    assert packed["always"].shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        (lambda n: torch.zeros(1, 2, n, n), "a tensor"),
        (lambda n: torch.full((3,), float(n)), "a tensor"),
        (lambda n: object(), "an? object|a object"),
        (lambda n: n, "a int"),
    ],
)
def test_arguments_that_follow_positions_in_no_known_way_are_not_understood(
    unknown: object, said: str
) -> None:
    calls = [((torch.zeros(1, n, 4),), {"bias": unknown(n)}) for n in (5, 4)]

    with pytest.raises(NotUnderstoodError, match=f"argument bias, ({said})"):
        axes_of(*calls, None, tokens=(5, 4))


def test_a_length_that_decides_what_its_beginning_means_is_found_and_refused() -> None:
    model = zoo.layered("phi3_longrope")  # other frequencies once a text has more than 16 tokens

    assert full_run(model, text(16)).states.shape[1] == 16
    with pytest.raises(
        LayerscopeError, match="the length of a text changes what its beginning means"
    ) as refused:
        full_run(model, text(40))
    assert "from 17 tokens on" in str(refused.value)
    assert "--longest 16" in str(refused.value)
    assert read_states(model, text(40)).shape[1] == 40  # whole texts are read as ever


def test_texts_within_the_length_are_compared_with_their_own_beginnings() -> None:
    model, ids = zoo.layered("phi3_longrope"), text(16)
    found: dict[tuple[int, int], Tensor] = {}

    def see(depth: int, cells: object, states: Tensor) -> None:
        found.update({(depth, cell): state for cell, state in zip(cells.tolist(), states, strict=True)})

    whole = full_run(model, ids)
    read_truncated(model, whole, [(12, 12), (15, 15)], see)

    for depth in range(model.n_layers + 1):
        torch.testing.assert_close(found[depth, 0], whole.states[depth, 12], rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(found[depth, 1], whole.states[depth, 15], rtol=2e-4, atol=2e-4)


def test_frequencies_that_grow_with_every_longer_text_refuse_the_model_at_that_length() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    module = zoo.make("llama", over={"max_position_embeddings": 16, "rope_parameters": rope})
    model = load_model(module, tokenizer=zoo.tokenizer())
    model.facts = model.facts.model_copy(update={"context": 64})

    with pytest.raises(LayerscopeError, match="depends on what was read before"):
        full_run(model, text(40))
    torch.testing.assert_close(
        full_run(model, text(12)).states, read_states(model, text(12)), rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize("rope", ["llama3", "yarn", "linear"])
def test_frequencies_scaled_alike_at_every_length_are_no_reason_to_refuse(rope: str) -> None:
    scaled = {"rope_type": rope, "factor": 4.0, "rope_theta": 100.0, "original_max_position_embeddings": 16}
    if rope == "llama3":
        scaled |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model = load_model(zoo.make("llama", over={"rope_parameters": scaled}), tokenizer=zoo.tokenizer())

    assert full_run(model, text(40)).states.shape[1] == 40
    assert model.prefixes_to is None


def test_states_that_cannot_be_put_back_are_refused_by_name() -> None:
    """Reformer's layers hand on two streams in an object of their own."""
    model = load_model(configurations.build("reformer"), tokenizer=zoo.tokenizer())

    assert {"resid_pre", "resid_post", "branches"} <= set(model.refused)
    with pytest.raises(LayerscopeError, match="attn_output"):
        ls.read(model, "the red fox", sites=["resid_pre 1"])


def test_a_block_that_knows_the_state_it_made_refuses_the_stream() -> None:
    """What is put in a state's place, were it equal to the last bit, is then not what the next block reads."""
    module = zoo.make("gpt2")
    first, second = module.transformer.h[:2]
    made: list[Tensor] = []
    own = second.forward

    def forward(hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        out: Tensor = own(hidden_states, *args, **kwargs)
        return out if hidden_states is made[-1] else out.flip(-1)

    first.register_forward_hook(lambda _, args, out: made.append(out))
    second.forward = forward

    model = load_model(module, tokenizer=zoo.tokenizer())

    check = next(check for check in model.checks if check["name"] == "a state can be put in another's place")
    assert not check["holds"]
    assert "in their own place change what follows" in check["detail"]
    assert {"resid_pre", "branches"} <= set(model.refused)
