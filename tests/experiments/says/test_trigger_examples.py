"""What trigger_examples says, of numbers that are put into a result: both ways, of nothing, of too little."""

from collections.abc import Mapping

import pytest
import xarray as xr

import layerscope as ls
import zoo
from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.trigger_examples.conclude.topics import sees_topics
from layerscope.experiments.trigger_examples.pages.annotations import judged, row_names
from layerscope.results.annotation_sheets import Judgements
from turned import NAN, put, said_of

TEXTS = [
    "the red fox met the old dog in the town",
    "a small bird sang and the dog ran to the red town of stone",
    "an old bird sang to the red fox in a town of stone and dogs",
    "the dog met a bird",
]
FEW = {"keys_per_layer": 2, "top": 4, "window": 8, "kept_tokens": (1, 2, 5), "edited": 1, "random_contexts": 50,
       "null_sets": 20, "resamples": 50, "permutations": 99}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return ls.run("trigger_examples", zoo.layered("gpt2"), passages=TEXTS, progress=False, **FEW)


def _claims(result: xr.Dataset) -> list[Claim]:
    return experiments.load("trigger_examples").claims(result)


def _power(result: xr.Dataset, share: float) -> xr.Dataset:
    return put(result, "topics_found", share, topics_known=27.0)


def test_contexts_share_more_or_less_than_random_ones_or_nothing_can_be_said(result: xr.Dataset) -> None:
    name, p = "mean_shared_last_token", "p_adjusted_shared_last_token"
    chance = result.assign(null_shared_last_token=xr.full_like(result.null_shared_last_token, 0.5))
    more, less, null = (
        said_of(_claims(put(chance, name, value, p=p, seen=seen)), name)
        for value, seen in ((0.8, 0.001), (0.2, 0.001), (0.8, 0.4))
    )
    few = put(chance, name, 0.8, p=p, seen=0.2, **{f"{name}_least_p_adjusted": 0.2, f"{name}_least_p": 0.05})

    assert more.text.startswith(
        "In layer 0 contexts of a key end in the same token more often than random ones: 80% against 50% (95% CI 76"
    )
    assert "significant in layers 0 to 3" in more.caveat
    assert "less often than random ones: 20% against 50%" in less.text
    assert (more.significant, less.significant, null.significant) == (True, True, False)
    assert null.text.startswith(
        "No detectable excess of contexts of a key that end in the same token over random"
    )
    assert said_of(_claims(few), name).text.startswith("Too few keys to test the excess of contexts of a key")


@pytest.mark.parametrize(
    ("statistic", "up", "down"),
    [
        ("shared_last_token", "30 percentage points higher in the later half", "lower in the later half"),
        ("kept_without_last", "30 percentage points higher in the later half", "lower in the later half"),
        (
            "local",
            "The share of keys that need no more than 5 tokens is 30 percentage",
            "lower in the later half",
        ),
        (
            "agreement",
            "that the value's top token follows is 30 percentage points higher",
            "lower in the later half",
        ),
        (
            "coherence",
            "before their last token is 0.30 higher in the later half",
            "0.30 lower in the later half",
        ),
    ],
)
def test_halves_are_said_both_ways(result: xr.Dataset, statistic: str, up: str, down: str) -> None:
    result = _power(result, 0.9)
    p, enough = "halves_p_adjusted", {"halves_least_p": 0.001, "halves_least_p_adjusted": 0.005}
    higher, lower, null = (
        said_of(
            _claims(put(result, "halves", value, p=p, seen=seen, **enough)), "halves", statistic=statistic
        )
        for value, seen in ((0.3, 0.01), (-0.3, 0.01), (0.3, 0.4))
    )
    few = put(result, "halves", 0.3, p=p, seen=0.2, halves_least_p=0.07, halves_least_p_adjusted=0.2)

    assert up in higher.text
    assert "(95% CI 26 to 34" in higher.text or "(95% CI 0.26 to 0.34" in higher.text
    assert down in lower.text
    assert "CI 26 to 34" in lower.text or "CI 0.26 to 0.34" in lower.text
    assert null.text.startswith("No detectable difference between later and earlier layers in the ")
    said = said_of(_claims(few), "halves", statistic=statistic).text
    assert said.startswith("Too few keys to test the difference between later and earlier layers")
    assert "4 against 4; smallest possible p = 0.07, adjusted 0.2;" in said or statistic in (
        "local",
        "coherence",
    )


