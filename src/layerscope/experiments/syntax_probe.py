"""At which depth can part of speech and dependency be read off a state, of this token and the next?

For every depth, linear probes on frozen states, for coarse and fine part of speech and the relation to the
head, of the word that the state stands at and of the next one, on sentences of a treebank read one by one;
and for labels of whole documents (register, genre, language) on passages, by how much has been read since
the label was given. Words of any number of tokens are read at their last token, and at their first.

Each probe is a multinomial logistic regression, fitted to its optimum on some documents and tested on
others. Beside loss, accuracy and macro-F1 stand what they must be held against: what the word type alone
tells, and type with position; a control task, in which every word type has a label by chance, so that
accuracy less control (selectivity) is not owed to learning words by heart; the same probes on the model's
untrained twin; and the length of an online code, which tells a label that lies open from one that much data
digs out. Intervals are over test documents.

Beware: what can be read off is not thereby used by the model. Depth 0 is the embedding: what it tells is
the token's own doing. Losses of tasks with different labels do not compare.

Source: Power 2020, "Looking for Grammar in all the Right Places" (frozen GPT-2, linear heads at every
depth, this and the next word); Hewitt & Liang 2019 (control tasks); Voita & Titov 2020 (online code).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr
from pydantic import Field

from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage
from layerscope.evidence.probing import GroupItem, Weights, group_items, model_of, read_group
from layerscope.experiments import _document_labels as document_labels
from layerscope.experiments import _labelled_passages as labelled_passages
from layerscope.experiments import _syntax_claims, _syntax_figures, _syntax_scores
from layerscope.experiments._syntax_fitting import FitItem, Fitting, Piece, fit
from layerscope.experiments._syntax_rows import Design, design_of, words_of
from layerscope.experiments._syntax_sentences import SentencesItem, chosen_sentences, sentence_items

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"treebank", "passages"}
NEEDS = {"treebank"}

TaskName = Literal["part of speech", "fine part of speech", "relation", "head", "genre"]


class Settings(ExperimentSettings):
    """Choices about what is read, how probes are fitted, and what they are held against."""

    tasks: tuple[TaskName, ...] = Field(
        ("part of speech", "fine part of speech", "relation", "genre"),
        description="what is asked about words; a task that the treebank does not annotate is passed over, and "
        "that is said. 'head' (not by default): on which side and how far away the head stands, with Hewitt and "
        "Liang's control for dependencies",
    )
    next_word: bool = Field(True, description="whether each task is also asked about the next word")
    pieces: tuple[Piece, ...] = Field(
        ("last", "first"),
        description="tokens of a word that are read; first tells of words of several tokens",
    )
    train_words: int = Field(
        1200, ge=50, description="words to learn from, in each draw; more make rare labels readable"
    )
    test_words: int = Field(1200, ge=20, description="words to test on")
    draws: int = Field(
        1, ge=1, le=60, description="draws of training documents and control labels; their spread is reported"
    )
    kept_words: Literal["all", "one_to_one"] = Field(
        "all",
        description="one_to_one keeps sentences whose words are one token each, as the grammar post did: then "
        "nothing is said about words of several tokens",
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
    untrained: bool = Field(True, description="whether the untrained twin is measured too")
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
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, gt=1, description="bootstrap resamples of test documents")


def _design(earlier: Earlier, settings: Settings) -> Design:
    return design_of(
        earlier["words"], tasks=settings.tasks, next_word=settings.next_word, fewest=settings.fewest
    )


def _weights(settings: Settings) -> list[Weights]:
    return ["trained", "untrained"] if settings.untrained else ["trained"]


def _sentences(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SentencesItem]:
    next(_passages(inputs, settings, earlier), None)  # columns that cannot be asked about are refused first
    chosen = chosen_sentences(
        inputs.treebank,
        seed=settings.seed,
        draws=settings.draws,
        train_words=settings.train_words,
        test_words=settings.test_words,
        one_to_one=settings.kept_words == "one_to_one",
    )
    yield from sentence_items(chosen)


def _words(model: LayeredModel, item: SentencesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return words_of(item, final_punctuation=settings.final_punctuation, subtypes=settings.subtypes)


def _groups(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[GroupItem]:
    tokens = _design(earlier, settings).tokens
    for weights in _weights(settings):
        yield from group_items(tokens, weights, "sentences")


def _read(model: LayeredModel, item: GroupItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    which = model_of(model, item.weights, settings.seed)
    return read_group(which, item, _design(earlier, settings).tokens)


def _fits(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FitItem]:
    design = _design(earlier, settings)
    cost = len(design.tested) + settings.train_words
    several = bool((design.rows[0] != design.rows[1]).any())
    for weights in _weights(settings):
        for piece in settings.pieces:
            if piece == "first" and (weights == "untrained" or not several):
                continue
            for draw in range(settings.draws if weights == "trained" and piece == "last" else 1):
                for depth in range(inputs.facts.n_layers + 1):
                    yield FitItem(
                        name=f"{weights}, {piece} token, depth {depth}",
                        size=cost * (1 + 2 * (weights == "trained" and piece == "last")),
                        weights=weights,
                        piece=piece,
                        draw=draw,
                        depth=depth,
                    )


def _fit(model: LayeredModel, item: FitItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    main = item.weights == "trained" and item.piece == "last"
    how = Fitting(
        l2=settings.l2,
        tolerance=settings.tolerance,
        truncated=settings.read == "truncated",
        controls=settings.controls and main,
        code=settings.code and main,
        seed=settings.seed,
    )
    return fit(model_of(model, item.weights, settings.seed), item, _design(earlier, settings), how)


def _passages(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[Any]:
    if settings.labels:
        yield from labelled_passages.passage_items(
            inputs.passages,
            settings.announced,
            settings.label_tokens,
            settings.documents_per_label,
            settings.label_columns,
        )


def _label_fits(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[Any]:
    yield from document_labels.depth_items(earlier["passages"], inputs.facts.n_layers, inputs.facts.width)


def _label_fit(model: LayeredModel, item: Any, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return document_labels.fit_labels(
        model,
        item,
        earlier["passages"],
        l2=settings.l2,
        tolerance=settings.tolerance,
        seed=settings.seed,
    )


STAGES = (
    Stage("words", items=_sentences, measure=_words),
    Stage("states", items=_groups, measure=_read, along=("group",)),
    Stage("fits", items=_fits, measure=_fit, along=("fit",)),
    Stage("passages", items=_passages, measure=labelled_passages.rows_of),
    Stage("labels", items=_label_fits, measure=_label_fit, along=("fit",)),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Scores over depth with intervals over test documents, and the answer about every tested word."""
    words = _syntax_scores.conclude(
        stages["words"],
        stages["fits"],
        _design(stages, settings),
        asked=settings.tasks,
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return document_labels.concluded(
        words, stages["passages"], stages["labels"], settings.seed, settings.level, settings.resamples
    )


def claims(result: xr.Dataset) -> list[Claim]:
    """For each task what can be read best, where, and beyond what; and for labels of documents."""
    return _syntax_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """How much more than the word type tells can be read off about this word's relation (or first task)."""
    return _syntax_scores.strip(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Gains over depth, trained and untrained; accuracy, selectivity, codes; first pieces; documents."""
    return _syntax_figures.draw(result)
