"""How syntax_probe is cut: sentences, texts to be read, probes of one depth, passages, labels of documents."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.probing import GroupItem, Weights, depth_chunks, group_items
from layerscope.experiments.syntax_probe.items.design import Design, design_of
from layerscope.experiments.syntax_probe.items.passages import PassageItem, passage_items, read_of_any_label
from layerscope.experiments.syntax_probe.items.sentences import (
    SentencesItem,
    chosen_sentences,
    sentence_items,
)
from layerscope.experiments.syntax_probe.settings import Piece, Settings
from layerscope.text.tokenised_words import TokenisedSentence

_A_CASE = 3.8e4
"""Operations for each word and entry of its state, of all probes of a depth: labels times steps, seen by trying."""

_READ_OF_A_PASSAGE = 7  # tokens behind its label: 1, 2, 4, ... 64


class FitItem(WorkItem):
    """All probes at one depth of one model, on one draw of training documents."""

    weights: Weights
    piece: Piece
    draw: int
    depth: int

    @property
    def main(self) -> bool:
        """Whether controls and codes belong to it: probes of the model itself, at the last token of a word."""
        return self.weights == "trained" and self.piece == "last"


class DepthsItem(WorkItem):
    """All labels of documents at some depths, which are fitted together."""

    depths: tuple[int, ...]


def design(earlier: Earlier, settings: Settings) -> Design:
    """What is asked about which words, from the stage of words."""
    return design_of(
        earlier["words"], tasks=settings.tasks, next_word=settings.next_word, fewest=settings.fewest
    )


def sentences(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SentencesItem]:
    """Sentences to train on and to test on; columns of passages that cannot be asked about are refused first."""
    next(passages(inputs, settings, earlier), None)
    yield from sentence_items(_chosen(inputs, settings))


def _chosen(inputs: Inputs, settings: Settings) -> list[tuple[TokenisedSentence, int]]:
    return chosen_sentences(
        inputs.treebank,
        seed=settings.seed,
        draws=settings.draws,
        train_words=settings.train_words,
        test_words=settings.test_words,
        one_to_one=settings.kept_words == "one_to_one",
    )


def groups(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[GroupItem]:
    """Sentences in groups that are read into the cache of states, by the model and by its untrained twin."""
    tokens = design(earlier, settings).tokens
    for weights in _weights(settings):
        yield from group_items(tokens, weights, "sentences", facts=inputs.facts)


def expected_groups(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of what is read, before words are chosen."""
    tokens = sum(len(sentence.tokens) for sentence, _ in _chosen(inputs, settings))
    return (inputs.facts.operations(tokens) for _ in _weights(settings))


def _weights(settings: Settings) -> list[Weights]:
    return ["trained", "untrained"] if settings.untrained else ["trained"]


def fits(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FitItem]:
    """Probes of every depth: of the model in every draw, of its first pieces and of its twin in the first."""
    asked = design(earlier, settings)
    several = bool((asked.rows[0] != asked.rows[1]).any())
    yield from _fits(inputs, settings, words=len(asked.tested) + settings.train_words, several=several)


def expected_fits(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of the probes, before words are chosen."""
    words = settings.test_words + settings.train_words
    return (item.size for item in _fits(inputs, settings, words=words, several=True))


def _fits(inputs: Inputs, settings: Settings, *, words: int, several: bool) -> Iterator[FitItem]:
    cost = _A_CASE * words * inputs.facts.width
    for weights, piece in product(_weights(settings), settings.pieces):
        if piece == "first" and (weights == "untrained" or not several):
            continue
        main = weights == "trained" and piece == "last"
        for draw, depth in product(range(settings.draws if main else 1), range(inputs.facts.n_layers + 1)):
            yield FitItem(
                name=f"{weights}, {piece} token, depth {depth}",
                size=cost * (1 + 2 * main),
                weights=weights,
                piece=piece,
                draw=draw,
                depth=depth,
            )


def passages(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    """Passages with labels that enough of them share."""
    if settings.labels:
        yield from passage_items(
            inputs.passages,
            settings.announced,
            settings.label_tokens,
            settings.documents_per_label,
            settings.label_columns,
        )


def label_fits(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DepthsItem]:
    """All depths, as many at a time as memory allows; none where no passage has a label."""
    rows = earlier["passages"]
    if "token_passage" not in rows.coords:
        return
    read = len(read_of_any_label(rows))
    for depths in depth_chunks(inputs.facts.n_layers + 1, read, inputs.facts.width):
        yield DepthsItem(
            name=f"labels, depths {depths.start} to {depths.stop - 1}",
            size=_size_of_labels(len(depths), read, inputs),
            depths=tuple(depths),
        )


def expected_label_fits(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of the probes of labels, before passages are read."""
    labelled = sum(item.tokens > 0 for item in passages(inputs, settings, {}))
    if labelled:
        yield _size_of_labels(inputs.facts.n_layers + 1, _READ_OF_A_PASSAGE * labelled, inputs)


def _size_of_labels(depths: int, cases: int, inputs: Inputs) -> float:
    return depths * _A_CASE * cases * inputs.facts.width
