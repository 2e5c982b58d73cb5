# ruff: noqa: E501
"""What logit_lens says, from samples through its own conclusion: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.logit_lens import Settings, claims, conclude, draw, tell
from layerscope.experiments.logit_lens.claims.answer_path import AnswerPath, sentence, table
from layerscope.experiments.logit_lens.conclude.curves import surprisal

LAYERS, TOKENS = 6, 4
DEPTHS = LAYERS + 1


def _readings(ranks: np.ndarray, kl: np.ndarray, average: np.ndarray, prefix: str) -> dict[str, Any]:
    """What a lens read of some tokens or prompts [unit depth], through one lens."""
    unit = "prompt" if prefix else "token"
    each = {
        "kl": kl,
        "log_probability": -kl,
        "rank": ranks,
        "other_log_probability": -kl - 3,
        "next_log_probability": -kl - 1,
    }
    found = {f"{prefix}{name}": ((unit, "lens", "depth"), values[:, None]) for name, values in each.items()}
    return found | {f"{prefix}kl_to_average": (unit, average)}


def _passages(n: int = 8, *, average: float = 4.0, fall: float = 1.0) -> xr.Dataset:
    """Divergences that fall to 0 from 6 nats, so fast; beside them a divergence from the average prediction."""
    rng, rows = np.random.default_rng(0), n * TOKENS
    wobble = rng.normal(scale=0.05, size=(n, 1)).repeat(TOKENS, axis=0)
    kl = np.maximum(6 - fall * np.arange(DEPTHS), 0) + wobble + 0.5
    kl[:, -1] = 0
    ranks = np.where(np.arange(DEPTHS) < 4, 5, 1) * np.ones((rows, 1), dtype=int)
    return xr.Dataset(
        _readings(ranks, kl, np.full(rows, average), ""),
        coords={
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(n)], TOKENS)),
            "token_category": ("token", ["word"] * rows),
            "position": ("token", np.tile(np.arange(1, TOKENS + 1), n)),
            "passage": [f"p{i}" for i in range(n)],
            "lens": ["logit lens"],
            "depth": np.arange(DEPTHS),
        },
    )


def _prompts(settled: dict[str, tuple[int, ...]]) -> xr.Dataset:
    """Prompts of some categories, the answer of each settled at a depth of its own."""
    depths = np.array([depth for some in settled.values() for depth in some])
    ranks = np.where(np.arange(DEPTHS) < depths[:, None], 7, 1)
    kl = np.maximum(depths[:, None] - np.arange(DEPTHS), 0.0)
    return xr.Dataset(
        _readings(ranks, kl, np.full(len(depths), 5.0), "prompt_"),
        coords={
            "prompt": [f"q{i}" for i in range(len(depths))],
            "prompt_category": ("prompt", np.repeat(list(settled), [len(some) for some in settled.values()])),
            "lens": ["logit lens"],
            "depth": np.arange(DEPTHS),
        },
    )


def _concluded(passages: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    return conclude({"passages": passages, "prompts": prompts}, Settings(resamples=200))


def _against_the_average(**how: Any) -> Claim:
    result = _concluded(_passages(**how), xr.Dataset())
    return next(claim for claim in claims(result) if claim.select["variable"] == "nearer_than_average")


def test_the_first_depth_nearer_than_the_average_is_said_and_never_the_last() -> None:
    nearer, farther = _against_the_average(), _against_the_average(average=0.2, fall=0.0)
    nothing, few = _against_the_average(average=6.5, fall=0.0), _against_the_average(n=4)

    assert nearer.text.startswith(
        "At depth 3 the logit lens is nearer to the final distribution than the average prediction is, by a divergence of 0.4"
    )
    assert "(95% CI " in nearer.text
    assert nearer.text.endswith("p < 0.01).")
    assert farther.text.startswith(
        "At depth 0 the logit lens is farther from the final distribution than the average"
    )
    assert nothing.text.startswith(
        "No detectable difference in divergence between the logit lens and the average"
    )
    assert few.text.startswith(
        "Too few passages to test the difference in divergence between the logit lens and the"
    )
    assert (nearer.significant, farther.significant, nothing.significant, few.significant) == (
        True,
        True,
        False,
        False,
    )


EARLY, LATE = (1, 1, 2, 1, 2, 1, 2, 1), (4, 5, 4, 5, 4, 5, 4, 4)


def _pair(first: tuple[int, ...], second: tuple[int, ...]) -> Claim:
    result = _concluded(xr.Dataset(), _prompts({"a": first, "b": second}))
    return next(claim for claim in claims(result) if claim.select["variable"] in ("difference", "p_adjusted"))


def test_categories_are_settled_later_or_earlier_or_alike_or_untested() -> None:
    later, earlier, alike = _pair(LATE, EARLY), _pair(EARLY, LATE), _pair(LATE, LATE[::-1])
    few, single = _pair((1, 1), (4, 5)), _pair((1,), LATE)

    assert later.text.startswith("The answer is settled 3.0 layers later for a than for b (95% CI ")
    assert earlier.text.startswith("The answer is settled 3.0 layers earlier for a than for b (95% CI ")
    assert later.significant
    assert earlier.significant
    assert alike.text.startswith(
        "No detectable difference in the depth at which the answer is settled between a and b"
    )
    assert few.text.startswith(
        "Too few prompts to test the difference in the depth at which the answer is settled between a and b"
    )
    assert "(2 against 2; smallest possible p = 0.33" in few.text
    assert single.text == (
        "Too few prompts to test the difference in the depth at which the answer is settled in 1 of 1 pairs of categories."
    )


def test_settled_depths_are_said_with_their_interval_or_have_no_estimate() -> None:
    result = _concluded(xr.Dataset(), _prompts({"a": LATE, "b": (DEPTHS,) * 3}))
    said, unknown = list(claims(result))[:2]

    assert said.text.startswith(
        "Through the logit lens, the answer first leads at depth 4.4 and is settled at depth 4.4"
    )
    assert "of 6 for a (95% CI " in said.text
    assert said.value == pytest.approx(4.375)
    assert unknown.text.startswith(
        "No estimate of the depth at which the answer is settled through the logit lens for b"
    )


HEADS = 2


def _direct(prompts: xr.Dataset, *, head: float = 0.0, mlp: float = 0.0, others: bool = True) -> xr.Dataset:
    """What L2H1 and the L4 MLP write to the answer and not to another's, give or take; all else writes to both alike."""
    rng, n = np.random.default_rng(2), prompts.sizes["prompt"]
    shape = (n, 2, LAYERS, HEADS)
    heads = rng.normal(scale=0.1, size=shape) + 1.0
    mlps = rng.normal(scale=0.1, size=shape[:3]) + 2.0
    heads[:, 0, 2, 1] += head
    mlps[:, 0, 4] += mlp
    if not others:
        heads[:, 1], mlps[:, 1] = np.nan, np.nan
    nothing = heads[..., 0, 0] * 0
    attention = heads.sum(-1)
    layers = ("prompt", "target", "layer")
    return xr.Dataset(
        {
            "direct_head": ((*layers, "head"), heads),
            "direct_attention": (layers, attention),
            "direct_mlp": (layers, mlps),
            "direct_attention_bias": (layers, attention * 0),
            "direct_embedding": (layers[:2], nothing),
            "direct_bias": (layers[:2], nothing),
            "direct_logit": (layers[:2], attention.sum(-1) + mlps.sum(-1)),
            "direct_lacks": ("prompt", [""] * n),
        },
        coords={
            "prompt": prompts.prompt,
            "prompt_category": prompts.prompt_category,
            "target": ["answer", "another answer"],
            "layer": np.arange(LAYERS),
            "head": np.arange(HEADS),
        },
    )


