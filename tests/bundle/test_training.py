"""Training: schedule and stages by hand, losses told apart by kind, a run taken up where it stopped."""

import argparse

import numpy as np
import pytest
import torch
import train
from corpus import ECHO, KINDS, NOISE, STAGES, Stage, echo, stage_at, stage_windows
from first_weights import LOOKS_BACK, new_model
from measures import attention
from muon import Muon, orthogonal
from shipped_files import same_recipe
from tokenizer import check_answers
from world.documents import MIXTURE

TWO = (
    Stage("one", 600, 256, 64, 1, 1.0, 0.0, MIXTURE),
    Stage("two", 1000, 256, 128, 2, 0.5, 0.0, MIXTURE),
)


def _settings(**more):
    given = {"rate": 1e-3, "width": 32, "layers": 2, "seed": 0, "compile": False}
    return argparse.Namespace(**(given | more))


@pytest.mark.parametrize(
    ("tokens", "step", "rate"),
    [
        (0, 0, 1e-3 / 100),  # the first of 100 steps of warming up
        (0, 49, 5e-4),
        (600, 5000, 1e-3),
        (825, 5000, 5e-4),  # half of the last 350 tokens are left
        (1000, 5000, 0.0),
        (1100, 5000, 0.0),
    ],
)
def test_the_rate_warms_up_stays_and_goes_down(tokens, step, rate):
    assert train.rate_at(tokens, step, 1e-3, TWO) == pytest.approx(rate)


def test_stages_follow_one_another_by_the_tokens_read():
    assert [stage_at(tokens, TWO).name for tokens in (0, 599, 600, 999, 5000)] == [
        "one",
        "one",
        "two",
        "two",
        "two",
    ]
    assert [stage.until for stage in STAGES] == sorted({stage.until for stage in STAGES})
    assert (STAGES[-1].blocks, STAGES[-1].window, STAGES[-1].favour) == (12, 512, 0.0)


def test_losses_are_told_apart_by_kind_and_noise_is_left_out():
    tally = train.Tally()
    tally.add(torch.tensor([1.0, 2.0, 6.0, 50.0]), np.array([[0, 0, 1, 1, NOISE]], dtype=np.uint8))
    told = tally.read()

    assert (told["all"], told[KINDS[0]], told[KINDS[1]]) == (3.0, 1.0, 4.0)
    assert tally.read()["all"] == 0.0


def _run(work, tokenizer, monkeypatch, steps):
    """So many steps, as `train.main` takes them, and a checkpoint."""
    monkeypatch.setattr(train, "prepare_tokenizer", lambda *_: tokenizer)
    monkeypatch.setattr(train, "STAGES", TWO_LONG)
    monkeypatch.setattr("corpus.SHARD_TOKENS", 2000)
    monkeypatch.setattr(train, "stage_at", lambda tokens: stage_at(tokens, TWO_LONG))
    monkeypatch.setattr(train.torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)
    training = train.Training(_settings(work=work))
    read = []
    for stage, tokens, kinds in train.batches(training.library, tokenizer, training.args, training.state):
        training.use_blocks(stage.blocks)
        training.learn(tokens, kinds)
        read.append(tokens)
        if len(read) == steps:
            break
    training.save()
    return training, read


TWO_LONG = (
    Stage("one", 256 * 3, 256, 64, 1, 1.0, 0.0, MIXTURE),
    Stage("two", 256 * 14, 256, 128, 2, 0.5, 0.0, MIXTURE),
)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch, tokenizer):
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    whole, read = _run(tmp_path / "whole", tokenizer, monkeypatch, steps=14)
    _, first = _run(tmp_path / "stopped", tokenizer, monkeypatch, steps=8)
    stopped, rest = _run(tmp_path / "stopped", tokenizer, monkeypatch, steps=6)

    assert [batch.tolist() for batch in first + rest] == [batch.tolist() for batch in read]
    assert stopped.state == whole.state
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(stopped.model.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


def test_blocks_that_take_no_part_are_not_changed(tmp_path, monkeypatch, tokenizer):
    training, _ = _run(tmp_path, tokenizer, monkeypatch, steps=3)
    torch.manual_seed(0)
    begun = new_model(32, 2, tokenizer.get_vocab_size(), begun=1).state_dict()
    ended = training.model.state_dict() | {}
    first, second = (f"transformer.h.{i}.mlp.c_fc.weight" for i in (0, 1))
    trained = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]

    assert set(ended) <= set(trained)
    assert not torch.equal(trained[first], begun[first])
    assert torch.equal(trained[second], begun[second])


