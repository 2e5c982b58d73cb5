"""Nanda et al., "Do early layers specialise in local processing?" (23 December 2023), with the objections.

The objections are Linda Linsefors'. Layers were counted from 0 after a block, of 32: layer 0 is depth 1 here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerscope.atlas.posts.reading import (
    DEPTH,
    between,
    by_unit,
    layers_of,
    less,
    mean_over,
    of_curve,
    over_places,
    stated,
)
from layerscope.atlas.verdicts import CannotBeDecidedError, Estimate, Part, Pinned, Post, PostClaim, Results

CUT = Pinned.of("truncated_context")
READING = Pinned.of("context_reading")
KNOCKOUT = Pinned.of("attention_knockout")
_KEPT, _NEAR, _FAR = 5, "1 to 9 back", "128 back and more"


def _at(depths: int, fraction: float) -> int:
    return round(fraction * (depths - 1))


def _early_fall(curves: np.ndarray) -> np.ndarray:
    return np.asarray(curves[..., 1] - curves[..., _at(curves.shape[-1], 1 / 3)])


def _later_fall(curves: np.ndarray) -> np.ndarray:
    size = curves.shape[-1]
    return np.asarray(curves[..., _at(size, 1 / 3)] - curves[..., _at(size, 2 / 3)])


def _of_five(formula: Callable[[np.ndarray], np.ndarray]) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        return of_curve(results[CUT], "median_similarity", formula, context_length=_KEPT)

    return read


def _last_beyond_the_step_before(results: Results) -> Estimate:
    return _of_five(lambda c: (c[..., -1] - c[..., -2]) - (c[..., -2] - c[..., -3]))(results)


def _ten_short_of_one(results: Results) -> Estimate:
    return of_curve(
        results[CUT],
        "median_similarity",
        lambda curves: 1 - curves[..., _at(curves.shape[-1], 2 / 3)],
        context_length=10,
    )


def _below_alphabetic(category: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        return stated(results[CUT], "category_difference", times=-1.0, units="passages", category=category)

    return read


def _other_above_full_stops(results: Results) -> Estimate:
    result = results[CUT].sel(depth=1)
    return less(
        *(
            stated(result, "category_similarity", units="passages", category=name)
            for name in ("other", "full stop")
        )
    )


def _long_tail(results: Results) -> Estimate:
    """How much farther the lowest twentieth of tokens lies below the median than the highest above it, by passage."""
    result = results[CUT]
    depth = _at(result.sizes["depth"], 0.5)
    values = result["similarity"].sel(kept_tokens=_KEPT).isel(depth=depth).values
    owners = result["token_passage"].values.astype(str)
    tails = [
        np.dot([1.0, -2.0, 1.0], -np.nanquantile(values[owners == name], [0.05, 0.5, 0.95]))
        for name in np.unique(owners)
    ]
    return mean_over(np.array(tails), units="passages")


def _later(far: str, needs: Pinned) -> Callable[[Results], Estimate]:
    """Centroid of depth of a far range less that of the near one, within passages."""

    def read(results: Results) -> Estimate:
        result = results[needs]
        over = "range" if "range" in result["passage_centroid"].dims else "edges"
        here = result["passage_centroid"]
        if "window" in here.dims:
            here = here.isel(window=0)
        if far not in here[over].values.tolist():
            raise CannotBeDecidedError(f"no context {far} was read")
        gaps = here.sel({over: far}) - here.sel({over: _NEAR})
        return mean_over(gaps.values / layers_of(result), unit=DEPTH, units="passages")

    return read


def _steps_together(results: Results) -> Estimate:
    """Correlation over layers of the steps of the curves of 5 and of 10 tokens."""

    def correlation(curves: np.ndarray) -> np.ndarray:
        steps = np.diff(curves, axis=-1)
        steps = steps - steps.mean(axis=-1, keepdims=True)
        five, ten = steps[..., 0, :], steps[..., 1, :]
        size = np.sqrt((five**2).sum(-1) * (ten**2).sum(-1))
        return np.asarray((five * ten).sum(-1) / np.where(size > 0, size, np.nan))

    return of_curve(results[CUT], "median_similarity", correlation, context_length=[_KEPT, 10])


def _reads_again(results: Results) -> Estimate:
    """Direct reading of far context at layers 15 to 29 of 32 less that at 10 to 14."""
    result = results[READING]
    again, between_them = (
        over_places(result, "fresh_share", between(result, a / 32, b / 32), range=_FAR)
        for a, b in ((15, 30), (10, 15))
    )
    return less(again, between_them)


def _names(results: Results) -> Estimate:
    """What the state of a name keeps without a word before it, less what it keeps of its last token alone."""
    result = results[CUT]
    if "prefix_similarity" not in result:
        raise CannotBeDecidedError("no names of several tokens were read")
    depth = max(1, _at(result.sizes["depth"], 0.2))
    gaps = (result["prefix_similarity"] - result["last_token_similarity"]).isel(depth=depth).values
    return mean_over(by_unit(gaps, result["name"].values), units="names")


_TWENTIETH = "a twentieth of a cosine"
_LAYER = "more than one layer of twenty"

POST = Post(
    "local-processing",
    "Fact Finding: do early layers specialise in local processing? (Nanda et al., 2023), with Linsefors' objections",
    (
        PostClaim(
            "five tokens keep more than one",
            "After the first layer, the last five tokens keep much more of a state than the token alone.",
            "Early layers softly specialise",
            (
                Part(
                    "similarity, five tokens less one, depth 1",
                    CUT,
                    lambda r: stated(r[CUT], "recent_tokens", units="passages"),
                    "above",
                    0.1,
                    "a tenth of a cosine",
                ),
            ),
            published="Pythia 2.8B, by eye",
        ),
        PostClaim(
            "falls, then plateaus",
            "Similarity with five tokens falls over the first third of depth and then plateaus.",
            "Early layers softly specialise",
            (
                Part("fall over the first third", CUT, _of_five(_early_fall), "above", 0.05, _TWENTIETH),
                Part("fall over the second third", CUT, _of_five(_later_fall), "within", 0.05, _TWENTIETH),
            ),
            published="Pythia 2.8B: layers 0-10 of 32",
        ),
        PostClaim(
            "uptick in the last layer only",
            "Similarity rises in the last layer and not before it.",
            "Early layers softly specialise; footnote 3",
            (
                Part(
                    "step of the last layer",
                    CUT,
                    _of_five(lambda c: c[..., -1] - c[..., -2]),
                    "above",
                    0.01,
                    "a step that can be seen",
                ),
                Part(
                    "step of the last layer less the one before",
                    CUT,
                    _last_beyond_the_step_before,
                    "above",
                    0.01,
                    "a step that can be seen",
                ),
            ),
        ),
        PostClaim(
            "ten tokens are not enough",
            "With the last ten tokens a state is still not near its full one.",
            "Early layers softly specialise",
            (
                Part(
                    "1 less similarity at two thirds of depth",
                    CUT,
                    _ten_short_of_one,
                    "above",
                    0.05,
                    _TWENTIETH,
                ),
            ),
        ),
        PostClaim(
            "alphabetic above common words",
            "After the first layer, ten tokens keep alphabetic tokens better than common words.",
            "Error analysis",
            (
                Part(
                    "similarity, alphabetic less common words",
                    CUT,
                    _below_alphabetic("common word"),
                    "above",
                    0.02,
                    "a fiftieth of a cosine",
                ),
            ),
        ),
        PostClaim(
            "other above punctuation",
            "After the first layer, ten tokens keep other tokens better than punctuation.",
            "Error analysis",
            (
                Part(
                    "similarity, other tokens less full stops",
                    CUT,
                    _other_above_full_stops,
                    "above",
                    0.02,
                    "a fiftieth of a cosine",
                ),
            ),
            reading="Punctuation is read as full stops, the commonest of the three kinds.",
        ),
        PostClaim(
            "long negative tail",
            "Similarities have a long negative tail.",
            "Error analysis",
            (Part("lower tail less upper one, at half depth", CUT, _long_tail, "above", 0.05, _TWENTIETH),),
            reading="Distance of the 5% quantile below the median less that of the 95% quantile above it.",
        ),
        PostClaim(
            "context beyond ten comes later",
            "Context more than 10 tokens back is brought in later than the last tokens.",
            "Introduction",
            (
                Part(
                    "centroid of reading, 10-31 back less 1-9",
                    READING,
                    _later("10 to 31 back", READING),
                    "above",
                    0.05,
                    _LAYER,
                ),
                Part(
                    "centroid of knock-out, 10-31 back less 1-9",
                    KNOCKOUT,
                    _later("10 to 31 back", KNOCKOUT),
                    "above",
                    0.05,
                    _LAYER,
                ),
            ),
            other_side="Near and far context are brought in by the same layers (Linsefors).",
            reading="Both instruments that tell reading from amplification must agree.",
        ),
        PostClaim(
            "context beyond a hundred comes later",
            "Early layers look less at context about 100 tokens back; that comes later.",
            "The authors' reply",
            (
                Part(
                    "centroid of reading, ≥ 128 back less 1-9",
                    READING,
                    _later(_FAR, READING),
                    "above",
                    0.05,
                    _LAYER,
                ),
                Part(
                    "centroid of knock-out, ≥ 128 back less 1-9",
                    KNOCKOUT,
                    _later(_FAR, KNOCKOUT),
                    "above",
                    0.05,
                    _LAYER,
                ),
            ),
            other_side="Near and far context are brought in by the same layers (Linsefors).",
        ),
        PostClaim(
            "near and far in the same layers",
            "Near and far context are read in the same layers.",
            "Comments",
            (
                Part(
                    "centroid of reading, ≥ 128 back less 1-9",
                    READING,
                    _later(_FAR, READING),
                    "within",
                    0.05,
                    _LAYER,
                ),
                Part(
                    "centroid of knock-out, ≥ 128 back less 1-9",
                    KNOCKOUT,
                    _later(_FAR, KNOCKOUT),
                    "within",
                    0.05,
                    _LAYER,
                ),
            ),
            by="Linda Linsefors",
            other_side="Context about 100 tokens back comes later (the authors' reply).",
        ),
        PostClaim(
            "five and ten move together",
            "The curves of five and of ten tokens move together.",
            "Comments",
            (
                Part(
                    "correlation of their steps over depth",
                    CUT,
                    _steps_together,
                    "above",
                    0.8,
                    "two thirds of the variance shared",
                ),
            ),
            by="Linda Linsefors",
            reading="It says nothing of far context: both ranges are near (the authors' reply).",
        ),
        PostClaim(
            "reads again in the second half",
            "Layers 10-14 of 32 work in place, layers 15-29 read from other tokens again.",
            "Comments",
            (
                Part(
                    "direct reading of far context, layers 15-29 less 10-14",
                    READING,
                    _reads_again,
                    "above",
                    0.02,
                    "a fiftieth of what attention adds",
                ),
            ),
            by="Linda Linsefors",
            reading="Direct reading leaves out amplification, which she names as her own caveat.",
        ),
        PostClaim(
            "names do not need what stands before",
            "The state of a name's last token hardly depends on what stands before the name.",
            "Introduction",
            (
                Part(
                    "similarity without a prefix less that of the last token alone",
                    CUT,
                    _names,
                    "above",
                    0.1,
                    "a tenth of a cosine",
                ),
            ),
        ),
    ),
)
