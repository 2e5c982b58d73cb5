"""How word_formation is cut: the list of words, pairs of one length, words with two forms, cases of each probe."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import Earlier, Inputs, TokenisedWord, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.word_formation.items.design import Erased, Pair, Twin
from layerscope.experiments.word_formation.settings import Settings
from layerscope.results.schema import read_json
from layerscope.text.tokens import BosPolicy

_PAIRS_OF_AN_ITEM = 8


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


def one_design(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DesignItem]:
    """The whole list of words, refused where none is split."""
    if not any(len(word.ids) > 1 for word in inputs.words):
        raise LayerscopeError(
            "there is no split word",
            found=f"{len(inputs.words)} words, each of one token",
            expected="words of two tokens and more on this tokenizer",
            hint="--words FILE with rarer words",
        )
    yield DesignItem(name="words", size=len(inputs.words), words=inputs.words, bos=inputs.bos)


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
                size=len(part) * (len(head) + pieces),
                head=head,
                pairs=part,
                tokens_per_pass=inputs.tokens_per_pass,
            )


def twins_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TwinsItem]:
    """All words with two forms together, if there are two of them."""
    head = tuple(read_json(earlier["design"], "head"))
    twins = tuple(Twin(**twin) for twin in read_json(earlier["design"], "twins"))
    if len(twins) > 1:
        size = 3.0 * len(twins)
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
            size=float(sum(case.kind == kind for case in cases)),
            head=head,
            kind=kind,
            cases=tuple(case for case in cases if case.kind == kind),
            tokens_per_pass=inputs.tokens_per_pass,
        )
