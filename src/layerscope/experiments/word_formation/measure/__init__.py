"""What word_formation measures: which words are compared, and then pairs, twins and erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from layerscope.contract import Earlier, TokenisedWord
from layerscope.errors import LayerscopeError
from layerscope.experiments.word_formation.items import DesignItem, ErasureItem, PairsItem, TwinsItem
from layerscope.experiments.word_formation.items.design import (
    Pair,
    erased_cases,
    made_up,
    pairs_of,
    twins_of,
)
from layerscope.experiments.word_formation.measure.patching import patch_pairs
from layerscope.experiments.word_formation.measure.states import compare_twins, probed_cases
from layerscope.experiments.word_formation.settings import Settings
from layerscope.results.schema import quantity, write_json
from layerscope.text.tokens import bare_encoding, bos_id

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def design(model: LayeredModel, item: DesignItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """All that is compared, as JSON: it needs the tokenizer, which later items do not have."""
    first = bos_id(model.tokenizer, item.bos)
    head = [*([] if first is None else [first]), *bare_encoding(model.tokenizer, settings.prefix)[0]]
    words = [word for word in item.words if word.ids]
    pairs: list[Pair] = []
    for pieces in range(2, settings.most_pieces + 1):
        found = pairs_of(words, pieces, settings.pairs, settings.seeded("pairs", pieces))
        pairs += found + made_up(found, words, settings.seeded("made up", pieces))
    twins = twins_of(model.tokenizer, words, settings.twin, settings.twins, settings.seeded("twins"))
    erased = erased_cases(words, settings.classes, settings.contexts, settings.seeded("erasure"))
    _check(pairs, words, len(head), model.facts.context, settings)
    by_pieces = {n: sum(len(word.ids) == n for word in words) for n in sorted({len(w.ids) for w in words})}
    counts = quantity(list(by_pieces.values()), "n_pieces", "words of the list by number of pieces")
    counted = xr.Dataset(
        {"words": counts},
        coords={"n_pieces": xr.Variable(("n_pieces",), list(by_pieces), {"long_name": "pieces of a word"})},
    )
    return write_json(
        counted,
        head=head,
        pairs=[pair.model_dump() for pair in pairs],
        twins=[twin.model_dump() for twin in twins],
        erased=[case.model_dump() for case in erased],
    )


def _check(
    pairs: list[Pair], words: list[TokenisedWord], head: int, context: int | None, settings: Settings
) -> None:
    if not pairs:
        longer = sorted({len(word.ids) for word in words if len(word.ids) > settings.most_pieces})
        enough = [n for n in longer if pairs_of(words, n, 1, settings.seeded("pairs", n))]
        raise LayerscopeError(
            "no two split words can be paired",
            found=f"no two words of 2 to {settings.most_pieces} pieces with the same last piece",
            expected="words that share their last piece, such as two that end in the same suffix",
            hint="--words FILE with more words" + (f", or --set most_pieces={enough[0]}" if enough else ""),
        )
    longest = head + max(len(pair.source_ids) for pair in pairs)
    if context is not None and longest > context:
        raise LayerscopeError(
            "the prefix is too long for this model",
            found=f"{longest} tokens with the longest word",
            expected=f"at most {context}",
            hint="a shorter prefix",
        )


def pairs(model: LayeredModel, item: PairsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Some pairs, patched."""
    return patch_pairs(model, item.head, item.pairs, item.tokens_per_pass)


def twins(model: LayeredModel, item: TwinsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Words in two forms, compared."""
    return compare_twins(model, item.head, item.twins, item.tokens_per_pass)


def erasure(model: LayeredModel, item: ErasureItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Probes of one kind, on held-out words."""
    return probed_cases(model, item.head, item.cases, item.tokens_per_pass, settings.penalty)
