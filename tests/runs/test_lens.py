"""The lens against final norm, unembedding, soft cap and scale written out by hand, and tuned lenses on disk."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import zoo
from layerscope import LayerscopeError
from layerscope.runs import read_lens, read_tuned_lens
from layerscope.runs.tuned_lens import lens_digest
from lens_by_hand import FAMILIES, IDS, logits_by_hand


def expected_readings(logits: np.ndarray, positions: list[int], answers: Any) -> dict[str, np.ndarray]:
    logs = log_softmax(logits.astype(np.float64), axis=-1)[:, positions]
    final = logs[-1]
    kl = (np.exp(final) * (final - logs)).sum(-1).T
    answers = final.argmax(-1) if answers is None else np.asarray(answers)
    log_probability = np.stack([logs[:, row, token] for row, token in enumerate(answers)])
    rank = np.stack(
        [(logs[:, row] > logs[:, row, token][:, None]).sum(-1) + 1 for row, token in enumerate(answers)]
    )
    return {"kl": kl, "log_probability": log_probability, "rank": rank}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stated", [False, True])
def test_readings_equal_those_by_hand(family: str, stated: bool) -> None:
    positions, answers = [1, 4, 7], [11, 200, 3] if stated else None

    found = read_lens(zoo.layered(family, flipped=True), [IDS], positions, answers=answers)[0]

    expected = expected_readings(logits_by_hand(family, IDS), positions, answers)
    np.testing.assert_allclose(found.kl, expected["kl"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.log_probability, expected["log_probability"], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.rank, expected["rank"])
    assert found.kl[:, -1].max() == 0


def test_nulls_and_the_next_token_are_what_they_say() -> None:
    model = zoo.layered("llama", flipped=True)
    logs = log_softmax(logits_by_hand("llama", IDS).astype(np.float64), axis=-1)

    found = read_lens(model, [IDS], [2, 5, 6, 7])[0]

    tops = logs[-1, [2, 5, 6, 7]].argmax(-1)
    for row, position in enumerate([2, 5, 6, 7]):
        np.testing.assert_allclose(
            found.other_log_probability[row], logs[:, position, tops[(row + 2) % 4]], rtol=1e-3, atol=1e-3
        )
        if position < 7:
            np.testing.assert_allclose(
                found.next_log_probability[row], logs[:, position, IDS[position + 1]], rtol=1e-3, atol=1e-3
            )
    assert bool(found.next_log_probability[3].isnan().all())
    p = np.exp(logs[-1, [2, 5, 6, 7]])
    rest = (p.sum(0) - p) / 3
    np.testing.assert_allclose(found.kl_to_average, (p * np.log(p / rest)).sum(-1), rtol=1e-3)


def test_many_tokens_at_once_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("gpt2")
    texts = [IDS, IDS[:1] + IDS[:0:-1], [0, 9, 8, 7, 6, 5, 4, 3]]
    whole = read_lens(model, texts, [7], answers=[1, 2, 3], others=[4, 5, -1])[0]

    monkeypatch.setattr("layerscope.runs.lens._LOGITS_AT_ONCE", 2 * zoo.VOCABULARY)
    pieces = read_lens(model, texts, [7], answers=[1, 2, 3], others=[4, 5, -1])[0]

    torch.testing.assert_close(whole.kl, pieces.kl, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(whole.rank, pieces.rank)
    assert bool(whole.other_log_probability[2].isnan().all())


def test_pieces_that_fit_the_cache_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.layered("llama", flipped=True)
    whole = read_lens(model, [IDS], range(8), others=[3, -1, 5, 6, 7, 8, 9, 1])[0]

    monkeypatch.setattr("layerscope.runs.predictions._ROWS", 5)
    monkeypatch.setattr("layerscope.runs.predictions._COLUMNS", 48)
    pieces = read_lens(model, [IDS], range(8), others=[3, -1, 5, 6, 7, 8, 9, 1])[0]

    for name in ("kl", "log_probability", "other_log_probability", "next_log_probability"):
        torch.testing.assert_close(
            getattr(whole, name), getattr(pieces, name), rtol=1e-4, atol=1e-5, equal_nan=True
        )
    torch.testing.assert_close(whole.rank, pieces.rank)


def test_a_lens_that_is_not_the_model_is_refused() -> None:
    model = zoo.layered("gemma2", flipped=True)
    from dataclasses import replace

    model.structure = replace(model.structure, logit_map=())  # as if the soft cap had been overlooked

    with pytest.raises(LayerscopeError, match="last lens"):
        read_lens(model, [IDS], [3])


# -- tuned lenses ---------------------------------------------------------------------------------------


def saved(
    folder: pathlib.Path, n_layers: int = 4, width: int = 64, **config: Any
) -> tuple[pathlib.Path, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for depth in range(n_layers):
        tensors[f"{depth}.weight"] = torch.randn(width, width, generator=generator) * 0.05
        tensors[f"{depth}.bias"] = torch.randn(width, generator=generator) * 0.1
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "params.pt")
    written = {"base_model_name_or_path": "m", "d_model": width, "num_hidden_layers": n_layers, "bias": True}
    (folder / "config.json").write_text(json.dumps(written | {"lens_type": "linear_tuned_lens"} | config))
    return folder, tensors


def test_a_tuned_lens_translates_every_depth_but_the_last(tmp_path: pathlib.Path) -> None:
    folder, tensors = saved(tmp_path / "lens")
    model = zoo.layered("llama", flipped=True)
    lens = read_tuned_lens(str(folder), n_layers=4, width=64)

    found = read_lens(model, [IDS], [2, 6], lenses=[None, lens])

    def translate(depth: int, state: torch.Tensor) -> torch.Tensor:
        return state + state @ tensors[f"{depth}.weight"].T + tensors[f"{depth}.bias"]

    expected = expected_readings(logits_by_hand("llama", IDS, translate), [2, 6], None)
    np.testing.assert_allclose(found[1].kl, expected["kl"], rtol=1e-3, atol=1e-4)
    assert not np.allclose(found[0].kl[:, 0], found[1].kl[:, 0], rtol=0.01)
    assert found[1].kl[:, -1].max() == 0


def test_safetensors_and_a_lens_without_biases_are_read(tmp_path: pathlib.Path) -> None:
    from safetensors.torch import save_file

    folder, tensors = saved(tmp_path / "lens", bias=False)
    (folder / "params.pt").unlink()
    save_file(
        {name: tensor for name, tensor in tensors.items() if "weight" in name}, folder / "params.safetensors"
    )

    lens = read_tuned_lens(str(folder), n_layers=4, width=64)

    torch.testing.assert_close(lens.weights[2], tensors["2.weight"])
    assert float(lens.biases.abs().max()) == 0


class Trap:
    """Runs a command when it is unpickled by a loader that lets it."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (pathlib.Path.touch, (self.mark,))


