"""What weight_directions says, of numbers that are put into a result: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ttest_1samp

import layerscope as ls
import zoo
from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.weight_directions.conclude.depth import depth_variables
from layerscope.experiments.weight_directions.conclude.rated import Rated
from layerscope.experiments.weight_directions.conclude.removals import direction_in_words, removals
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.maths.permutation import holm
from layerscope.maths.trend import rate_difference_interval, rate_difference_p, rate_trend
from turned import NAN, put, said_of

FEW = {"random_directions": 100, "rotations": 8, "untrained_layers": 0, "directions": 12, "edits": 2, "edit_texts": 6,
       "edit_tokens": 8, "resamples": 50, "rater": "own embedding", "search": "red"}  # fmt: skip
OV = {"kind": "OV writes", "rater": "own embedding"}


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return ls.run("weight_directions", zoo.layered("gpt2"), progress=False, **FEW)


def _claims(result: xr.Dataset) -> list[Claim]:
    return experiments.load("weight_directions").claims(result)


@pytest.mark.parametrize(
    ("name", "up", "down", "nothing"),
    [
        ("above_rotations", "OV writes: singular directions are coherent 30 percentage points more often than rota",
         "OV writes: singular directions are coherent 30 percentage points less often than rotations",
         "No detectable difference in coherence between singular directions and rotations of them (OV writes) (30 per"),
        ("above_matched", "OV writes: top tokens are coherent 30 percentage points more often than others as frequent",
         "OV writes: top tokens are coherent 30 percentage points less often than others as frequent",
         "No detectable difference in coherence between top tokens and others as frequent (OV writes) (30 percentage"),
    ],
)  # fmt: skip
def test_differences_of_rates_are_said_both_ways(
    result: xr.Dataset, name: str, up: str, down: str, nothing: str
) -> None:
    p = f"{name}_p"
    more, less, null = (
        said_of(_claims(put(result, name, value, p=p, seen=seen)), name, **OV)
        for value, seen in ((0.3, 0.001), (-0.3, 0.001), (0.3, 0.4))
    )

    assert more.text.startswith(up)
    assert less.text.startswith(down)
    assert "(95% CI 26 to 34" in more.text
    assert "(95% CI 26 to 34" in less.text
    assert (more.significant, less.significant, null.significant) == (True, True, False)
    assert null.text.startswith(nothing)
    assert not [
        one for one in _claims(put(result, name, 0.3, p=p, seen=NAN)) if one.select["variable"] == name
    ]


@pytest.mark.parametrize(
    ("name", "up", "down", "nothing"),
    [
        ("slope", "OV writes: the rate of coherent directions rises by 30 percentage points from the first layer",
         "OV writes: the rate of coherent directions falls by 30 percentage points",
         "No detectable trend or bend of the rate over depth in any kind (smallest p = 0.4"),
        ("last_block", "OV writes: directions of the last layer are coherent 30 percentage points more often than th",
         "OV writes: directions of the last layer are coherent 30 percentage points less often than those of",
         "No detectable difference in the rate between the last layer and the others in any kind (smallest p = 0.4"),
        ("with_sink", "OV writes: layers with more coherent directions give the first token more attention, rank",
         "OV writes: layers with more coherent directions give the first token less attention, rank correlation −0.3",
         "No detectable correlation over layers of the rate with attention to the first token in any kind (smallest p"),
    ],
)  # fmt: skip
def test_what_rates_do_over_depth_is_said_both_ways(
    result: xr.Dataset, name: str, up: str, down: str, nothing: str
) -> None:
    result = put(result, "structure", 9.0, p="structure_p", seen=0.9)
    p = f"{name}_p"
    more, less = (said_of(_claims(put(result, name, value, p=p)), name, **OV) for value in (0.3, -0.3))
    null = said_of(_claims(put(result, name, 0.3, p=p, seen=0.4)), p)

    assert more.text.startswith(up)
    assert less.text.startswith(down)
    assert (more.significant, less.significant, null.significant) == (True, True, False)
    assert null.text.startswith(nothing)


def test_a_bend_is_said_apart_from_a_trend_and_both_from_nothing(result: xr.Dataset) -> None:
    flat = put(result, "slope", 0.0, p="slope_p", seen=0.9)
    only = xr.full_like(flat.structure_p, 0.8).where(flat.kind != "MLP writes", 0.001)
    said = _claims(flat.assign(structure_p=only))
    unknown = said_of(_claims(put(flat, "structure", NAN, p="structure_p", seen=NAN)), "slope_p")

    bend = said_of(said, "structure", kind="MLP writes")
    assert bend.text.startswith(
        "MLP writes: the rate of coherent directions bends over depth, more than a straight"
    )
    assert bend.p_adjusted == pytest.approx(0.001)
    rest = said_of(said, "slope_p").text
    assert rest.startswith(
        "No detectable trend or bend of the rate over depth in OV reads, OV writes, QK query side, "
    )
    assert "MLP writes" not in rest
    assert "(smallest p = 0.8" in rest
    assert "bend" not in unknown.text
    assert "(smallest p = 0.9" in unknown.text


@pytest.mark.parametrize("share", ["the same letters", "the same part of speech"])
def test_pairs_are_alike_more_or_less_often_than_any_two(result: xr.Dataset, share: str) -> None:
    name = f"all_pairs_{share.replace(' ', '_').replace('the_', '').replace('letters', 'token')}"
    heads, odd, even = {f"{name}_n": 16.0}, {f"{name}_by_chance": 0.001}, {f"{name}_by_chance": 0.7}
    more, less, null = (
        said_of(_claims(put(result, name, v, **heads | odd)), name) for v in (0.3, -0.3, 0.01)
    )
    few = said_of(_claims(put(result, name, 0.3, **{f"{name}_n": 4.0} | odd)), name)
    rare = said_of(
        _claims(put(result, name, -0.3, **heads | even)), name
    )  # no head has one, nor need any have

    assert (
        f"are of {share} 30 percentage points more often than any two of the tokens compared (95% CI 26"
        in more.text
    )
    assert f"are of {share} 30 percentage points less often than any two of the tokens compared" in less.text
    assert null.text.startswith(
        f"No detectable difference in being of {share} between pairs of tokens that queries"
    )
    assert few.text.startswith(f"Too few heads to test the difference in being of {share}")
    assert rare.text.startswith(f"No detectable difference in being of {share}")


def test_removals_move_own_tokens_more_or_less_than_others(result: xr.Dataset) -> None:
    def said(ratio: float, p: float) -> Claim:
        given = {
            "edit_ratio": ratio,
            "edit_ratio_low": ratio - 0.1,
            "edit_ratio_high": ratio + 0.1,
            "edit_p": p,
        }
        return said_of(_claims(put(result, "edit_selectivity", float(np.log(ratio)), **given)), "edit_ratio")

    more, less, null, same = said(2.5, 0.001), said(0.4, 0.001), said(1.1, 0.5), said(2.5, NAN)

    assert (
        "moves the logits of its own tokens more than those of others: 2.50 times as much (95% CI 2.40"
        in more.text
    )
    assert (
        "moves the logits of its own tokens less than those of others: 0.40 times as much (95% CI 0.30"
        in less.text
    )
    assert null.text.startswith(
        "No detectable difference between the changes of its own tokens' logits and of others'"
    )
    assert (more.significant, less.significant, null.significant) == (True, True, False)
    assert same.significant  # no p where all texts say the same: the interval decides
    assert more.value == 2.5
    assert more.text.startswith("Removing direction ")


def test_a_result_without_ratios_is_said_from_their_logarithms(result: xr.Dataset) -> None:
    old = result.drop_vars([name for name in result if str(name).startswith("edit_ratio")])
    said, now = said_of(_claims(old), "edit_selectivity"), said_of(_claims(result), "edit_ratio")

    assert (said.text, said.value) == (now.text, now.value)


def test_one_text_is_too_few_for_a_removal(result: xr.Dataset) -> None:
    alone = {
        "edit_ratio": 2.5,
        "edit_ratio_low": NAN,
        "edit_ratio_high": NAN,
        "edit_selectivity_n": 1.0,
        "edit_p": NAN,
    }

    said = said_of(_claims(put(result, "edit_selectivity", 0.9, **alone)), "edit_ratio")

    assert said.text.startswith(
        "Too few texts to test the difference between the changes of its own tokens' logits"
    )


@pytest.mark.parametrize(
    ("rank", "layer", "matrix", "said"),
    [(0, 3, "head 1", "direction 0 of L3H1"), (4, 5, "mlp", "direction 4 of L5 MLP"),
     (2, 1, "expert 3", "direction 2 of L1 expert 3")],
)  # fmt: skip
def test_places_are_written_as_the_field_does(rank: int, layer: int, matrix: str, said: str) -> None:
    assert direction_in_words(rank, layer, matrix) == said


def test_words_are_close_to_a_direction_or_to_none(result: xr.Dataset) -> None:
    def said(p: float) -> Claim:
        given: dict[str, Any] = {"answer": -0.6, "answer_p": p}
        return said_of(_claims(put(result, "answer", -0.6, **given)), "answer")

    close, none = said(0.001), said(0.5)

    assert close.text.startswith("Closest to red: direction ")
    assert "cosine −0.6" in close.text
    assert none.text.startswith("No detectable direction closer to red than random ones")


def test_rates_stand_beside_their_controls(result: xr.Dataset) -> None:
    given = put(result, "whole_rate", 0.42, whole_rotated_rate=0.33, random_rate=0.05, matched_rate=0.11)
    said = said_of(_claims(given), "whole_rate", **OV)
    query = said_of(_claims(given), "whole_rate", kind="QK asks")

    assert said.text.startswith("OV writes: 42% of ")
    assert said.significant is None
    assert (
        "5% of random directions, 33% of rotations in the same space, 11% of other tokens as frequent"
        in said.caveat
    )
    assert query.text.startswith("QK query side: 42% of ")


def test_a_rater_says_what_it_detects_or_that_it_could_not_be_tried(result: xr.Dataset) -> None:
    tried = put(result, "detected_all", 0.8, false_alarms_all=0.07, detected_all_n=20.0)
    untried = put(result, "detected_all", NAN, detected_all_n=1.0)

    said = said_of(_claims(tried), "detected_all", side="reads")
    assert said.text.startswith(
        "The rater (own embedding) detects 80% of directions made of known token sets in the embedding, and 7% of those"
    )
    silent = said_of(_claims(untried), "detected_all")
    assert silent.text.startswith(
        "Too few known token sets are single tokens of this vocabulary to test the rater"
    )
    assert "1 set, 5 needed" in silent.caveat


class _Hits(Rated):
    """Twenty directions a layer of which some count, as `depth_variables` reads them."""

    def __init__(self, hits: dict[str, list[int]]) -> None:
        self.places = {
            (kind, layer): np.arange(20) < n for kind, each in hits.items() for layer, n in enumerate(each)
        }
        flat = np.concatenate(list(self.places.values())).astype(float)
        self.hits = np.repeat(flat[:, None], 4, axis=1)

    def of(self, **wanted: Any) -> np.ndarray:
        place = list(self.places).index((wanted["kind"], wanted["layer"]))
        return np.arange(20 * place, 20 * place + 20)


def test_the_last_layer_is_held_against_the_others_by_one_test_corrected_over_kinds() -> None:
    rated = _Hits({"OV writes": [2, 3, 2, 14], "MLP writes": [9, 8, 9, 8]})
    found = depth_variables(rated, ["OV writes", "MLP writes"], 4, Settings())

    alone = rate_difference_p(14, 20, 7, 60)
    assert found["last_block"].values[0] == pytest.approx(14 / 20 - 7 / 60)
    assert found["last_block_p"].values[0] == pytest.approx(2 * alone)
    ends = [found[f"last_block_{end}"].values for end in ("low", "high")]
    assert [end[0, 0] for end in ends] == pytest.approx(rate_difference_interval(14, 20, 7, 60))
    assert ends[0][0, 0] > 0
    assert ends[0][1, 0] < 0 < ends[1][1, 0]
    line = rate_trend(np.array([2, 3, 2, 14]), np.full(4, 20))
    assert found["slope"].values[0] == pytest.approx(line.slope)
    assert found["slope_p"].values[0] == pytest.approx(2 * line.p)


def test_p_of_differences_from_rotations_are_corrected_over_kinds(result: xr.Dataset) -> None:
    here = result.sel(rater="own embedding")
    counts = [
        (here[f"{one}_rate"] * here[f"{one}_rate_n"], here[f"{one}_rate_n"])
        for one in ("whole", "whole_rotated")
    ]
    (hits, n), (others, m) = (tuple(one.round().astype(int).values for one in pair) for pair in counts)
    alone = [rate_difference_p(*map(int, four)) for four in zip(hits, n, others, m, strict=True)]

    assert here.above_rotations_p.values == pytest.approx(holm(alone))
    assert min(alone) < 1


def test_p_of_removals_are_corrected_over_removals() -> None:
    moved = np.random.default_rng(0).uniform(1, 3, (3, 6))
    dims = ("edit", "edit_text")
    changes = {"related_change": (dims, moved), "unrelated_change": (dims, np.ones((3, 6))),
               "control_change": (dims, np.ones((3, 6))), "edit_rank": ("edit", [0, 1, 2])}  # fmt: skip
    places = {"edit_layer": ("edit", [0, 1, 2]), "edit_matrix": ("edit", ["head 0", "mlp", "mlp"])}
    found = removals(xr.Dataset(changes, coords=places), Settings())

    assert found.edit_p.values == pytest.approx(holm([ttest_1samp(row, 0).pvalue for row in np.log(moved)]))
    assert found.edit_ratio.values == pytest.approx(np.exp(np.log(moved).mean(axis=1)))
