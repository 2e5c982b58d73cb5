"""Reading activations, against what the blocks are known to do with them."""

import pytest
import torch

import zoo
from layerscope.errors import LayerscopeError
from layerscope.models.sites import Site
from layerscope.runs.embeddings import token_contributions
from layerscope.runs.reading import read_sites, read_states

IDS = [0, 17, 93, 140, 17, 255, 201, 64, 93, 301]
EVERY_SHAPE = [(family, flipped) for family in zoo.FAMILIES for flipped in (False, True)]


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_states_equal_transformers_own_hidden_states(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)

    states = read_states(model, IDS)

    # The library's own hooks stay on the model: ask a fresh twin. Its last entry is after the final norm.
    twin = zoo.make(family, flipped=flipped)
    with torch.no_grad():
        own = twin(torch.tensor([IDS]), output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(states[:-1], torch.cat(own[: model.n_layers]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "flipped"), EVERY_SHAPE)
def test_each_state_is_the_one_before_plus_what_the_block_adds(family: str, flipped: bool) -> None:
    model = zoo.layered(family, flipped=flipped)
    states = read_states(model, IDS)
    if "attn_out" in model.refused:
        with pytest.raises(LayerscopeError, match="attn_out is not available"):
            read_sites(model, IDS, [Site("attn_out", 0)])
        return

    for layer in range(model.n_layers):
        added = read_sites(model, IDS, [Site("attn_out", layer), Site("mlp_out", layer)])

        together = states[layer] + added[Site("attn_out", layer)] + added[Site("mlp_out", layer)]
        torch.testing.assert_close(together, states[layer + 1], rtol=1e-4, atol=1e-4)


def test_attn_out_is_the_attention_and_mlp_out_the_mlp() -> None:
    # Silencing one module must silence the site of that name, also where module outputs are not what is added.
    for family in ("gpt2", "gemma2", "bloom", "opt", "granite", "gpt_neox"):
        model = zoo.layered(family)
        added = read_sites(model, IDS, [Site("attn_out", 0), Site("mlp_out", 0)])
        changed = [*IDS[:1], 55, *IDS[2:]]

        after = read_sites(model, changed, [Site("attn_out", 0)])[Site("attn_out", 0)]

        # Token 1 changed: later tokens' attention sees it.
        assert (after[5] - added[Site("attn_out", 0)][5]).abs().max() > 1e-4, family


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_oss", "mistral"])
def test_head_outputs_are_patterns_times_values(family: str) -> None:
    model = zoo.layered(family, flipped=True)
    sites = [Site(kind, 1) for kind in ("pattern", "v", "head_out", "q", "k")]

    read = read_sites(model, IDS, sites)

    pattern, values = read[Site("pattern", 1)], read[Site("v", 1)]
    repeated = values.repeat_interleave(pattern.shape[0] // values.shape[0], dim=0)
    torch.testing.assert_close(read[Site("head_out", 1)], pattern @ repeated, rtol=1e-5, atol=1e-5)
    assert pattern.triu(1).abs().max() == 0


def test_a_window_shorter_than_the_text_cuts_the_pattern() -> None:
    model = zoo.layered("mistral", flipped=True)

    pattern = read_sites(model, IDS, [Site("pattern", 0)])[Site("pattern", 0)]

    assert pattern[:, 9, :6].abs().max() == 0  # window 4: keys 6 to 9
    assert pattern[:, 9, 6:].min() > 0


def test_sinks_take_the_share_that_rows_leave() -> None:
    model = zoo.layered("gpt_oss")

    pattern = read_sites(model, IDS, [Site("pattern", 0)])[Site("pattern", 0)]

    assert pattern.sum(-1).max() < 1
    assert pattern.sum(-1).mean() < 0.99


def test_a_block_without_attention_is_named() -> None:
    model = zoo.layered("recurrent_gemma")

    with pytest.raises(LayerscopeError, match=r"layer 0 .* has no attention"):
        read_sites(model, IDS, [Site("pattern", 0)])


def test_contributions_are_the_scaled_projected_embeddings_without_positions() -> None:
    gpt2, opt, gemma = zoo.layered("gpt2"), zoo.layered("opt", flipped=True), zoo.layered("gemma2")
    ids = torch.tensor(IDS)

    with torch.no_grad():
        expected = {
            gpt2: gpt2.module.transformer.wte(ids),
            opt: opt.module.model.decoder.project_in(opt.module.model.decoder.embed_tokens(ids)),
            gemma: gemma.module.model.embed_tokens.weight[ids] * gemma.facts.width**0.5,
        }
        bloom = zoo.layered("bloom")
        expected[bloom] = bloom.module.transformer.word_embeddings_layernorm(
            bloom.module.transformer.word_embeddings(ids)
        )
    for model, contributions in expected.items():
        torch.testing.assert_close(token_contributions(model, IDS), contributions, rtol=1e-4, atol=1e-4)
