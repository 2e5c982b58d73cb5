"""Millidge & Black on singular value decompositions of weights (28 November 2022), with the exchange on phases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerscope.atlas.posts.reading import between, by_unit, less, mean_over, over_places, stated
from layerscope.atlas.verdicts import CannotBeDecidedError, Estimate, Part, Pinned, Post, PostClaim, Results
from layerscope.results.schema import read_json

WEIGHTS = Pinned.of("weight_directions")
STATES = Pinned.of("hidden_states")


def _rater(results: Results) -> str:
    """The rater that is used, which must detect enough of directions that are made of known sets."""
    result = results[WEIGHTS]
    if not read_json(result, "rater_may_rate", True) or not result["above_rotations"].notnull().any():
        raise CannotBeDecidedError("no rater has power on this vocabulary")
    return str(read_json(result, "rate_by"))


def _above_rotations(kind: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        return stated(
            results[WEIGHTS],
            "above_rotations",
            unit="share",
            units="matrices",
            kind=kind,
            rater=_rater(results),
        )

    return read


def _hump(first: tuple[float, float], second: tuple[float, float]) -> Callable[[Results], Estimate]:
    """The rate of coherent MLP directions over one stretch of depth less that over another."""

    def read(results: Results) -> Estimate:
        result, rater = results[WEIGHTS], _rater(results)
        return less(
            *(
                over_places(
                    result, "rate", between(result, *ends), units="directions", kind="MLP writes", rater=rater
                )
                for ends in (first, second)
            ),
            unit="share",
        )

    return read


def _last_layer(results: Results) -> Estimate:
    return stated(
        results[WEIGHTS],
        "last_block",
        times=-1.0,
        unit="share",
        units="directions",
        kind="MLP writes",
        rater=_rater(results),
    )


def _middle_above(at: int) -> Callable[[Results], Estimate]:
    """Cosine between the states before and after a layer: the middle third less the first or last layer, by passage."""

    def read(results: Results) -> Estimate:
        result = results[STATES]
        cosines = result["successive_cosine"].transpose("token", "layer").values
        middle = np.nanmean(cosines[:, between(result, 1 / 3, 2 / 3)], axis=1)
        return mean_over(by_unit(middle - cosines[:, at], result["token_passage"].values), units="passages")

    return read


_POINT, _TENTH = "one direction in twenty", "a tenth of a cosine"

POST = Post(
    "svd-directions",
    "SVD of weight matrices is highly interpretable (Millidge & Black, 2022), with the exchange on phases",
    (
        PostClaim(
            "OV and MLP directions mean something",
            "Main directions of OV and MLP matrices are interpretable beyond chance.",
            "The post; restated in the exchange",
            tuple(
                Part(
                    f"{kind}: coherent beyond rotations",
                    WEIGHTS,
                    _above_rotations(kind),
                    "above",
                    0.05,
                    _POINT,
                )
                for kind in ("OV writes", "MLP reads", "MLP writes")
            ),
            published="GPT-2 medium: 47-62% of MLP directions by a language model's rating",
            reading="Beyond rotations within the same space: that these very directions matter, not their span alone.",
        ),
        PostClaim(
            "QK directions mean nothing",
            "Directions of QK matrices are not interpretable.",
            "The author's reply",
            tuple(
                Part(
                    f"{name}: coherent beyond rotations",
                    WEIGHTS,
                    _above_rotations(kind),
                    "within",
                    0.05,
                    _POINT,
                )
                for kind, name in (("QK asks", "QK query side"), ("QK answers", "QK key side"))
            ),
        ),
        PostClaim(
            "rise and dip twice",
            "The share of interpretable MLP directions rises and dips in each half of depth.",
            "Comment by Megan Kinniment",
            (
                Part(
                    "rate at 1/8-3/8 of depth less at 3/8-5/8",
                    WEIGHTS,
                    _hump((1 / 8, 3 / 8), (3 / 8, 5 / 8)),
                    "above",
                    0.05,
                    _POINT,
                ),
                Part(
                    "rate at 5/8-7/8 of depth less at the end",
                    WEIGHTS,
                    _hump((5 / 8, 7 / 8), (7 / 8, 1.0)),
                    "above",
                    0.05,
                    _POINT,
                ),
            ),
            by="Megan Kinniment",
            other_side="The early dip is probably noise (the author's reply).",
            reading="The dips are placed at one half and at the end, where the published curves have them.",
        ),
        PostClaim(
            "the last layer is strange",
            "In the last layer directions become weird or meaningless.",
            "The author's reply",
            (
                Part(
                    "rate of the other layers less the last one's",
                    WEIGHTS,
                    _last_layer,
                    "above",
                    0.05,
                    _POINT,
                ),
            ),
        ),
        PostClaim(
            "three phases of cosines",
            "First layers reshape the state, middle ones refine it, the last one maps it to the output.",
            "The author's reply",
            (
                Part(
                    "cosine before and after, middle third less first layer",
                    STATES,
                    _middle_above(0),
                    "above",
                    0.1,
                    _TENTH,
                ),
                Part(
                    "cosine before and after, middle third less last layer",
                    STATES,
                    _middle_above(-1),
                    "above",
                    0.1,
                    _TENTH,
                ),
            ),
            reading="A growing norm alone raises the cosine with depth.",
        ),
    ),
)
