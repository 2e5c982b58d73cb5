"""Work items of attention patterns, and what each gives: sums over queries and keys, text by text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments._attention_settings import Settings
from layerscope.experiments._contract import Earlier, Inputs, WorkItem
from layerscope.experiments._coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.maths.attention import OFFSETS
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage
from layerscope.text.tokenised_words import TokenisedSentence

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

PASSAGES, SENTENCES = "passages", "sentences"
KINDS = (PASSAGES, SENTENCES)
DEFINITIONS = ("all keys", "without first token", "without sinks", "by value norm")

QUERIES = "queries"
SUMS = (
    QUERIES, "every", "first token", "self", "previous token", "distance", "entropy", "span", "entropy queries",
    "duplicate token", "with duplicate", "induction", "with induction", "fixed", "fixed distance",
    "distance from 11", "distance from 51", *(f"offset {offset}" for offset in range(OFFSETS)),
)  # fmt: skip
CORNER_SUMS = ("every", "distance", "entropy", "span", "entropy queries", "deviation")
SENTENCE_SUMS = ("every", "dependency", "to head", "to dependent")

_OPERATIONS_AN_ITEM = 1e12
_MOST_IN_AN_ITEM = 16


class FirstTokensItem(WorkItem):
    """The first tokens of some texts, all equally many."""

    kind: str
    rows: tuple[tuple[int, ...], ...]


class PassagesItem(WorkItem):
    """Some passages, and the queries at which distances are read."""

    passages: tuple[TokenisedPassage, ...]
    fixed: tuple[int, int] | None


class SentencesItem(WorkItem):
    """Some sentences of one length in tokens."""

    sentences: tuple[TokenisedSentence, ...]
    tags: tuple[str, ...]


class RepeatsItem(WorkItem):
    """Texts whose second half repeats the first."""

    rows: tuple[tuple[int, ...], ...]


# -- which texts ----------------------------------------------------------------------------------


def chosen_sentences(inputs: Inputs, settings: Settings) -> list[TokenisedSentence]:
    """Sentences of the test part, or of all where there is none, spread evenly over its documents."""
    if not settings.sentences:
        return []
    splits = {sentence.sentence.split for sentence in inputs.treebank}
    split = next((name for name in ("test", "dev", "", "train") if name in splits), "")
    documents: dict[str, list[TokenisedSentence]] = defaultdict(list)
    for sentence in inputs.treebank:
        if sentence.sentence.split == split and len(sentence.tokens) > 2:
            documents[sentence.sentence.document].append(sentence)
    deepest = max((len(sentences) for sentences in documents.values()), default=0)
    in_turn = [own[i] for i in range(deepest) for own in documents.values() if i < len(own)]
    return in_turn[: settings.sentences]


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
                size=sum(map(len, rows)),
                kind=kind,
                rows=tuple(rows),
            )


def in_batches(things: Sequence[Any], tokens_per_pass: int, *, length: Any) -> Iterator[list[Any]]:
    """Things of equal length together, at most so many tokens in a batch; lengths in rising order."""
    by_length: dict[int, list[Any]] = defaultdict(list)
    for thing in things:
        by_length[length(thing)].append(thing)
    for tokens, own in sorted(by_length.items()):
        at_once = max(1, tokens_per_pass // tokens)
        yield from (own[start : start + at_once] for start in range(0, len(own), at_once))


def passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassagesItem]:
    """Passages in their order, some at a time."""
    longest = max(len(passage.tokens) for passage in inputs.passages)
    at_once = int(_OPERATIONS_AN_ITEM / (2 * inputs.facts.n_parameters * longest))
    at_once = min(max(1, at_once), _MOST_IN_AN_ITEM)
    for start in range(0, len(inputs.passages), at_once):
        passages = inputs.passages[start : start + at_once]
        yield PassagesItem(
            name=passages[0].name,
            size=sum(len(passage.tokens) for passage in passages),
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
            size=sum(len(sentence.tokens) for sentence in batch),
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
    rows = []
    for number in range(settings.repeats):
        chance = np.random.default_rng([settings.seed, number])
        half = [int(token) for token in chance.choice(pool, size=tokens, replace=False)]
        rows.append((*bos, *half, *half))
    for batch in in_batches(rows, inputs.tokens_per_pass, length=len):
        yield RepeatsItem(name=f"{len(batch)} repeated texts", size=sum(map(len, batch)), rows=tuple(batch))


# -- measuring ------------------------------------------------------------------------------------


def measure_first_tokens(
    model: LayeredModel, item: FirstTokensItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Patterns of the first tokens, summed over the texts of the item."""
    tokens, n = len(item.rows[0]), settings.mean_positions
    layers, pattern = runs.first_patterns(model, item.rows)
    whole = np.zeros((len(KINDS), model.n_layers, heads_of(layers), n, n))
    place = KINDS.index(item.kind)
    whole[place, :, :, :tokens, :tokens] = by_layer(
        pattern.double().cpu().numpy(), layers, model.n_layers, axis=0
    )
    texts = np.zeros((len(KINDS), n), dtype=np.int64)
    texts[place, :tokens] = len(item.rows)
    return xr.Dataset(
        {
            "pattern_sum": quantity(whole, "text_kind layer head query key", "pattern, summed over texts"),
            "pattern_texts": quantity(texts, "text_kind query", "texts with such a query"),
        },
        coords={
            "text_kind": text_coordinate(KINDS, "text_kind", "kind of text"),
            "query": number_coordinate(range(n), "query", "position of the query"),
            "key": number_coordinate(range(n), "key", "position of the key"),
            "layer": layer_coordinate(model.n_layers),
        },
    )


