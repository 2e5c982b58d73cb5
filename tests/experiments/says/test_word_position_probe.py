"""What word_position_probe says, of numbers that are put into a result: both ways, of nothing, of too little."""

import pytest
import xarray as xr

import layerscope as ls
from layerscope import experiments
from layerscope.contract import Claim
from layerscope.planted import positions
from turned import NAN, put, said_of

FEW = {"train_prompts": 40, "test_prompts": 30, "causal_prompts": 12, "resamples": 60, "heads": 1}


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    model = positions.word_index(strength=1.0)
    return ls.run("word_position_probe", model, words=list(positions.WORDS), progress=False, **FEW)


def _claims(result: xr.Dataset) -> list[Claim]:
    return experiments.load("word_position_probe").claims(result)


@pytest.mark.parametrize(
    ("name", "p", "labels", "some", "nothing"),
    [
        ("score", "p_adjusted", {"task": "last"}, "Word index is decodable beyond absolute position at depth 0: 30%",
         "No detectable decodability of word index beyond absolute position (30%"),
        ("score", "p_adjusted", {"task": "sentences"}, "Sentence index at full stops is decodable beyond absolute",
         "No detectable decodability of sentence index at full stops"),
        ("score", "p_adjusted", {"task": "first"}, "Word index at first pieces is decodable beyond absolute position",
         "No detectable decodability of word index at first pieces"),
        ("score", "p_adjusted", {"task": "names"}, "Name index across held-out templates is decodable beyond absolute",
         "No detectable decodability of name index across held-out templates"),
        ("score", "p_adjusted", {"task": "onto unanchored"},
         "Word index behind a prefix that the probe has not seen is decodable beyond absolute position at depth 0: 30%",
         "No detectable decodability of word index behind a prefix that the probe has not seen"),
        ("matched_score", "matched_p_adjusted", {}, "Among words of equal position and length, word index is decodable",
         "No detectable decodability of word index among words of equal position and length"),
        ("gain", "gain_p_adjusted", {"control": "types"},
         "Word index is 30 percentage points more decodable from states at depth 0 than from counts of the token types",
         "No detectable gain of states over counts of the token types"),
    ],
)  # fmt: skip
def test_a_score_is_decodable_or_not_detectably_so_or_untested(
    result: xr.Dataset, name: str, p: str, labels: dict[str, str], some: str, nothing: str
) -> None:
    said = said_of(_claims(put(result, name, 0.3, p=p)), name, **labels)
    null = said_of(_claims(put(result, name, 0.3, p=p, seen=0.4)), name, **labels)
    few = said_of(_claims(put(result, name, 0.3, p=p, seen=NAN)), name, **labels)
    unknown = said_of(_claims(put(result, name, NAN, p=p)), name, **labels)

    assert said.text.startswith(some)
    assert (said.significant, null.significant, few.significant) == (True, False, False)
    assert null.text.startswith(nothing)
    assert few.text.startswith(
        "Too few prompts to test the " + nothing.split("detectable ")[1].split(" (")[0]
    )
    assert unknown.text.startswith("No estimate of the ")


def test_only_those_places_are_named_that_are_significant(result: xr.Dataset) -> None:
    everywhere = said_of(_claims(put(result, "score", 0.3, p="p_adjusted")), "score", task="last")

    assert ", and significantly so at depths 1 to 3 (95% CI" in everywhere.text


def test_steering_is_said_with_its_direction(result: xr.Dataset) -> None:
    later, earlier, nothing = (_claims(put(result, "decoded_shift", value)) for value in (0.3, -0.3, 0.01))
    few = _claims(put(result, "decoded_shift", 0.3, decoded_shift_n=4))

    assert (
        "shifts the last-depth probe 0.30 words later (95% CI 0.26 to 0.34)"
        in said_of(later, "decoded_shift").text
    )
    assert "0.30 words earlier (95% CI 0.26 to 0.34)" in said_of(earlier, "decoded_shift").text
    assert said_of(nothing, "decoded_shift").text.startswith(
        "No detectable shift of the last-depth probe by steering"
    )
    assert said_of(few, "decoded_shift").text.startswith(
        "Too few prompts to test the shift of the last-depth probe"
    )


@pytest.mark.parametrize(
    ("name", "p", "up", "down", "nothing"),
    [
        ("moved_kl_gain", "moved_kl_gain_p_adjusted", "0.30 nats more than steering it as far elsewhere",
         "0.30 nats less than steering it as far elsewhere", "difference between steering word 4"),
        ("head_shift", "head_shift_p", "makes L0H0 attend 0.30 words later", "makes L0H0 attend 0.30 words earlier",
         "change of any head's attention by steering word 4"),
    ],
)  # fmt: skip
def test_what_steering_changes_is_said_both_ways(
    result: xr.Dataset, name: str, p: str, up: str, down: str, nothing: str
) -> None:
    more, less = (said_of(_claims(put(result, name, value, p=p)), name) for value in (0.3, -0.3))
    null = said_of(_claims(put(result, name, 0.3, p=p, seen=0.5)), name)
    few = said_of(_claims(put(result, name, 0.3, p=p, seen=0.25, **{f"{name}_least_p": 0.25})), name)

    assert up in more.text
    assert down in less.text
    assert null.text.startswith(f"No detectable {nothing}")
    assert few.text.startswith(f"Too few prompts to test the {nothing}")
    assert "smallest possible p = 0.25" in few.text


def test_heads_are_needed_only_where_random_ones_are_needed_less(result: xr.Dataset) -> None:
    lost = put(result, "score_lost", 0.3, p="lost_p_adjusted")
    random = lost.heads_out.str.startswith("random")
    less = lost.assign(score_lost=lost.score_lost.where(~random, 0.1))

    assert said_of(_claims(less), "score_lost").text.startswith(
        "Mean-ablating the heads that attend most to beginnings of words lowers the score at depth 1 by 30 percentage"
    )
    assert said_of(_claims(lost), "score_lost").text.startswith("No detectable loss of the score at depth 1")
    few = put(less, "score_lost", 0.3, p="lost_p_adjusted", seen=NAN)
    assert said_of(_claims(few), "score_lost").text.startswith(
        "Too few prompts to test the loss of the score"
    )


@pytest.mark.parametrize(("right", "allows"), [(0.9, 0.4), (0.2, 0.4)])
def test_accuracy_stands_beside_what_position_allows(result: xr.Dataset, right: float, allows: float) -> None:
    one = put(result, "accuracy", right, ceiling=allows)

    said = said_of(_claims(one), "accuracy")

    assert said.text.startswith(
        f"At depth {result.attrs['causal_depth']} the probe names the word's index in {right:.0%} of cases; absolute "
        f"position alone allows {allows:.0%}, with the word's length "
    )
    assert said.value == pytest.approx(right)
    assert said.significant is None


def test_a_gain_is_the_score_less_the_control_s_and_its_p_counts_all_controls(result: xr.Dataset) -> None:
    for control in map(str, result["control"].values):
        expected = result.score.sel(task="last") - result.score.sel(task=control)
        assert result.gain.sel(control=control).values == pytest.approx(expected.values)
    assert float(result.gain_p_adjusted.min()) == pytest.approx(
        3 / 61
    )  # of 60 resamples, times three controls