def _attributed(settled: dict[str, tuple[int, ...]] | None = None, **how: Any) -> xr.Dataset:
    prompts = _prompts(settled or {"a": EARLY})
    stages = {"passages": xr.Dataset(), "prompts": prompts, "direct": _direct(prompts, **how)}
    return conclude(stages, Settings(resamples=200))


def _writes(variable: str, settled: dict[str, tuple[int, ...]] | None = None, **how: Any) -> Claim:
    found = claims(_attributed(settled, **how))
    return next(claim for claim in found if claim.select["variable"] == variable)


@pytest.mark.parametrize(
    ("variable", "part", "says", "opposite", "nothing"),
    [
        ("head_beyond_other", "head", "L2H1 raises the answer's logit over another prompt's answer by 1.5",
         "L2H1 lowers the answer's logit over another prompt's answer by 1.5",
         "direct effect of any head on the answer's logit over another prompt's answer"),
        ("mlp_beyond_other", "mlp", "The L4 MLP raises the answer's logit over another prompt's answer by 1.",
         "The L4 MLP lowers the answer's logit over another prompt's answer by 1.",
         "direct effect of any MLP on the answer's logit over another prompt's answer"),
        ("attention_less_mlps", "head", "Attention writes 1.2 more than the MLPs to the answer's logit over another",
         "Attention writes 1.8 less than the MLPs to the answer's logit over another",
         "difference between attention and MLPs in their direct effect on the answer's logit"),
    ],
)  # fmt: skip
def test_who_writes_the_answer_is_said_both_ways_or_not_detectably_or_untested(
    variable: str, part: str, says: str, opposite: str, nothing: str
) -> None:
    said, turned = (_writes(variable, **{part: value}) for value in (1.5, -1.5))
    null, few = _writes(variable), _writes(variable, {"a": EARLY[:4]}, **{part: 1.5})

    assert said.text.startswith(says)
    assert turned.text.startswith(opposite)
    assert "(95% CI " in said.text
    assert "(95% CI −" not in turned.text
    assert (said.significant, turned.significant, null.significant, few.significant) == (
        True,
        True,
        False,
        False,
    )
    assert null.text.startswith(f"No detectable {nothing}")
    assert few.text.startswith(
        f"Too few prompts to test the {nothing} (4 prompts; smallest possible p = 0.12"
    )
    assert said.untrained is not None


