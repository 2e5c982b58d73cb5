"""What is known about each token before any direction is looked at: text, frequency, part of speech, company."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.bundled import bundled_names
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import number_coordinate
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.maths.coherence import CommonPart, common_part, cooccurrence_vectors
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity, write_json
from layerscope.text.passages import load_passages
from layerscope.text.token_texts import token_texts
from layerscope.text.tokens import BosPolicy, bos_id
from layerscope.text.treebanks import load_treebank, treebank_sets

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_LONGEST = 40
_GLITCH = 1 / 3
_FEWEST_WORDS = 500


def vocabulary(model: LayeredModel, settings: Settings) -> xr.Dataset:
    """A row for each token of the embedding."""
    rows = model.module.get_input_embeddings().weight
    unembedding = model.module.get_output_embeddings().weight
    n = len(rows)
    texts = token_texts(model.tokenizer, n)
    allowed, cautions = _allowed(model, texts, settings)
    passages = _tokenised_texts(model, settings, n)
    counts = np.bincount(np.concatenate([np.zeros(0, int), *passages]), minlength=n)
    company = cooccurrence_vectors(passages, n, seed=settings.seed).astype(np.float32)
    blanks = any(text[:1] == " " for text in texts)
    fragments = [_fragment(text) if blanks else np.nan for text in texts]
    if not passages:
        cautions.append("no texts: frequency and company of tokens are unknown")
    dataset = xr.Dataset(
        {
            "token_text": quantity(
                np.array([stored(_cut(text)) for text in texts]), "entry", "text of the token"
            ),
            "allowed": quantity(allowed, "entry", "whether the token may be shown at the end of a direction"),
            "occurrences": quantity(counts, "entry", "occurrences in the texts"),
            "fragment": quantity(np.array(fragments), "entry", "whether the token continues a word"),
            "part_of_speech": quantity(
                _parts_of_speech(model, settings, texts), "entry", "commonest part of speech, or empty"
            ),
            "mean_embedding": quantity(
                mean_embedding(rows.detach(), allowed),
                "component",
                "mean embedding of the tokens that may be shown",
            ),
            "shared_direction": quantity(
                shared_part_of(model, allowed).leading,
                "shared component",
                "leading principal direction of those embeddings",
            ),
            "mean_unembedding": quantity(
                mean_embedding(unembedding.detach(), allowed),
                "output_component",
                "mean unembedding of the tokens that may be shown",
            ),
            "company": quantity(company, "entry feature", "co-occurrence vector of the token"),
        },
        coords={
            "entry": number_coordinate(range(n), "entry", "token id"),
            "component": number_coordinate(range(rows.shape[1]), "component", "entry of an embedding"),
            "output_component": number_coordinate(
                range(unembedding.shape[1]), "output_component", "entry of an unembedding"
            ),
            "feature": number_coordinate(
                range(company.shape[1]), "feature", "entry of a co-occurrence vector"
            ),
        },
    )
    width = int(rows.shape[1])
    return write_json(dataset.assign_attrs(width=width, n_layers=model.n_layers), cautions=cautions)


def shared_part(vectors: np.ndarray) -> CommonPart:
    """What tokens' vectors have in common: the mean, and a hundredth of the width as Mu & Viswanath 2018."""
    return common_part(vectors, max(1, vectors.shape[1] // 100))


def shared_part_of(model: LayeredModel, allowed: np.ndarray) -> CommonPart:
    """The same of a model's own embedding, over the tokens that may be shown."""
    rows = model.module.get_input_embeddings().weight.detach()
    return shared_part(rows[np.flatnonzero(allowed)].float().cpu().numpy())


def mean_embedding(rows: Any, allowed: np.ndarray) -> np.ndarray:
    """The mean of the rows of some tokens, summed in pieces."""
    chosen = np.flatnonzero(allowed)
    total = sum(rows[chosen[i : i + 8192]].double().sum(0) for i in range(0, len(chosen), 8192))
    mean: np.ndarray = (total / len(chosen)).float().cpu().numpy()
    return mean


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _allowed(model: LayeredModel, texts: list[str], settings: Settings) -> tuple[np.ndarray, list[str]]:
    cautions: list[str] = []
    special = set(model.tokenizer.all_special_ids)
    usable = np.array(
        [bool(text.strip()) and "\ufffd" not in text and i not in special for i, text in enumerate(texts)]
    )
    usable &= ~_glitches(model, usable)
    long_enough = usable & np.array([len(text.strip()) >= settings.shortest_token for text in texts])
    if long_enough.sum() < 4 * settings.top_tokens and usable.sum() > long_enough.sum():
        cautions.append(
            f"only {long_enough.sum()} of the vocabulary's tokens may be shown and have {settings.shortest_token} or "
            "more characters, so shorter ones count too"
        )
        long_enough = usable
    if long_enough.sum() < 2 * settings.top_tokens:
        raise LayerscopeError(
            "this vocabulary is too small to show directions in",
            found=f"{int(long_enough.sum())} tokens that may be shown, {settings.top_tokens} wanted at each end",
            expected=f"at least {2 * settings.top_tokens}",
            hint=f"--set top_tokens={max(5, int(long_enough.sum()) // 2)}",
        )
    return long_enough, cautions


def _glitches(model: LayeredModel, usable: np.ndarray) -> np.ndarray:
    """Tokens that training hardly moved: their embedding lies near the mean of all."""
    rows = model.module.get_input_embeddings().weight.detach()
    mean = sum(part.double().sum(0) for part in rows.split(8192)) / len(rows)
    away = np.concatenate([(part.double() - mean).norm(dim=1).cpu().numpy() for part in rows.split(8192)])
    middle = np.median(away[usable]) if usable.any() else 0.0
    return np.asarray(away < _GLITCH * middle)


def _fragment(text: str) -> float:
    """1 where letters continue a word, 0 where a blank comes before them, NaN where there are no letters."""
    if not text.strip().isalpha():
        return np.nan
    return float(text[0] != " ")


def _tokenised_texts(model: LayeredModel, settings: Settings, n: int) -> list[np.ndarray]:
    source = settings.corpus if settings.corpus != "auto" else default_texts(model)
    if not source:
        return []
    texts = [passage.text for passage in load_passages(source)]
    return [ids for text in texts if (ids := _ids(model, text, n)).size]


def _ids(model: LayeredModel, text: str, n: int) -> np.ndarray:
    ids = np.array(
        model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64
    )
    return ids[ids < n]


def default_texts(model: LayeredModel) -> str | Path:
    """Passages beside the model, else the bundled world's for the bundled model and English for any other."""
    beside = Path(model.facts.source).expanduser() / "passages.jsonl"
    if beside.is_file():
        return beside
    wanted = "world" if model.facts.source == "bundled" else "english"
    return wanted if wanted in bundled_names("passages") else ""


def short_texts(model: LayeredModel, settings: Settings, bos: BosPolicy) -> list[list[int]]:
    """The beginnings of a few texts as ids, for what is measured by running the model."""
    source = settings.corpus if settings.corpus != "auto" else default_texts(model)
    if not source:
        return []
    tokenizer, n = model.tokenizer, model.facts.vocabulary
    front = bos_id(tokenizer, bos)
    first = [] if front is None else [front]
    longest = min(settings.edit_tokens, model.facts.context or settings.edit_tokens)
    encoded = (
        tokenizer(passage.text, add_special_tokens=False, verbose=False)["input_ids"]
        for passage in load_passages(source)
    )
    rows = [[*first, *(i for i in ids if i < n)][:longest] for ids in encoded]
    return [row for row in rows if len(row) >= 4][: settings.edit_texts]


def _default_treebank(model: LayeredModel) -> str:
    """The smallest part of a bundled treebank in the model's language, as a path; or none."""
    files = treebank_sets().get("world" if model.facts.source == "bundled" else "english", [])
    return str(min(files, key=lambda path: path.stat().st_size)) if files else ""


def _parts_of_speech(model: LayeredModel, settings: Settings, texts: list[str]) -> np.ndarray:
    """The commonest part of speech of words that are one token, looked up by the token's text."""
    source = settings.tagged_corpus if settings.tagged_corpus != "auto" else _default_treebank(model)
    if not source:
        return np.array([""] * len(texts))
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in load_treebank(source):
        for form, tag in zip(sentence.forms, sentence.upos, strict=True):
            votes[form.lower()][tag] += 1
    known = {form: tags.most_common(1)[0][0] for form, tags in votes.items() if form}
    return np.array([known.get(text.strip().lower(), "") for text in texts])


def other_embedding(model: LayeredModel, name: str, n: int) -> tuple[Any, np.ndarray]:
    """Another model's embedding of each token's text, and which tokens it has one for.

    A text that the other tokenizer splits gets the mean of its pieces.
    """
    key = (name, id(model.tokenizer))
    if key not in _OTHERS:
        _OTHERS.clear()
        _OTHERS[key] = _other_embedding(model, name, n)
    return _OTHERS[key]


_OTHERS: dict[tuple[str, int], tuple[Any, np.ndarray]] = {}
"""The last other model's embedding: loading it again for every work item would take most of the time."""


def _other_embedding(model: LayeredModel, name: str, n: int) -> tuple[Any, np.ndarray]:
    from layerscope.models.load import load_model

    other = load_model(name)
    rows = other.module.get_input_embeddings().weight.detach().float().cpu().numpy()
    unknown = other.tokenizer.unk_token_id
    vectors, known = np.zeros((n, rows.shape[1]), dtype=np.float32), np.zeros(n, dtype=bool)
    for token, text in enumerate(token_texts(model.tokenizer, n)):
        if not text.strip():
            continue
        ids = other.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids and unknown not in ids:
            vectors[token], known[token] = rows[ids].mean(0), True
    if known.sum() < _FEWEST_WORDS and known.mean() < 0.5:
        raise LayerscopeError(
            "the other model does not know these tokens",
            found=f"{int(known.sum())} of {n} tokens of {model.facts.name} can be written by {name}",
            expected=f"most of them, or at least {_FEWEST_WORDS}",
            hint="a model of the same language",
        )
    vectors[known] = shared_part(vectors[known]).taken_from(vectors[known])
    return vectors, known
