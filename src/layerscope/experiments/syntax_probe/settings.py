"""Choices of syntax_probe: what is read, how probes are fitted, and what they are compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.evidence.settings import Intervals

TaskName = Literal["part of speech", "fine part of speech", "relation", "head", "genre"]
Piece = Literal["last", "first"]


class Settings(Intervals):
    """Choices about what is read, how probes are fitted, and what they are compared with."""

    tasks: tuple[TaskName, ...] = Field(
        ("part of speech", "fine part of speech", "relation", "genre"),
        description="what is asked about words; a task that the treebank does not annotate is passed over, and "
        "that is said. 'head' (not by default): on which side and how far away the head stands, with Hewitt and "
        "Liang's control for dependencies",
    )
    next_word: bool = Field(True, description="whether each task is also asked about the next word")
    pieces: tuple[Piece, ...] = Field(
        ("last", "first"),
        description="tokens of a word that are read; first differs for words of several tokens",
    )
    train_words: int = Field(
        1200, ge=50, description="words to train on, in each draw; with more, rare labels are asked about too"
    )
    test_words: int = Field(1200, ge=20, description="words to test on")
    draws: int = Field(
        1, ge=1, le=60, description="draws of training documents and control labels; their spread is reported"
    )
    kept_words: Literal["all", "one_to_one"] = Field(
        "all",
        description="one_to_one keeps sentences whose words are one token each, as the grammar post did: then "
        "there is nothing about words of several tokens",
    )
    subtypes: bool = Field(False, description="whether relations keep their subtype (nmod:poss)")
    final_punctuation: bool = Field(
        False, description="whether a sentence's final punctuation is a label of its own, as in the post"
    )
    fewest: int = Field(10, ge=1, description="words that a label must have in every draw to be asked about")
    read: Literal["state", "truncated"] = Field(
        "state",
        description="state: the standardised residual stream; truncated: what the model cut off at this depth "
        "would give a newly trained head, that is the state after the final norm, as in the post",
    )
    l2: float = Field(
        10.0,
        gt=0,
        description="penalty on squared weights, in units of one word's loss (scikit-learn's 1/C). With 1200 "
        "words, 1 overfits: its test losses are higher",
    )
    tolerance: float = Field(
        1e-4,
        gt=0,
        description="share of its objective by which a fit may lie above its optimum",
    )
    untrained: bool = Field(True, description="whether an untrained twin is measured too")
    controls: bool = Field(True, description="whether control tasks are fitted (for selectivity)")
    code: bool = Field(True, description="whether online code lengths are measured")
    labels: bool = Field(True, description="whether labels of passages are measured")
    announced: str = Field(
        r"Speech: (\w+)",
        description="a pattern whose first group is a label that a passage announces, as the bundled world's "
        "dialect; empty for none. Genres of passages need no pattern",
    )
    label_columns: tuple[str, ...] | None = Field(
        None,
        description="further columns of the passages' file that are asked about, such as language or register; by "
        "default every one with two labels that enough passages have",
    )
    label_tokens: int = Field(128, ge=4, description="tokens of a passage that are read for its labels")
    documents_per_label: int = Field(4, ge=2, description="passages that a label must have")
    resamples: int = Field(1000, gt=1, description="bootstrap resamples of test documents")
