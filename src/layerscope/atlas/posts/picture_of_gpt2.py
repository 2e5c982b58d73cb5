"""Megan Kinniment, "Recall and Regurgitation in GPT2", second half: a picture of the whole model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerscope.atlas.posts.reading import DEPTH, between, layers_of, less, of_curve, over_places, stated
from layerscope.atlas.verdicts import CannotBeDecidedError, Estimate, Part, Pinned, Post, PostClaim, Results

LAST = Pinned.of("final_token_attention")
PATTERNS = Pinned.of("attention_patterns")
ALONG = Pinned.of("first_token_attention")
SYNTAX = Pinned.of("syntax_probe")
TRIGGERS = Pinned.of("trigger_examples")
_WITHOUT = "without first token"


def _first_beyond_uniform(results: Results) -> Estimate:
    result = results[LAST]
    uniform = float(result["uniform_overall"].sel(row="first token"))
    return of_curve(
        result,
        "overall_attention",
        lambda curves: curves.mean(axis=-1) - uniform,
        units="prompts",
        weighting="attention",
        row="first token",
    )


def _end_of_even_attention(results: Results) -> Estimate:
    """Where the share on the first token passes 0.3, less the eighth of 48 layers."""
    result = results[PATTERNS]
    found = stated(
        result,
        "block_end",
        times=1 / layers_of(result),
        unit=DEPTH,
        units="passages",
        sink_measure="first token",
        threshold=0.3,
    )
    moved = 8 / 48
    return Estimate(
        found.value - moved, found.low - moved, found.high - moved, DEPTH, found.n, found.units, found.level
    )


def _sharpness(results: Results) -> Estimate:
    result = results[PATTERNS]
    late, early = (
        stated(result, "block_end", units="passages", sink_measure="first token", threshold=threshold)
        for threshold in (0.3, 0.1)
    )
    return less(late, early, times=1 / layers_of(result), unit=DEPTH)


def _last_layer(results: Results) -> Estimate:
    result = results[PATTERNS]
    return of_curve(
        result,
        "first_token_share",
        lambda curves: curves[..., :-1].max(axis=-1) - curves[..., -1],
        definition="all keys",
    )


def _diffuse(results: Results) -> Estimate:
    """Effective span without the first token, middle third over first third, in logs."""
    result = results[PATTERNS]
    middle, early = (
        over_places(result, "span", between(result, *ends), definition=_WITHOUT)
        for ends in ((1 / 3, 2 / 3), (0, 1 / 3))
    )
    return less(*(_log(one) for one in (middle, early)))


def _log(one: Estimate) -> Estimate:
    value, low, high = (float(np.log(x)) for x in (one.value, one.low, one.high))
    return Estimate(value, low, high, "1", one.n, one.units, one.level)


def _along(results: Results, position: float) -> Estimate:
    """Attention to the first token at the stretch nearest a position; nothing added before texts, if so read."""
    result = results[ALONG]
    readings = [str(name) for name in result.reading.values]
    reading = "nothing added" if "nothing added" in readings else str(result.attrs["main_reading"])
    at = int(np.argmin(np.abs(result.stretch.values - position)))
    here = result.isel(stretch=at)
    if not np.isfinite(here["overall_along"].sel(reading=reading)):
        raise CannotBeDecidedError("texts are too short")
    return stated(here, "overall_along", unit="share", units="passages", reading=reading)


def _falls(results: Results) -> Estimate:
    return less(_along(results, 3), _along(results, 50), unit="share")


def _stays(results: Results) -> Estimate:
    return _along(results, 512)


def _content(of_last: bool) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        result = results[PATTERNS]
        layers = layers_of(result)
        middle = [layer for layer in between(result, 1 / 3, 1.0) if layer < layers - 1]
        other = [layers - 1] if of_last else between(result, 0, 1 / 3)
        return less(
            *(over_places(result, "variability", some, definition=_WITHOUT) for some in (middle, other)),
            unit="share",
        )

    return read


def _depth_of(task: str, results: Results) -> Estimate:
    return stated(
        results[SYNTAX],
        "best_depth",
        times=1 / layers_of(results[SYNTAX]),
        unit=DEPTH,
        units="documents",
        task=task,
    )


def _speech_first(results: Results) -> Estimate:
    return less(_depth_of("relation", results), _depth_of("part of speech", results), unit=DEPTH)


def _next_late(results: Results) -> Estimate:
    found = _depth_of("next relation", results)
    return Estimate(
        found.value - 0.5, found.low - 0.5, found.high - 0.5, DEPTH, found.n, found.units, found.level
    )


def _halves(statistic: str, sign: float) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        return stated(results[TRIGGERS], "halves", times=sign, units="keys", statistic=statistic)

    return read


_NOTED = "a share that a reader of the post's figure would see"

POST = Post(
    "picture-of-gpt2",
    "Recall and Regurgitation in GPT2 (Megan Kinniment, 2022): the structure of the model",
    (
        PostClaim(
            "rests on the first token",
            "The last token attends far more to the first token than chance.",
            "Attentional patterns",
            (
                Part(
                    "share on the first token beyond uniform attention, mean over layers",
                    LAST,
                    _first_beyond_uniform,
                    "above",
                    0.1,
                    _NOTED,
                ),
            ),
            published="GPT-2 small: 57% of all attention (Vig & Belinkov 2019)",
        ),
        PostClaim(
            "even attention ends after a sixth",
            "The first 8 of 48 layers and the last one spread attention evenly, and that ends sharply.",
            "Distributed attention layers",
            (
                Part(
                    "depth at which heads give the first token 0.3, less 8/48",
                    PATTERNS,
                    _end_of_even_attention,
                    "within",
                    0.1,
                    "five layers of 48",
                ),
                Part(
                    "depth from a share of 0.1 to one of 0.3",
                    PATTERNS,
                    _sharpness,
                    "within",
                    0.1,
                    "sharp: within five layers of 48",
                ),
                Part(
                    "largest share on the first token less that of the last layer",
                    PATTERNS,
                    _last_layer,
                    "above",
                    0.2,
                    "a fifth of all attention",
                ),
            ),
            published="GPT-2 XL: layer 8 of 48",
            reading="Read on passages; the post looks at the last token of prompts.",
        ),
        PostClaim(
            "early layers lack diffuse attention",
            "In GPT-2 small, early layers do not spread attention more widely than later ones.",
            "Distributed attention layers",
            (
                Part(
                    "log effective span without the first token, middle third less first",
                    PATTERNS,
                    _diffuse,
                    "above",
                    0.0,
                    "the claim is of a direction",
                ),
            ),
            published="GPT-2 small, by eye",
        ),
        PostClaim(
            "falls, then stays",
            "Attention to the first token falls over the first 50 tokens and stays above 0.25 to 512.",
            "GPT2 likes looking at the first token",
            (
                Part("share at token 3 less that at token 50", ALONG, _falls, "above", 0.1, _NOTED),
                Part(
                    "share at token 512, or the last that is read",
                    ALONG,
                    _stays,
                    "above",
                    0.25,
                    "the figure published",
                ),
            ),
            published="GPT-2 XL: never below 0.25",
            reading="Texts shorter than 512 tokens are read to their end.",
        ),
        PostClaim(
            "content heads come later",
            "Heads whose attention varies with content come later; the first third and the last layer are positional.",
            "Attention on content vs position (Vig & Belinkov 2019)",
            (
                Part(
                    "variability, later layers less first third",
                    PATTERNS,
                    _content(False),
                    "above",
                    0.05,
                    "a twentieth of the attention",
                ),
                Part(
                    "variability, later layers less the last",
                    PATTERNS,
                    _content(True),
                    "above",
                    0.05,
                    "a twentieth of the attention",
                ),
            ),
            by="Vig & Belinkov 2019, leaned on",
        ),
        PostClaim(
            "part of speech before dependency",
            "Part of speech is decodable earlier than dependency; labels of the next token in the second half.",
            "Layer-wise fine-tuning (Power 2020)",
            (
                Part(
                    "best depth, relation less part of speech",
                    SYNTAX,
                    _speech_first,
                    "above",
                    0.05,
                    "more than one layer of twenty",
                ),
                Part(
                    "best depth of the next token's relation, less one half",
                    SYNTAX,
                    _next_late,
                    "above",
                    0.0,
                    "the claim is of a half",
                ),
            ),
            by="Power 2020, leaned on",
            published="GPT-2 small: losses least at depths 3, 5 and 8 of 12",
        ),
        PostClaim(
            "late triggers are semantic",
            "Triggers of late MLP keys share a topic, those of early ones their last word.",
            "Trigger examples in MLPs (Geva 2021)",
            (
                Part(
                    "coherence of contexts, upper half less lower",
                    TRIGGERS,
                    _halves("coherence", 1.0),
                    "above",
                    0.02,
                    "a hundredth of a cosine's range",
                ),
                Part(
                    "same last token, lower half less upper",
                    TRIGGERS,
                    _halves("shared_last_token", -1.0),
                    "above",
                    0.05,
                    "one pair in twenty",
                ),
            ),
            by="Geva et al. 2021, leaned on",
            published="a 16-layer model: layers 1-9 shallow, 10-16 semantic",
        ),
    ),
)
