"""Nanda & Gurnee, "Emergent positional embeddings of words" (18 July 2023)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerscope.atlas.posts.reading import by_unit, layers_of, mean_over, stated
from layerscope.atlas.verdicts import CannotBeDecidedError, Estimate, Part, Pinned, Post, PostClaim, Results

PROBE = Pinned.of("word_position_probe")


def _at_a_third(results: Results) -> Estimate:
    result = results[PROBE]
    return stated(result, "score", unit="share", task="last", depth=round(layers_of(result) / 3))


def _fall(beyond_the_task: bool) -> Callable[[Results], Estimate]:
    """Right guesses of the first two words less those of the last two, at the depth of the causal steps, by prompt."""

    def read(results: Results) -> Estimate:
        result = results[PROBE]
        here = result.isel(token=np.flatnonzero(result["case_task"].values == "last"))
        index, owners = here["case_index"].values.astype(int), here["case_prompt"].values
        guesses = here["probability"].isel(depth=int(result.attrs["causal_depth"])).values.argmax(axis=1)
        right = (guesses == index).astype(float)
        if beyond_the_task:
            right -= result["ceiling_recall"].sel(task="last").values[index]
        early, late = index <= 1, index >= int(index.max()) - 1
        return mean_over(
            by_unit(np.where(early, right, np.nan), owners) - by_unit(np.where(late, right, np.nan), owners),
            unit="share",
        )

    return read


def _sentences(results: Results) -> Estimate:
    result = results[PROBE]
    return stated(result, "score", unit="share", task="sentences", depth=int(result.attrs["causal_depth"]))


def _anchor(results: Results) -> Estimate:
    result = results[PROBE]
    if "score_lost" not in result:
        raise CannotBeDecidedError("heads were not ablated")
    return stated(
        result, "score_lost", unit="share", heads_out="anchor", depth=int(result.attrs["causal_depth"])
    )


_SHARE = "a twentieth of the possible gain"

POST = Post(
    "word-positions",
    "Emergent positional embeddings of words (Nanda & Gurnee, 2023)",
    (
        PostClaim(
            "word index is decodable",
            "At a third of depth, the index of a word is decodable beyond its absolute position.",
            "Experiments",
            (Part("score within cells of equal position", PROBE, _at_a_third, "above", 0.05, _SHARE),),
            published="GPT-2 small, depth 4 of 12; the accuracies are lost",
        ),
        PostClaim(
            "later words are worse",
            "Accuracy falls for later words, since counting is hard.",
            "Models are probably bad at counting",
            (
                Part(
                    "right guesses, first two words less last two",
                    PROBE,
                    _fall(False),
                    "above",
                    0.1,
                    "one guess in ten",
                ),
                Part(
                    "the same beyond what position alone allows",
                    PROBE,
                    _fall(True),
                    "above",
                    0.05,
                    "one guess in twenty",
                ),
            ),
            reading="A guesser that sees the position alone is worse for middle words too: that part is the task's.",
        ),
        PostClaim(
            "sentences are counted",
            "Models track the third word of the fifth sentence, not word 98.",
            "Models are probably bad at counting",
            (Part("score of the sentence's index at full stops", PROBE, _sentences, "above", 0.05, _SHARE),),
            reading="Only the first half is tested: that sentences are counted. No text of ours has 98 words to count.",
        ),
        PostClaim(
            "an anchor near the words",
            "Heads count from an anchor near the words, such as a full stop or a newline.",
            "Models are probably bad at counting",
            (
                Part(
                    "score lost without the heads that attend to the anchor",
                    PROBE,
                    _anchor,
                    "above",
                    0.05,
                    _SHARE,
                ),
            ),
        ),
    ),
)
