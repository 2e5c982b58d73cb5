"""How word_formation is cut: the list of words, pairs of one length, words with two forms, cases of each probe."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import OPERATIONS_A_SECOND, Earlier, Inputs, TokenisedWord, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.word_formation.items.design import Erased, Pair, Twin
from layerscope.experiments.word_formation.settings import Settings
from layerscope.results.schema import read_json
from layerscope.text.tokens import BosPolicy

_PAIRS_OF_AN_ITEM = 8
_HEAD = 4  # tokens before a word, about
_TEXTS_OF_A_TWIN, _WORDS_OF_A_CLASS = 3, 5


class DesignItem(WorkItem):
    """The list of words."""

    words: tuple[TokenisedWord, ...]
    bos: BosPolicy


class PairsItem(WorkItem):
    """Some pairs of equally many pieces."""

    head: tuple[int, ...]
    pairs: tuple[Pair, ...]
    tokens_per_pass: int


class TwinsItem(WorkItem):
    """Words with two forms."""

    head: tuple[int, ...]
    twins: tuple[Twin, ...]
    tokens_per_pass: int


class ErasureItem(WorkItem):
    """Cases of one kind."""

    head: tuple[int, ...]
    kind: str
    cases: tuple[Erased, ...]
    tokens_per_pass: int


def _size_of_pairs(inputs: Inputs, pairs: int, tokens: int) -> float:
    """Whole texts, and at every depth a state that is put into another, through the layers from there on."""
    layers = inputs.facts.n_layers
    return inputs.facts.operations(pairs * tokens * (layers / 2 + 5), logits=pairs * layers)


def expected_pairs(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes before words are paired: as many of each number of pieces and of each kind as were asked for."""
    for pieces in range(2, settings.most_pieces + 1):
        for _ in range(2):
            for start in range(0, settings.pairs, _PAIRS_OF_AN_ITEM):
                yield _size_of_pairs(inputs, min(_PAIRS_OF_AN_ITEM, settings.pairs - start), _HEAD + pieces)


def _size_of_twins(inputs: Inputs, twins: int, head: int) -> float:
    return inputs.facts.operations(_TEXTS_OF_A_TWIN * twins * (head + 2))


def expected_twins(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Size before words with two forms are found."""
    yield _size_of_twins(inputs, settings.twins, _HEAD)


def _size_of_cases(inputs: Inputs, cases: int, head: int) -> float:
    return inputs.facts.operations(cases * (head + 4))


def expected_erasures(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes before cases are found."""
    return (
        _size_of_cases(inputs, settings.classes * settings.contexts * _WORDS_OF_A_CLASS, _HEAD)
        for _ in range(2)
    )


def one_design(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DesignItem]:
    """The whole list of words, refused where none is split."""
    if not any(len(word.ids) > 1 for word in inputs.words):
        raise LayerscopeError(
            "there is no split word",
            found=f"{len(inputs.words)} words, each of one token",
            expected="words of two tokens and more on this tokenizer",
            hint="--words FILE with rarer words",
        )
    yield DesignItem(
        name="words", size=len(inputs.words) * 2e-4 * OPERATIONS_A_SECOND, words=inputs.words, bos=inputs.bos
    )


def pairs_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PairsItem]:
    """Pairs of equally many pieces and one kind, a few at a time."""
    head = tuple(read_json(earlier["design"], "head"))
    pairs = [Pair(**pair) for pair in read_json(earlier["design"], "pairs")]
    kinds = dict.fromkeys((len(pair.source_ids), pair.kind) for pair in pairs)
    for pieces, kind in kinds:
        same = [pair for pair in pairs if (len(pair.source_ids), pair.kind) == (pieces, kind)]
        for start in range(0, len(same), _PAIRS_OF_AN_ITEM):
            part = tuple(same[start : start + _PAIRS_OF_AN_ITEM])
            yield PairsItem(
                name=f"{kind} of {pieces} pieces",
                size=_size_of_pairs(inputs, len(part), len(head) + pieces),
                head=head,
                pairs=part,
                tokens_per_pass=inputs.tokens_per_pass,
            )


def twins_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TwinsItem]:
    """All words with two forms together, if there are two of them."""
    head = tuple(read_json(earlier["design"], "head"))
    twins = tuple(Twin(**twin) for twin in read_json(earlier["design"], "twins"))
    if len(twins) > 1:
        size = _size_of_twins(inputs, len(twins), len(head))
        yield TwinsItem(
            name="twins", size=size, head=head, twins=twins, tokens_per_pass=inputs.tokens_per_pass
        )


def erasure_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ErasureItem]:
    """All cases of a kind together: one set of probes."""
    head = tuple(read_json(earlier["design"], "head"))
    cases = tuple(Erased(**case) for case in read_json(earlier["design"], "erased"))
    for kind in dict.fromkeys(case.kind for case in cases):
        yield ErasureItem(
            name=f"piece before, {kind}",
            size=_size_of_cases(inputs, sum(case.kind == kind for case in cases), len(head)),
            head=head,
            kind=kind,
            cases=tuple(case for case in cases if case.kind == kind),
            tokens_per_pass=inputs.tokens_per_pass,
        )