def add_patterns(so_far: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Two parts of the sum over texts."""
    return so_far.assign(
        {
            name: quantity(
                so_far[name].values + part[name].values,
                [str(dim) for dim in so_far[name].dims],
                *_naming(so_far[name]),
            )
            for name in ("pattern_sum", "pattern_texts")
        }
    )


def _naming(values: xr.DataArray) -> tuple[str, str]:
    return str(values.attrs["long_name"]), str(values.attrs["units"])


def heads_of(layers: Sequence[int]) -> int:
    """The most heads that any layer has."""
    return max((list(layers).count(layer) for layer in set(layers)), default=1)


def by_layer(values: np.ndarray, layers: Sequence[int], n_layers: int, *, axis: int) -> np.ndarray:
    """Heads side by side, parted into layer and head; NaN where a layer has no (such) head."""
    moved = np.moveaxis(values, axis, 0)
    result = np.full((n_layers, heads_of(layers), *moved.shape[1:]), np.nan, dtype=values.dtype)
    for layer in set(layers):
        own = moved[np.asarray(layers) == layer]
        result[layer, : len(own)] = own
    return np.moveaxis(result, [0, 1], [axis, axis + 1])


def _mean_pattern(means: xr.Dataset, kind: str) -> np.ndarray:
    """The mean pattern of first tokens over texts of a kind [head query key], heads side by side."""
    here = KINDS.index(kind)
    total, texts = means.pattern_sum.values[here], means.pattern_texts.values[here]
    flat = total.reshape(-1, *total.shape[2:]) / np.maximum(texts, 1)[:, None]
    return np.asarray(flat[~np.isnan(flat[:, 0, 0])], dtype=np.float32)


def measure_passages(
    model: LayeredModel, item: PassagesItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Sums over queries and keys, passage by passage."""
    lengths = runs.ValueLengths(model)
    mean = _mean_pattern(earlier["means"], PASSAGES)
    found = []
    for passage in item.passages:
        fixed = item.fixed if item.fixed and len(passage.tokens) >= item.fixed[1] else None
        asked = runs.asked_of(
            [passage.tokens.ids], fixed=fixed, least_kept=settings.least_kept, device=model.device
        )
        found.append(runs.attention_sums(model, asked, lengths, mean_pattern=mean))
    columns = {
        "model_sums": ("model", SUMS, "sum", "sums of attention"),
        "uniform_sums": ("uniform", SUMS, "sum", "sums of uniform attention"),
        "corner_sums": ("corner", CORNER_SUMS, "corner_sum", "sums of attention among the first tokens"),
        "own_mean_sums": ("own_mean", CORNER_SUMS, "corner_sum", "sums of the head's mean pattern"),
    }
    variables = {
        name: quantity(
            np.concatenate(
                [_table(getattr(one, source), wanted, one.layers, model.n_layers) for one in found]
            ),
            f"passage definition layer head {dimension}",
            long_name,
        )
        for name, (source, wanted, dimension, long_name) in columns.items()
    }
    passages = [passage.name for passage in item.passages]
    return xr.Dataset(
        variables
        | _sources(found[0].value_sources, model.n_layers)
        | {
            "fixed_queries": quantity(
                np.array(item.fixed or (-1, -1)), "end", "queries at which distances are read"
            )
        },
        coords=_definition_and_layer(model)
        | {
            "passage": text_coordinate(passages, "passage", "passage"),
            "tokens": xr.Variable(
                ("passage",), [len(passage.tokens) for passage in item.passages], {"long_name": "tokens"}
            ),
            "sum": text_coordinate(SUMS, "sum", "sum over queries and keys"),
            "corner_sum": text_coordinate(CORNER_SUMS, "corner_sum", "sum over queries and keys"),
            "end": text_coordinate(("first", "behind the last"), "end", "end of a range of positions"),
        },
    )


def _sources(sources: Mapping[int, str], n_layers: int) -> dict[str, xr.Variable]:
    names = [sources.get(layer, "") for layer in range(n_layers)]
    return {"value_source": quantity(np.array(names), "layer", "what value norms are norms of")}


def _definition_and_layer(model: LayeredModel) -> dict[str, xr.Variable]:
    return {
        "definition": text_coordinate(DEFINITIONS, "definition", "attention that counts"),
        "layer": layer_coordinate(model.n_layers),
    }


def _table(
    sums: Mapping[str, Any], wanted: Sequence[str], layers: Sequence[int], n_layers: int
) -> np.ndarray:
    """Named sums [text definition layer head sum]."""
    flat = np.stack([_one(sums, name) for name in wanted], axis=-1)  # definition text head sum
    return np.moveaxis(by_layer(flat, layers, n_layers, axis=2), 1, 0).astype(np.float32)


def _one(sums: Mapping[str, Any], name: str) -> np.ndarray:
    """One sum [definition text head]; distances are positions of queries less those of keys."""
    if name in ("distance", "fixed distance"):
        ends = {"distance": ("query position", "every"), "fixed distance": ("query position, fixed", "fixed")}
        query, total = ends[name]
        return _one(sums, query) - _one(sums, f"key position, {total}")
    return np.asarray(sums[name].double().cpu().numpy())


def measure_sentences(
    model: LayeredModel, item: SentencesItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Attention along dependencies and by part of speech, sentence by sentence."""
    import torch

    sentences = item.sentences
    tags = torch.tensor(np.stack([_tagged(sentence, item.tags) for sentence in sentences]))
    asked = runs.asked_of(
        [sentence.tokens.ids for sentence in sentences],
        relations=[_relations(sentence) for sentence in sentences],
        tags=tags,
        least_kept=settings.least_kept,
        device=model.device,
    )
    mean = _mean_pattern(earlier["means"], SENTENCES)
    found = runs.attention_sums(model, asked, runs.ValueLengths(model), mean_pattern=mean)
    variables = {}
    for source in ("model", "uniform", "corner", "own_mean"):
        sums = getattr(found, source)
        flat = np.concatenate(
            [np.stack([_one(sums, name) for name in SENTENCE_SUMS], axis=-1), _one(sums, "tags")], axis=-1
        )
        table = np.moveaxis(by_layer(flat, found.layers, model.n_layers, axis=2), 1, 0).astype(np.float32)
        variables[f"{source}_sentence_sums"] = quantity(
            table,
            "sentence definition layer head sentence_sum",
            f"sums of attention ({source.replace('_', ' ')})",
        )
    names = [*SENTENCE_SUMS, *(f"tag {tag}" for tag in item.tags)]
    return xr.Dataset(
        variables,
        coords=_definition_and_layer(model)
        | {
            "sentence": text_coordinate([one.name for one in sentences], "sentence", "sentence"),
            "document": text_coordinate([one.sentence.document for one in sentences], "sentence", "document"),
            "sentence_sum": text_coordinate(names, "sentence_sum", "sum over queries and keys"),
        },
    )


def _tagged(sentence: TokenisedSentence, tags: Sequence[str]) -> np.ndarray:
    """Which tokens have which part of speech: every piece of a word has the word's [tag token]."""
    found = np.zeros((len(tags), len(sentence.tokens)), dtype=np.float32)
    for word, tag in enumerate(sentence.sentence.upos):
        if sentence.first[word] >= 0 and tag:
            found[tags.index(tag), sentence.first[word] : sentence.last[word] + 1] = 1
    return found


def _relations(sentence: TokenisedSentence) -> dict[str, list[tuple[int, int]]]:
    """Pairs of tokens of words of which one depends on the other, by which of them looks back."""
    to_head, to_dependent = [], []
    for word, head in enumerate(sentence.sentence.head):
        if head < 1 or sentence.first[word] < 0 or sentence.first[head - 1] < 0:
            continue
        own = range(sentence.first[word], sentence.last[word] + 1)
        above = range(sentence.first[head - 1], sentence.last[head - 1] + 1)
        to_head += [(query, key) for query in own for key in above if key < query]
        to_dependent += [(query, key) for query in above for key in own if key < query]
    return {"to head": to_head, "to dependent": to_dependent, "dependency": to_head + to_dependent}


def measure_repeats(
    model: LayeredModel, item: RepeatsItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Attention in random text that is read twice."""
    asked = runs.asked_of(list(item.rows), least_kept=settings.least_kept, device=model.device)
    found = runs.attention_sums(model, asked, runs.ValueLengths(model))
    return xr.Dataset(
        {
            f"repeat_{source}_sums": quantity(
                _table(getattr(found, source), SUMS, found.layers, model.n_layers),
                "sample definition layer head sum",
                f"sums of attention in repeated texts ({source})",
            )
            for source in ("model", "uniform")
        },
        coords=_definition_and_layer(model)
        | {"sum": text_coordinate(SUMS, "sum", "sum over queries and keys")},
    )
