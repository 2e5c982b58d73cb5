"""Where are the pieces of a split word joined into one?

Three looks at words of several tokens, all over depth. Paired patching: two words that share their last
piece stand behind one prefix; the states of one word's pieces are put into the other's run, and the
recovery of the first word's next-token prediction is read. Early on it comes with the earlier pieces'
states, later with the last piece's: they cross where the word is joined. What attention and what the MLP
of each block add at the last piece is put in likewise. Twins: words that are one token are written in two
pieces, and the last piece's state is compared with the single token's. Erasure: a probe is trained, on
other words, to tell from the last piece's state which piece came before.

Each has its control. Pairs with the same earlier pieces before another last piece, which make no word of
the list. The same last piece behind another word's first piece. The word before a word, told across the
blank instead of within a word.

Beware: putting in a state shows what is sufficient there, on a prediction that a short prefix hardly
supports. A forced split is a spelling that the model may never have met. That a probe cannot tell the
earlier piece does not show that nothing of it is left. "Made up" means only: not in this list.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", multiply-tokenised words; Feucht et al. 2024,
"Token Erasure as a Footprint of Implicit Vocabulary Items"; Kaplan et al. 2024, "From Tokens to Words";
Busigin & Pinter 2026, paired patching of split words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments import _formation_claims, _formation_figures, _formation_runs, _formation_summary
from layerscope.experiments._formation_design import (
    Erased,
    Pair,
    Twin,
    erased_cases,
    made_up,
    pairs_of,
    twins_of,
)
from layerscope.results.schema import quantity, read_json, write_json
from layerscope.text.tokenised_words import TokenisedWord
from layerscope.text.tokens import BosPolicy, bare_encoding, bos_id

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"words"}

_PAIRS_OF_AN_ITEM = 8


class Settings(ExperimentSettings):
    """Choices of word_formation."""

    prefix: str = Field("It was about", description="text before every word")
    most_pieces: int = Field(3, ge=2, description="words of 2 to so many pieces are paired")
    pairs: int = Field(12, ge=1, description="pairs of words of each number of pieces; no word is in two")
    smallest: float = Field(
        0.05,
        gt=0,
        description="pairs whose predictions are less than this many nats apart are left out of averages",
    )
    twin: str = Field(
        "merges",
        pattern="^(merges|blank|capital)$",
        description="how a word of one token gets a form of several: the tokenizer's last merge undone ('merges'), "
        "without the blank before it ('blank'), or with a capital ('capital')",
    )
    twins: int = Field(60, ge=2, description="words with two forms that are compared")
    classes: int = Field(
        8, ge=2, description="pieces (and words) that the erasure probes tell apart, at most"
    )
    contexts: int = Field(4, ge=1, description="words before which each word of the erasure probes is put")
    penalty: float = Field(
        1.0, gt=0, description="weight of half the squared norm of the probes' weights beside the summed loss"
    )
    erasure_from: int = Field(1, ge=0, description="depth from which the fall of the probe is counted")
    erasure_to: int | None = Field(
        None, ge=1, description="depth to which it is counted; by default 9/32 of the blocks (Feucht et al.)"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of pairs, words and probed tokens")


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


def _one_design(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DesignItem]:
    if not any(len(word.ids) > 1 for word in inputs.words):
        raise LayerscopeError(
            "there is no split word",
            found=f"{len(inputs.words)} words, each of one token",
            expected="words of two tokens and more on this tokenizer",
            hint="--words FILE with rarer words",
        )
    yield DesignItem(name="words", size=len(inputs.words), words=inputs.words, bos=inputs.bos)


def _design(model: LayeredModel, item: DesignItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
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


def _pairs_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PairsItem]:
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


def _pairs(model: LayeredModel, item: PairsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return _formation_runs.patch_pairs(model, item.head, item.pairs, item.tokens_per_pass)


def _twins_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TwinsItem]:
    head = tuple(read_json(earlier["design"], "head"))
    twins = tuple(Twin(**twin) for twin in read_json(earlier["design"], "twins"))
    if len(twins) > 1:
        size = 3.0 * len(twins)
        yield TwinsItem(
            name="twins", size=size, head=head, twins=twins, tokens_per_pass=inputs.tokens_per_pass
        )


def _twins(model: LayeredModel, item: TwinsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return _formation_runs.compare_twins(model, item.head, item.twins, item.tokens_per_pass)


def _erasure_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ErasureItem]:
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


def _erasure(model: LayeredModel, item: ErasureItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return _formation_runs.erasure(
        model, item.head, item.cases, item.kind, item.tokens_per_pass, settings.penalty
    )


STAGES = (
    Stage("design", items=_one_design, measure=_design),
    Stage("pairs", items=_pairs_items, measure=_pairs),
    Stage("twins", items=_twins_items, measure=_twins),
    Stage("erasure", items=_erasure_items, measure=_erasure),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Recoveries, crossings and centroids by number of pieces, likeness to twins, and the fall of the probes."""
    return _formation_summary.conclude(stages, settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where words are joined, by what, and whether made-up ones are joined alike."""
    return _formation_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Recovery by the last piece's state, beside that of made-up words."""
    return _formation_claims.over_depth(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Patched pairs, parts of blocks, twins, erasure."""
    return _formation_figures.draw(result)


def seeded(settings: Settings, *names: object) -> np.random.Generator:
    """A numpy generator of a named stream of the run's seed."""
    return np.random.default_rng(runs.stream(settings.seed, *names).initial_seed())
