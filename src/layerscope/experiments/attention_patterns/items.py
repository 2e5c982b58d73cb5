"""How attention_patterns is cut: which texts are read, and how many at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.batches import in_batches, in_turn
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.text.tokenised import TokenisedPassage
from layerscope.text.tokenised_words import TokenisedSentence

PASSAGES, SENTENCES = "passages", "sentences"
KINDS = (PASSAGES, SENTENCES)

_OPERATIONS_AN_ITEM = 1e12
_MOST_IN_AN_ITEM = 16


class FirstTokensItem(WorkItem):
    """The first tokens of some texts, all equally many."""

    kind: str
    rows: tuple[tuple[int, ...], ...]


class FixedMeansItem(WorkItem):
    """Beginnings of some passages, as far as the fixed queries reach."""

    rows: tuple[tuple[int, ...], ...]
    fixed: tuple[int, int]


class PassagesItem(WorkItem):
    """Some passages, and the queries at which distances are read."""

    passages: tuple[TokenisedPassage, ...]
    fixed: tuple[int, int] | None


class SentencesItem(WorkItem):
    """Some sentences of one length in tokens."""

    sentences: tuple[TokenisedSentence, ...]
    tags: tuple[str, ...]


class RepeatsItem(WorkItem):
    """Texts whose second half repeats the first, and as many of the same beginning whose second half does not."""

    rows: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, ...], ...]


def chosen_sentences(inputs: Inputs, settings: Settings) -> list[TokenisedSentence]:
    """Sentences of the test part, or of all where there is none, spread evenly over its documents."""
    if not settings.sentences:
        return []
    splits = {sentence.sentence.split for sentence in inputs.treebank}
    split = next((name for name in ("test", "dev", "", "train") if name in splits), "")
    wanted = (one for one in inputs.treebank if one.sentence.split == split and len(one.tokens) > 2)
    return in_turn(wanted, lambda one: one.sentence.document)[: settings.sentences]


def fixed_queries(inputs: Inputs, settings: Settings) -> tuple[int, int] | None:
    """Queries first .. last + 1 that at least half of the passages have: those from which distances are read."""
    lengths = sorted(len(passage.tokens) for passage in inputs.passages)
    median = lengths[(len(lengths) - 1) // 2]
    first = settings.fixed_query if median > settings.fixed_query else median // 2
    return (first, median) if first >= 1 else None


def first_token_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FirstTokensItem]:
    """Batches of beginnings of one length."""
    if max(len(passage.tokens) for passage in inputs.passages) < 3:
        raise LayerscopeError(
            "there is nothing to attend to",
            found=f"the longest passage has {max(len(p.tokens) for p in inputs.passages)} tokens",
            expected="passages of at least three tokens",
            hint="longer passages",
        )
    texts = {
        PASSAGES: [passage.tokens.ids for passage in inputs.passages],
        SENTENCES: [sentence.tokens.ids for sentence in chosen_sentences(inputs, settings)],
    }
    for kind, ids in texts.items():
        beginnings = [row[: settings.mean_positions] for row in ids]
        for rows in in_batches(beginnings, inputs.tokens_per_pass, length=len):
            yield FirstTokensItem(
                name=f"first tokens of {len(rows)} {kind}",
                size=inputs.facts.operations(sum(map(len, rows))),
                kind=kind,
                rows=tuple(rows),
            )


def fixed_mean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FixedMeansItem]:
    """Passages that have the fixed queries, evenly spread over all of them, in batches."""
    fixed = fixed_queries(inputs, settings)
    if fixed is None or not settings.fixed_texts:
        return
    rows = [p.tokens.ids[: fixed[1]] for p in inputs.passages if len(p.tokens) >= fixed[1]]
    count = min(settings.fixed_texts, len(rows))
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    for batch in in_batches(chosen, inputs.tokens_per_pass, length=len):
        yield FixedMeansItem(
            name=f"fixed queries of {len(batch)} passages",
            size=inputs.facts.operations(sum(map(len, batch))),
            rows=tuple(batch),
            fixed=fixed,
        )


def passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassagesItem]:
    """Passages in their order, some at a time."""
    longest = max(len(passage.tokens) for passage in inputs.passages)
    at_once = int(_OPERATIONS_AN_ITEM / (2 * inputs.facts.n_parameters * longest))
    at_once = min(max(1, at_once), _MOST_IN_AN_ITEM)
    for start in range(0, len(inputs.passages), at_once):
        passages = inputs.passages[start : start + at_once]
        yield PassagesItem(
            name=passages[0].name,
            size=inputs.facts.operations(sum(len(passage.tokens) for passage in passages)),
            passages=passages,
            fixed=fixed_queries(inputs, settings),
        )


def sentence_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SentencesItem]:
    """Sentences of equal length together."""
    sentences = chosen_sentences(inputs, settings)
    tags = tuple(sorted({tag for sentence in sentences for tag in sentence.sentence.upos if tag}))
    for batch in in_batches(sentences, inputs.tokens_per_pass, length=lambda one: len(one.tokens)):
        yield SentencesItem(
            name=f"{len(batch)} sentences of {len(batch[0].tokens)} tokens",
            size=inputs.facts.operations(sum(len(sentence.tokens) for sentence in batch)),
            sentences=tuple(batch),
            tags=tags,
        )


def repeat_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[RepeatsItem]:
    """Random tokens of the passages, all different, read twice; in batches."""
    bos = sorted({passage.tokens.ids[0] for passage in inputs.passages if passage.tokens.bos})[:1]
    pool = sorted({token for p in inputs.passages for token in p.tokens.ids[p.tokens.bos :]} - set(bos))
    room = (inputs.facts.context or 10**9) - len(bos)
    tokens = min(settings.repeated_tokens, len(pool), room // 2)
    if tokens < 2:
        return
    texts = []
    for number in range(settings.repeats):
        chance = np.random.default_rng([settings.seed, number])
        half, other = (
            [int(token) for token in chance.choice(pool, size=tokens, replace=False)] for _ in range(2)
        )
        texts.append(((*bos, *half, *half), (*bos, *half, *other)))
    for batch in in_batches(texts, inputs.tokens_per_pass, length=lambda both: len(both[0])):
        rows, others = zip(*batch, strict=True)
        size = inputs.facts.operations(2 * sum(map(len, rows)))
        yield RepeatsItem(name=f"{len(batch)} repeated texts", size=size, rows=rows, others=others)