def test_categories_are_said_apart_and_p_counts_them_all() -> None:
    both = {"a": EARLY, "b": LATE}
    alone, together = _attributed(head=1.5), _attributed(both, head=1.5)
    said = _writes("head_beyond_other", both, head=1.5)
    cell = {"layer": 2, "head": 1}

    assert " for b, the largest direct effect of any head" in said.text  # settled later
    p = float(alone.head_beyond_other_p_adjusted.sel(answered="prompts", **cell))
    assert float(together.head_beyond_other_least_p.sel(answered="a", **cell)) == pytest.approx(3 * p)
    assert list(together.answered.values) == ["prompts", "a", "b"]


def test_without_another_answer_nothing_is_claimed_and_the_logit_s_parts_are_drawn() -> None:
    result = _attributed(others=False, head=1.5)

    assert not [claim for claim in claims(result) if "direct" in claim.text]
    figures = draw(result)
    title = str(figures["Which layers write the answer?"].layout.yaxis.title.text)
    assert "contribution to the answer" in title.replace("<br>", " ")
    np.testing.assert_allclose(result.head_to_answer.sel(answered="prompts", layer=2, head=1), 2.5, atol=0.1)


def test_what_could_not_be_attributed_is_said_once() -> None:
    prompts = _prompts({"a": EARLY})
    direct = _direct(prompts).assign(direct_lacks=("prompt", ["no way to the logits"] * len(EARLY)))
    stages = {"passages": xr.Dataset(), "prompts": prompts, "direct": direct}

    cautions = conclude(stages, Settings(resamples=50)).attrs["cautions"]

    assert cautions.count("Direct logit attribution lacks parts: no way to the logits.") == 1


def test_attention_and_mlps_are_measures_with_replicates() -> None:
    measures = experiments.load("logit_lens").over_depth(_attributed(head=1.5))

    assert list(measures) == ["divergence", "direct_attention", "direct_mlp"]
    assert measures["direct_attention"].draws.sizes == {"draw": 200, "layer": LAYERS}
    assert int(measures["direct_attention"].value.values.argmax()) == 2


def test_figures_are_drawn_and_the_measure_has_replicates() -> None:
    result = _concluded(_passages(), _prompts({"a": EARLY, "b": LATE}))
    one = experiments.load("logit_lens").over_depth(result)["divergence"]

    assert all(figure.data for figure in draw(result).values())
    assert one.draws.sizes == {"draw": 200, "depth": DEPTHS}
    np.testing.assert_allclose(
        one.value, result.curve.sel(group="passages", quantity="kl", lens="logit lens")
    )
    np.testing.assert_allclose(one["null"], 4.0)


def _shown(prompts: xr.Dataset, ranks: tuple[int, ...]) -> xr.Dataset:
    """The kept table of the first prompt: two positions, two tokens each, the answer's ranks at the last."""
    cell, shape = ("shown_token", "depth", "place"), (2, DEPTHS, 2)
    texts = np.full(shape, " no", dtype="<U8")
    texts[1, np.array(ranks) == 1, 0] = " est"
    return xr.Dataset(
        {
            "shown_top_text": (cell, texts),
            "shown_probability": (cell, np.full(shape, [0.5, 0.25], dtype=np.float32)),
            "shown_target_text": (cell[:1], [" no", " est"]),
            "shown_target_probability": (cell[:2], np.full(shape[:2], 0.125)),
            "shown_rank": (cell[:2], [[1] * DEPTHS, ranks]),
        },
        coords={
            "shown_prompt": (cell[0], [str(prompts.prompt.values[0])] * 2),
            "shown_prompt_text": (cell[0], ["The city of"] * 2),
            "shown_position": (cell[0], [0, 1]),
            "shown_token_text": (cell[0], ["city", " of"]),
            "depth": np.arange(DEPTHS),
            "place": [1, 2],
        },
    )


