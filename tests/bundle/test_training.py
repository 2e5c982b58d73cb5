"""Training: the schedule worked by hand, losses told apart by kind, and a run taken up where it stopped."""

import argparse

import numpy as np
import pytest
import torch
import train
from corpus import KINDS, window_of
from first_weights import LOOKS_BACK, new_model
from measures import attention
from tokenizer import train_tokenizer


def _settings(**more):
    given = {
        "minutes": 90.0,
        "decay_minutes": 20.0,
        "rate": 1e-3,
        "width": 32,
        "layers": 1,
        "seed": 0,
        "compile": False,
        "batch_tokens": 256,
        "window": 128,
    }
    return argparse.Namespace(**(given | more))


@pytest.mark.parametrize(
    ("minutes", "step", "rate"),
    [
        (0.0, 0, 1e-3 / 200),  # the first of 200 steps of warming up
        (0.0, 99, 5e-4),
        (50.0, 5000, 1e-3),
        (80.0, 5000, 5e-4),  # half of the last 20 minutes are left
        (90.0, 5000, 0.0),
        (95.0, 5000, 0.0),
    ],
)
def test_the_rate_warms_up_stays_and_goes_down(minutes, step, rate):
    assert train.rate_at(minutes, step, _settings()) == pytest.approx(rate)


def test_losses_are_told_apart_by_kind():
    tally = train.Tally()
    tally.add(torch.tensor([1.0, 2.0, 6.0]), np.array([[0, 0, 1, 1]], dtype=np.uint8))
    told = tally.read()

    assert (told["all"], told[KINDS[0]], told[KINDS[1]]) == (3.0, 1.0, 4.0)
    assert tally.read()["all"] == 0.0


def test_a_run_is_taken_up_where_it_stopped(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(train, "prepare_tokenizer", lambda *_, **__: tokenizer)
    monkeypatch.setattr(train, "quick_look", lambda *_: {})
    monkeypatch.setattr(train.torch.cuda, "is_available", lambda: False)
    args = _settings(work=tmp_path)
    first = train.Training(args)
    batch = np.random.default_rng(0).integers(0, 4096, (2, 128)).astype(np.uint16)
    losses = [first.learn(batch, minutes=1.0).mean().item() for _ in range(3)]
    first.save()
    second = train.Training(args)

    assert losses[2] < losses[0]
    assert second.state == first.state | {"shard": 1}  # a resumed run begins with the next shard
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], weight, rtol=0, atol=0)


def test_the_shipped_tokenizer_is_the_one_this_code_trains(library, bundled):
    trained = train_tokenizer(library)

    assert trained.to_str(pretty=True) == (bundled / "model" / "tokenizer.json").read_text()


def test_the_first_weights_look_back_as_far_as_they_say():
    model = new_model(192, 2, 4096).eval()
    model.set_attn_implementation("eager")
    pattern = attention(model, np.random.default_rng(0).integers(1, 4096, 200).tolist())
    queries = np.arange(10, 200)

    for (block, head), tokens in LOOKS_BACK.items():
        reached = pattern[block, head, queries].argmax(-1)
        assert (queries - reached == tokens).mean() > (0.9 if block == 0 else 0.4)


def test_windows_are_as_long_as_the_schedule_says():
    lengths = {shard: window_of(shard) for shard in (0, 4, 6, 8, 10, 13, 99)}

    assert lengths == {0: 512, 4: 64, 6: 128, 8: 64, 10: 128, 13: 512, 99: 512}
