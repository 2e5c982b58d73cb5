"""Is a rater that sees known sets used, and one that is blind to them not?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
from layerscope import experiments
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._writing import gpt2, word_tokenizer

SMALL: dict[str, Any] = {
    "kinds": ["OV writes"],
    "random_directions": 200,
    "rotations": 8,
    "untrained_layers": 0,
    "edits": 0,
    "resamples": 100,
    "shortest_token": 1,
    "corpus": "",
    "tagged_corpus": "",
    "top_tokens": 8,
}


KINDS, EACH = 40, 12


def words(kind: int) -> list[str]:
    return [f"kind{kind}-{number}" for number in range(EACH)]


ALL = [word for kind in range(KINDS) for word in words(kind)] + [f"word-{n}" for n in range(120)]


def world(*, alike: float = 1.0) -> LayeredModel:
    """A small model whose embeddings (and unembeddings) of one kind of words share a direction; of the rest nothing."""
    tokenizer = word_tokenizer(ALL)
    model = gpt2(tokenizer, width=128, n_layers=1, n_heads=4)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for rows in (model.transformer.wte.weight, model.lm_head.weight):
            rows.normal_(generator=draw)
            for kind in range(KINDS):
                ids = tokenizer.convert_tokens_to_ids(words(kind))
                rows[ids] += alike * torch.randn(128, generator=draw)
    return load_model(model, tokenizer=tokenizer)


@pytest.fixture
def sets(tmp_path: Path) -> str:
    file = tmp_path / "sets.json"
    file.write_text(json.dumps({f"kind {kind}": " ".join(words(kind)) for kind in range(KINDS)}))
    return str(file)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Each word once, so that all are equally frequent and the order of ids, which goes by kind, says nothing."""
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"id": "all", "text": " ".join(ALL)}) + "\n")
    return str(file)


def run(model: LayeredModel, **settings: Any) -> xr.Dataset:
    return ls.run("weight_directions", model, progress=False, **(SMALL | settings))


def texts(result: xr.Dataset) -> list[str]:
    return [claim.text for claim in experiments.load("weight_directions").claims(result)]


def test_a_rater_that_sees_the_sets_is_used_and_says_how_many_it_sees(sets: str, corpus: str) -> None:
    result = run(world(), known_sets=sets, corpus=corpus)

    seen = result.sel(rater="own embedding", side="reads")
    assert float(seen.detected_all) > 0.8
    assert float(seen.false_alarms_all) < 0.2
    assert json.loads(result.attrs["rater_may_rate"]) is True
    figure = ls.draw(result)["Does the rater detect known token sets?"]
    assert float(seen.detected_all) in np.concatenate([trace.x for trace in figure.data])
    said = texts(result)
    known = (
        f"The rater (own embedding) detects {float(seen.detected_all):.0%} of directions made of known token sets in "
        "the embedding, and "
    )
    assert any(sentence.startswith(known) for sentence in said)
    assert any("directions are coherent (" in text for text in said)


def test_a_blind_rater_is_not_used(sets: str, corpus: str) -> None:
    result = run(world(alike=0.0), known_sets=sets, corpus=corpus)

    assert float(result.detected_all.sel(rater="own embedding").max()) < 0.5
    assert json.loads(result.attrs["rater_may_rate"]) is False
    said = texts(result)
    assert "too few" in " ".join(c.caveat for c in experiments.load("weight_directions").claims(result))
    assert not any("directions are coherent (" in text for text in said)
    for curve in experiments.load("weight_directions").over_depth(result).values():
        assert curve["value"].isnull().all()


def test_without_known_sets_the_power_is_unknown_and_only_a_named_rater_is_used() -> None:
    silent, named = run(world(), known_sets=""), run(world(), known_sets="", rater="own embedding")

    claim = experiments.load("weight_directions").claims(silent)[0]
    assert claim.text.startswith("Too few known token sets")
    assert "no rate" in claim.caveat
    assert not any("directions are coherent (" in text for text in texts(silent))
    assert any("directions are coherent (" in text for text in texts(named))


def test_a_rater_of_no_such_name_is_refused() -> None:
    with pytest.raises(ls.LayerscopeError, match="rater"):
        run(world(), rater="embedding:")
