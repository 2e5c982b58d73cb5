"""What ships is told apart from what this code would make: cards and checkpoints carry their recipe."""

import pytest
import torch
from evaluate import write_card
from make import store_weights
from recipe import RECIPE, recipe_in, refuse_other
from shipped_files import SHIPPED_RECIPE
from train import recipe_of


def test_the_recipe_is_read_from_the_card():
    assert recipe_in("# Card\n\n- Recipe: 12 (of `bundle/`)\n- Seed: 3\n") == 12
    with pytest.raises(SystemExit, match="Recipe: NUMBER"):
        recipe_in("# Card\n\nIt speaks of - Recipe: 1, but not on a line of its own.\n")


def test_the_shipped_card_names_a_recipe_that_there_was():
    assert 1 <= SHIPPED_RECIPE <= RECIPE


def test_the_card_of_this_code_names_its_recipe(tmp_path, monkeypatch, tokenizer, shipped):
    """With every measurement left out: only the head of the card is looked at."""
    monkeypatch.setattr("evaluate.load_shipped", lambda folder: (shipped, tokenizer))
    monkeypatch.setattr("evaluate.corpus_counts", lambda *_: ({}, {}))
    monkeypatch.setattr("evaluate.recall_rows", lambda *_: [("all", 1, 0.0, 0.0)])
    monkeypatch.setattr("evaluate.string_rows", lambda *_: [])
    monkeypatch.setattr("evaluate.findings", lambda *_: ([], ""))
    monkeypatch.setattr("evaluate.held_out_loss", lambda *_: {})
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "log.jsonl").write_text('{"step": 1, "tokens": 2, "minutes": 3.0, "loss": {"all": 1.0}}\n')
    write_card(tmp_path, tmp_path, seed=0)

    assert recipe_in((tmp_path / "MODEL_CARD.md").read_text()) == RECIPE


def test_another_recipe_is_refused_and_its_code_named():
    refuse_other(RECIPE, "It")
    with pytest.raises(SystemExit, match="recipe 1, whose code stands at commit d5f5a22"):
        refuse_other(1, "It")


@pytest.mark.parametrize(
    ("saved", "recipe"), [({"recipe": 7}, 7), ({"optimisers": []}, 2), ({"optimiser": {}}, 1)]
)
def test_checkpoints_from_before_the_numbers_are_told_apart(saved, recipe):
    assert recipe_of(saved) == recipe


@pytest.mark.parametrize(("recipe", "told"), [(RECIPE, "1,000 of"), (1, "made by recipe 1")])
def test_nothing_is_made_of_half_a_training_or_of_another_recipe(tmp_path, recipe, told):
    torch.save({"recipe": recipe, "state": {"tokens": 1000}, "model": {}}, tmp_path / "checkpoint.pt")

    with pytest.raises(SystemExit, match=told):
        store_weights(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