def test_a_file_that_would_run_code_is_refused_unrun(tmp_path: pathlib.Path) -> None:
    folder, _ = saved(tmp_path / "lens")
    torch.save({"0.weight": Trap(tmp_path / "ran")}, folder / "params.pt")

    with pytest.raises(LayerscopeError, match="cannot be read"):
        read_tuned_lens(str(folder), n_layers=4, width=64)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "harm", ["other model", "no config", "bad config", "cut short", "missing depth", "no folder"]
)
def test_broken_lenses_are_refused_in_words(tmp_path: pathlib.Path, harm: str) -> None:
    folder, tensors = saved(tmp_path / "lens", n_layers=5 if harm == "other model" else 4)
    if harm == "no config":
        (folder / "config.json").unlink()
    elif harm == "bad config":
        (folder / "config.json").write_text("{")
    elif harm == "cut short":
        (folder / "params.pt").write_bytes((folder / "params.pt").read_bytes()[:500])
    elif harm == "missing depth":
        torch.save(
            {name: tensor for name, tensor in tensors.items() if name != "2.weight"}, folder / "params.pt"
        )
    elif harm == "no folder":
        folder = tmp_path / "nowhere"

    with pytest.raises(LayerscopeError):
        read_tuned_lens(str(folder), n_layers=4, width=64)


def test_the_digest_follows_the_files(tmp_path: pathlib.Path) -> None:
    folder, _ = saved(tmp_path / "lens")
    before = lens_digest(str(folder))
    saved(folder, note="changed")

    assert lens_digest(str(folder)) != before