def test_what_nothing_foretells_is_read_but_not_learnt_from(tmp_path, monkeypatch, tokenizer):
    training, read = _run(tmp_path, tokenizer, monkeypatch, steps=1)
    before = {name: weight.clone() for name, weight in training.model.named_parameters()}
    training.optimisers = [torch.optim.SGD(training.model.parameters(), lr=1.0)]
    kinds = np.full(read[0].shape, NOISE, dtype=np.uint8)
    kinds[0, 1] = ECHO
    training.learn(read[0], kinds)
    once = read[0].copy()
    once[1:] = 7  # all other windows changed: only the token that counts may teach
    change = {name: weight - before[name] for name, weight in training.model.named_parameters()}
    with torch.no_grad():
        for name, weight in training.model.named_parameters():
            weight.copy_(before[name])
    training.state["step"] -= 1
    training.learn(once, kinds)

    for name, weight in training.model.named_parameters():
        torch.testing.assert_close(weight - before[name], change[name], rtol=1e-2, atol=1e-6)


def test_an_echo_repeats_its_segments_and_marks_what_can_be_foretold():
    rng = np.random.default_rng(0)
    for length in (64, 128, 512):
        tokens, kinds = echo(length, 4096, rng)
        assert (len(tokens), tokens[0], kinds[0]) == (length, 0, NOISE)
        for at in np.flatnonzero(kinds == ECHO):
            pair = tokens[at - 1 : at + 1].tolist()  # read before, next to each other
            assert pair in [tokens[i : i + 2].tolist() for i in range(at - 1)]
    assert (kinds == ECHO).mean() > 0.2


def test_a_stage_mixes_echoes_with_text_in_its_share(library, tokenizer):
    stage = Stage("some", 1, 256, 128, 12, 0.25, 0.8, MIXTURE)
    tokens, kinds = stage_windows(library, tokenizer, stage, number=3, seed=0)
    again, _ = stage_windows(library, tokenizer, stage, number=3, seed=0)
    echoing = (kinds == ECHO).any(axis=1)

    assert (tokens[:, 0] == 0).all()
    assert echoing.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(tokens, again)


def test_orthogonal_brings_singular_values_near_one():
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    for turned in (matrices, matrices.mT.contiguous()):
        values = torch.linalg.svdvals(orthogonal(turned))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_steps_queries_keys_and_values_apart():
    weight = torch.nn.Parameter(torch.zeros(8, 24))
    gradient = torch.randn(8, 24, generator=torch.Generator().manual_seed(1))
    gradient[:, :8] *= 1e-3  # small beside the others, and stepped as far
    weight.grad = gradient
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    sizes = [part.pow(2).mean().sqrt().item() for part in weight.detach().split(8, dim=1)]

    assert sizes == pytest.approx([0.1, 0.1, 0.1], rel=0.25)


def test_answers_are_single_tokens_of_the_tokenizer_this_code_trains(trained_tokenizer):
    check_answers(trained_tokenizer)


@same_recipe
def test_the_shipped_tokenizer_is_the_one_this_code_trains(trained_tokenizer, bundled):
    assert trained_tokenizer.to_str(pretty=True) == (bundled / "model" / "tokenizer.json").read_text()


def test_the_first_weights_look_back_as_far_as_they_say():
    model = new_model(192, 2, 4096).eval()
    model.set_attn_implementation("eager")
    pattern = attention(model, np.random.default_rng(0).integers(1, 4096, 200).tolist())
    queries = np.arange(10, 200)

    for (block, head), tokens in LOOKS_BACK.items():
        reached = pattern[block, head, queries].argmax(-1)
        assert (queries - reached == tokens).mean() > 0.9


def test_blocks_not_begun_write_nothing_at_first():
    model = new_model(64, 4, 512, begun=2).eval()
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states

    assert not torch.allclose(states[1], states[2])
    torch.testing.assert_close(model.transformer.ln_f(states[2]), states[4])  # the last is normalised


def test_two_heads_lean_towards_what_followed_and_only_lean():
    torch.manual_seed(0)
    model = new_model(192, 2, 4096).eval()
    model.set_attn_implementation("eager")
    once = np.random.default_rng(0).integers(1, 4096, 60).tolist()
    pattern = attention(model, [0, *once, *once])
    queries = np.arange(62, 121)
    followed = pattern[1][:, queries, queries - 59].mean(-1)
    even = (1 / (queries + 1)).mean()

    assert followed[:2].min() > 2 * even
    assert followed[:2].max() < 0.2
    assert followed[2:].max() < 2 * even
