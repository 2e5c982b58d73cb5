"""future_use against plain forward passes with hooks, one for each state that is replaced, and what it refuses."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.results.schema import read_json
from layerscope.runs.noise import stream

TEXTS = [
    "the red fox met the old dog in the town of stone, and the small bird sang. the old dog ran to the red town",
    "a small bird sang and the dog ran to the red town of stone. the old fox, the red bird and the dog met him",
    "the dog ran. the bird sang, and Old Red Fox met the dog in the red town of stone and sang to the old bird",
]
NAMES = [f"passage-00{i + 1}" for i in range(3)]
FEW = {"targets": 2, "horizon": 5, "near": 2, "resamples": 60}
BLOCKS = 4


def run(family: str = "llama", texts: Any = TEXTS, **settings: Any) -> xr.Dataset:
    model = zoo.layered(family, flipped=True)
    return ls.run("future_use", model, texts, **(FEW | settings), progress=False)


class Plain:
    """A bare transformers model: states read and replaced by its own hooks, in whole forward passes."""

    def __init__(self, family: str) -> None:
        self.module = zoo.make(family, flipped=True)
        self.blocks = next(
            m for m in self.module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == BLOCKS
        )

    def __call__(
        self, ids: list[int], *, depth: int = -1, token: int = 0, state: Any = None, positions: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """States [depth token width] and log-probabilities [token vocabulary]."""
        seen: list[np.ndarray] = []

        def change(stream_: torch.Tensor, here: int) -> torch.Tensor:
            if here == depth:
                stream_ = stream_.clone()
                stream_[0, token] = torch.as_tensor(state)
            seen.append(stream_[0].numpy().copy())
            return stream_

        def before(here: int) -> Any:
            def hook(_: Any, args: Any, kwargs: Any) -> Any:
                if args:
                    return (change(args[0], here), *args[1:]), kwargs
                return args, kwargs | {"hidden_states": change(kwargs["hidden_states"], here)}

            return hook

        def behind(_: Any, __: Any, out: Any) -> Any:
            if isinstance(out, torch.Tensor):
                return change(out, BLOCKS)
            return (change(out[0], BLOCKS), *out[1:])

        with ExitStack() as stack, torch.no_grad():
            for here, block in enumerate(self.blocks):
                stack.callback(block.register_forward_pre_hook(before(here), with_kwargs=True).remove)
            stack.callback(self.blocks[-1].register_forward_hook(behind).remove)
            more = {} if positions is None else {"position_ids": torch.tensor([positions])}
            tokens = torch.tensor([ids])
            logits = self.module(
                tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **more
            ).logits
        return np.stack(seen), torch.log_softmax(logits[0].double(), -1).numpy()


def ids_of(name: str) -> list[int]:
    return [0, *zoo.tokenizer().encode(TEXTS[NAMES.index(name)])]


def donor_of(name: str) -> str:
    """The next of the passages, the longest first, that is at least as long; else the longest of the others."""
    order = sorted(NAMES, key=lambda one: -len(ids_of(one)))
    place = order.index(name)
    others = [*order[place + 1 :], *order[:place]]
    enough = [one for one in others if len(ids_of(one)) >= len(ids_of(name))]
    return enough[0] if enough else max(others, key=lambda one: len(ids_of(one)))


def expected(plain: Plain, name: str, token: int, depth: int, state: Any, horizon: int = 5) -> np.ndarray:
    """Divergence and loss at the token and the tokens behind it [distance 2]."""
    ids = ids_of(name)
    _, own = plain(ids)
    _, changed = plain(ids, depth=depth, token=token, state=state)
    places = range(token, token + horizon + 1)
    return np.array(
        [
            ((np.exp(own[p]) * (own[p] - changed[p])).sum(), own[p, ids[p + 1]] - changed[p, ids[p + 1]])
            for p in places
        ]
    )


def assert_cell(
    result: xr.Dataset, row: int, which: str, depth: int, wanted: np.ndarray, sample: int = 0
) -> None:
    cell = result.isel(token=row, sample=sample).sel(perturbation=which, depth=depth)
    np.testing.assert_allclose(cell.divergence, wanted[:, 0], atol=2e-4, rtol=2e-3)
    np.testing.assert_allclose(cell.loss, wanted[:, 1], atol=1e-3, rtol=2e-3)


FAMILIES = ["gpt2", "llama", "gemma2", "gpt_oss", "stablelm", "gptj", "recurrent_gemma"]


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_of_another_texts_state_equal_plain_runs(family: str) -> None:
    result, plain = run(family), Plain(family)

    for row, depth in ((0, 0), (1, 2), (3, 1), (5, 3), (2, BLOCKS)):
        name, token = str(result.token_passage.values[row]), int(result.position[row])
        theirs = plain(ids_of(donor_of(name)))[0][depth, token]
        assert_cell(result, row, "corruption", depth, expected(plain, name, token, depth, theirs))


@pytest.mark.parametrize("family", FAMILIES)
def test_behind_the_last_block_a_state_serves_nobody_but_itself(family: str) -> None:
    result = run(family)

    later = result.divergence.isel(depth=-1, distance=slice(1, None))
    assert float(abs(later).max()) == 0
    assert float(result.divergence.isel(depth=-1, distance=0).min()) > 1e-3
    assert float(result.future_share.isel(depth=-1).max()) == 0
    assert 0 <= float(result.crossing) < BLOCKS


def test_the_mean_and_the_noise_are_the_corpus_own() -> None:
    family = "llama"
    plain = Plain(family)
    states = np.concatenate([plain(ids_of(name))[0][:, 1:] for name in NAMES], axis=1).astype(np.float64)
    mean, spread = states.mean(axis=1), states.std(axis=1)

    result = run(family, corruption="mean")
    name, token = str(result.token_passage.values[3]), int(result.position[3])
    assert_cell(result, 3, "corruption", 2, expected(plain, name, token, 2, mean[2]))

    noisy = run(family, corruption="noise", noise=0.7, samples=2)
    assert noisy.sizes["sample"] == 2
    name, token = str(noisy.token_passage.values[1]), int(noisy.position[1])
    text = TEXTS[NAMES.index(name)]
    drawn = torch.randn(64, generator=stream(0, "noise", text, 1, token)).numpy()
    state = plain(ids_of(name))[0][1, token] + 0.7 * spread[1] * drawn
    assert_cell(noisy, 1, "corruption", 1, expected(plain, name, token, 1, state), sample=1)


def test_the_control_is_as_large_and_points_anywhere() -> None:
    family, row, depth = "gpt2", 2, 1
    result, plain = run(family), Plain(family)
    name, token = str(result.token_passage.values[row]), int(result.position[row])

    own = plain(ids_of(name))[0][depth, token]
    change = plain(ids_of(donor_of(name)))[0][depth, token] - own
    drawn = torch.randn(len(own), generator=stream(0, "control", TEXTS[NAMES.index(name)], 0, token)).numpy()
    state = own + np.linalg.norm(change) * drawn / np.linalg.norm(drawn)

    assert_cell(result, row, "control", depth, expected(plain, name, token, depth, state))
    size = float(result["size"].isel(token=row, sample=0).sel(depth=depth))
    assert size == pytest.approx(np.linalg.norm(change) / np.linalg.norm(own), rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_the_truncated_state_is_that_of_bos_and_the_last_tokens(family: str) -> None:
    result = run(family, corruption="truncated", kept=3)
    plain = Plain(family)

    assert float(result.divergence.sel(perturbation="corruption", depth=0).max()) == 0
    assert np.isnan(result.future_share.sel(perturbation="corruption", depth=0))
    if family == "gpt2":  # where windows are narrower than the cut, BOS is out of sight in both
        row, depth = 1, 2
        name, token = str(result.token_passage.values[row]), int(result.position[row])
        ids, start = ids_of(name), token - 2
        cut = plain([0, *ids[start : token + 1]], positions=[0, *range(start, token + 1)])[0][depth, -1]
        assert_cell(result, row, "corruption", depth, expected(plain, name, token, depth, cut))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gptj"])
def test_the_swapped_state_is_that_behind_another_text(family: str) -> None:
    result, plain = run(family, corruption="swapped", kept=4), Plain(family)

    for row, depth in ((1, 2), (4, BLOCKS)):
        name, token = str(result.token_passage.values[row]), int(result.position[row])
        spliced = [*ids_of(donor_of(name))[: token - 3], *ids_of(name)[token - 3 : token + 1]]
        state = plain(spliced)[0][depth, -1]
        assert_cell(result, row, "corruption", depth, expected(plain, name, token, depth, state))
    assert float(result.divergence.sel(perturbation="corruption", depth=0).max()) == 0


def test_more_samples_leave_the_first_one_as_it_was() -> None:
    one, two = run(samples=1), run(samples=2)

    rows = [np.flatnonzero(r.token_passage.values == NAMES[0]) for r in (one, two)]
    np.testing.assert_allclose(
        one.divergence.values[rows[0], :, 0], two.divergence.values[rows[1], :, 0], atol=1e-5
    )
    assert float(abs(two.divergence[:, 0, 0] - two.divergence[:, 0, 1]).max()) > 1e-3


@pytest.mark.quick
def test_targets_are_as_late_as_their_horizon_and_a_next_token_allow() -> None:
    result = run("gpt2")

    for name, text in zip(NAMES, TEXTS, strict=True):
        tokens = 1 + len(zoo.tokenizer().encode(text))
        found = result.position.values[result.token_passage.values == name]
        assert found.tolist() == [
            tokens - 8,
            tokens - 7,
        ]  # five later predictions, and the token behind the last


@pytest.mark.quick
def test_shares_and_their_crossing_follow_from_what_was_kept() -> None:
    result = run("gpt2", samples=2)

    each = result.divergence.sel(perturbation="corruption").mean("sample").values  # token depth distance
    of_passage = np.stack([each[result.token_passage.values == name].mean(axis=0) for name in NAMES])
    present, future = of_passage[:, :, 0].mean(axis=0), of_passage[:, :, 1:].sum(axis=-1).mean(axis=0)
    np.testing.assert_allclose(
        result.future_share.sel(perturbation="corruption"), future / (present + future), rtol=1e-4, atol=1e-7
    )
    two = of_passage[:, :, 1:3].sum(axis=-1).mean(axis=0)
    share = two / (present + two)
    above = np.flatnonzero(share >= 0.5)
    crossing = 0.0
    if above.size:
        last = above[-1]
        crossing = last + (share[last] - 0.5) / (share[last] - share[last + 1])
    assert float(result.crossing_by_horizon.sel(horizon=2)) == pytest.approx(crossing, abs=1e-4)
    near = result.half_gone.sel(readers="1 to 2 tokens on")
    curve = two / two.max()
    last = np.flatnonzero(curve >= 0.5)[-1]
    assert float(near) == pytest.approx(
        last + (curve[last] - 0.5) / (curve[last] - curve[last + 1]), abs=1e-4
    )


def test_passages_that_are_too_short_are_left_out_by_name() -> None:
    result = run(texts=[*TEXTS, "the dog"])

    told = dict(zip(result.passage.values, result.left_out_because.values, strict=True))
    assert told.pop("passage-004").startswith("too short")
    assert set(told.values()) == {""}
    assert any("left out" in caution for caution in read_json(result, "cautions"))


@pytest.mark.parametrize(
    ("texts", "settings", "problem"),
    [
        (TEXTS[:1], {}, "no other text"),
        (TEXTS, {"samples": 3}, "no other text"),
        (["the", "a"], {}, "no later tokens"),
        ([""], {}, "empty"),
        (TEXTS, {"corruption": "rage"}, "does not fit"),
        (TEXTS, {"noise": 0.0, "corruption": "noise"}, "does not fit"),
        (TEXTS, {"horizon": 0}, "does not fit"),
    ],
)
def test_bad_input_is_refused_by_name(texts: list[str], settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(LayerscopeError, match=problem):
        run(texts=texts, **settings)


def test_one_text_is_enough_where_no_other_is_asked_for() -> None:
    result = run(texts=TEXTS[:1], corruption="mean")

    assert result.attrs["passages"] == 1
    assert experiments.load("future_use").claims(result)
    assert ls.draw(result)


def test_truncated_states_need_bos_and_position_ids() -> None:
    model = zoo.layered("gpt2")
    with pytest.raises(LayerscopeError, match="needs a token to stand first"):
        ls.run("future_use", model, TEXTS, bos="never", corruption="truncated", **FEW, progress=False)
    assert ls.run("future_use", model, TEXTS, bos="never", **FEW, progress=False).sizes["token"] == 6
    with pytest.raises(LayerscopeError, match="takes no position ids"):
        run("bloom", corruption="truncated", positions="original")
    assert run("bloom", corruption="truncated").sizes["token"] == 6