@pytest.mark.parametrize(("share", "said"), [(0.9, True), (0.2, False)])
def test_likeness_is_reported_only_where_made_topics_are_found(
    result: xr.Dataset, share: float, said: bool
) -> None:
    result = _power(result, share)
    claims = _claims(put(result, "halves", 0.3, p="halves_p_adjusted"))
    about = [one.select.get("statistic") == "coherence" for one in claims]
    layers = [one.select.get("variable") == "mean_coherence" for one in claims]

    assert sees_topics(result) is said
    assert (any(about), any(layers)) == (said, said)
    power = said_of(claims, "topics_found")
    assert power.text.startswith(
        f"Coherence finds {share:.0%} of made topics with 4 of their words in each context"
    )
    assert ("too few to report" in power.caveat) is not said


def test_values_promote_what_follows_or_not(result: xr.Dataset) -> None:
    name = "all_agreement_beyond_frequency"
    more, less, null = (
        said_of(_claims(put(result, name, value, **{f"{name}_n": 40})), name) for value in (0.3, -0.3, 0.01)
    )
    few = said_of(_claims(put(result, name, 0.3, **{f"{name}_n": 3})), name)

    assert (
        "follows its contexts 30 percentage points more often than its frequency (95% CI 26 to 34)"
        in more.text
    )
    assert "30 percentage points less often than its frequency (95% CI 26 to 34)" in less.text
    assert null.text.startswith(
        "No detectable difference between how often the token that a key's value promotes"
    )
    assert few.text.startswith("Too few keys to test the difference between how often")


def test_shares_are_said_as_in_the_table(result: xr.Dataset) -> None:
    kept = said_of(_claims(put(result, "all_kept_without_last", 0.42)), "all_kept_without_last")
    unmatched = said_of(_claims(put(result, "all_unmatched_share", 0.71)), "all_unmatched_share")

    assert kept.text.startswith("Another last token leaves 42% of a key's activation; ")
    assert unmatched.text.startswith(
        "71% of MLP outputs promote most a token that no single active value promotes"
    )
    assert (kept.significant, unmatched.significant) == (None, None)


def test_without_two_contexts_nothing_is_shared(result: xr.Dataset) -> None:
    said = _claims(put(result, "all_shared_last_token", NAN))

    assert "No key has two contexts that excite it." in [one.text for one in said]
    assert not [one for one in said if one.select.get("variable") == "mean_shared_last_token"]


def _judged(result: xr.Dataset, kinds: Mapping[str, tuple[str, str]]) -> Claim:
    names = row_names(result)
    answers = {
        who: {name: {"pattern": "x", "kind": said[place % 2]} for place, name in enumerate(names)}
        for who, said in kinds.items()
    }
    return next(one for one in judged(result, Judgements(answers)).claims if "chance" in one.text)


def test_annotators_agree_more_or_less_than_by_chance(result: xr.Dataset) -> None:
    agree = _judged(result, {"anna": ("shallow", "none"), "ben": ("shallow", "none")})
    cross = _judged(result, {"anna": ("shallow", "none"), "ben": ("none", "shallow")})
    same = _judged(result, {"anna": ("both", "both"), "ben": ("both", "both")})

    assert agree.text.startswith("Annotators agree more than by chance on the kind of pattern")
    assert "alpha 1" in agree.text
    assert cross.text.startswith("Annotators agree less than by chance on the kind of pattern")
    assert cross.value is not None
    assert cross.value < 0
    assert same.text.startswith("No estimate of the agreement of annotators beyond chance")