def test_of_one_prompt_the_answer_and_what_leads_at_each_depth_are_told() -> None:
    one, two = _prompts({"a": (4,)}), _prompts({"a": (4, 5)})
    stages = {"passages": xr.Dataset(), "prompts": one, "shown": _shown(one, (900, 9, 1, 2, 1, 1, 1))}

    lines = tell(conclude(stages, Settings(resamples=50)))

    assert (
        lines[0]
        == "The answer “·est” has probability 0.125 and first leads at depth 2 and is settled at depth 4 of 6."
    )
    assert lines[1] == "depth  top token  probability  rank of “·est”"
    assert [line.split() for line in lines[2:5]] == [
        ["0", "·no", "0.500", "900"],
        ["1", "·no", "0.500", "9"],
        ["2", "·est", "0.500", "1"],
    ]
    assert tell(conclude(stages | {"prompts": two}, Settings(resamples=50))) == []
    assert tell(_concluded(xr.Dataset(), one)) == []  # of a result that has no table


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        ((7, 3, 1, 1), "and leads from depth 2 of 3 on."),
        ((1, 3, 1, 1), "and first leads at depth 0 and is settled at depth 2 of 3."),
        ((7, 1, 1, 5000), "and first leads at depth 1, and not at depth 3 (rank 5,000 there)."),
        ((7, 9, 8, 2), "and leads at no depth (rank 2 at depth 3)."),
    ],
)
def test_where_the_answer_leads_is_said_in_one_sentence(ranks: tuple[int, ...], says: str) -> None:
    path = AnswerPath(" x", [(" y", 0.5)] * 4, [0.25] * 4, ranks)

    assert sentence(path) == f"“·x” has probability 0.250 {says}"


def test_a_deep_model_s_table_keeps_the_depths_where_the_answer_leads_is_settled_and_ends() -> None:
    ranks = [5] * 97
    ranks[50:] = [1] * 47
    ranks[62] = 2
    path = AnswerPath(" x", [(" y", 0.5)] * 97, [0.25] * 97, ranks)

    depths = [int(line.split()[0]) for line in list(table(path))[1:]]

    assert {50, 63, 96} <= set(depths)
    assert len(depths) <= 35


def test_the_table_leads_with_at_most_two_others_and_the_rest_is_for_who_wants_more() -> None:
    prompts = _prompts({"a": EARLY, "b": LATE})
    stages = {"passages": _passages(), "prompts": prompts, "direct": _direct(prompts, head=1.5)}
    stages["shown"] = _shown(prompts, (900, 9, 1, 2, 1, 1, 1))
    figures = draw(conclude(stages, Settings(resamples=50)))
    lead = [name for name, figure in figures.items() if not (figure.layout.meta or {}).get("more")]

    assert lead == [
        "What would the model say at each depth?",
        "When does the answer become probable?",
        "Which layers write the answer?",
    ]
    (table,) = figures["The same at every depth and position"].data
    assert [row[1] for row in table.text] == ["·no", "·no", "<b>·est</b>", "·no", *["<b>·est</b>"] * 3]
    passages = draw(_concluded(_passages(), xr.Dataset()))
    assert sum(not (figure.layout.meta or {}).get("more") for figure in passages.values()) == 2


def test_a_depth_far_from_the_end_flattens_nothing() -> None:
    passages = _passages()
    for name in ("log_probability", "next_log_probability", "other_log_probability"):
        passages[name][:, :, 0] = -650.0

    result = _concluded(passages, xr.Dataset())
    axis = draw(result)["When does the final choice become probable?"].layout.yaxis
    drawn = surprisal(result, "passages", "log_probability")

    assert axis.type == "log"
    assert axis.title.text == "surprisal, −ln p [nat]"
    assert float(drawn.value[0]) == 650
    assert bool(((drawn.low <= drawn.value) & (drawn.value <= drawn.high)).all())
