"""The texts of a run: loaded, tokenised, and with defaults that work offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from layerscope.bundled import bundled_names
from layerscope.errors import LayerscopeError
from layerscope.jobs.request import LONGEST
from layerscope.text.passages import load_passages
from layerscope.text.prompts import load_prompts
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt, tokenise_passage, tokenise_prompt
from layerscope.text.tokenised_words import (
    TokenisedSentence,
    TokenisedWord,
    tokenise_sentence,
    tokenise_word,
)
from layerscope.text.tokens import BosPolicy
from layerscope.text.treebanks import Sentence, load_treebank, treebank_sets
from layerscope.text.word_lists import load_words, word_sets

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

Text = TypeVar("Text")

_WORDS_FOR_A_TEXT = 20  # where --limit asks for few texts, this many words stand for one
_ENDINGS = {"treebank": ".conllu", "words": ".txt"}


def tokenised_prompts(
    model: LayeredModel, source: Any, *, bos: BosPolicy = "auto", chat: bool = False, limit: int | None = None
) -> tuple[TokenisedPrompt, ...]:
    """Prompts as this model reads them.

    Raises:
        LayerscopeError: see `readable_prompts`; and the first prompt that this tokenizer cannot read.
    """
    tokenised, unreadable = readable_prompts(model, source, bos=bos, chat=chat, limit=limit)
    for error in unreadable.values():
        raise error
    return tokenised


def readable_prompts(
    model: LayeredModel, source: Any, *, bos: BosPolicy = "auto", chat: bool = False, limit: int | None = None
) -> tuple[tuple[TokenisedPrompt, ...], dict[str, LayerscopeError]]:
    """Prompts as this model reads them, and why it cannot read others (longer than its context among them), by name.

    Raises:
        LayerscopeError: a source that cannot be read, a tokenizer that belongs to another model, or no prompt that
            can be read (the first one's reason).
    """
    few = first_of_each(load_prompts(source), limit, lambda prompt: prompt.category)
    tokenised, unreadable = [], {}
    for prompt in few:
        try:
            read = tokenise_prompt(model.tokenizer, prompt, bos=bos, chat=chat)
            _refuse_longer_than_context(model, read)
        except LayerscopeError as error:
            unreadable[prompt.name] = error
        else:
            tokenised.append(read)
    if not tokenised:
        raise next(iter(unreadable.values()))
    for one in tokenised:
        refuse_foreign_ids(model, (*one.tokens.ids, *one.answer_ids), one.name)
    return tuple(tokenised), unreadable


def tokenised_passages(
    model: LayeredModel,
    source: Any,
    *,
    bos: BosPolicy = "auto",
    longest: int | None = LONGEST,
    limit: int | None = None,
) -> tuple[TokenisedPassage, ...]:
    """Passages as this model reads them, cut to its context."""
    passages = load_passages(source)
    few = first_of_each(passages, limit, lambda passage: passage.genre)
    shortest = _shortest(longest, model)
    tokenised = [tokenise_passage(model.tokenizer, passage, bos=bos, longest=shortest) for passage in few]
    for passage in tokenised:
        refuse_foreign_ids(model, passage.tokens.ids, passage.name)
    return tuple(tokenised)


def tokenised_treebank(
    model: LayeredModel,
    source: Any,
    *,
    bos: BosPolicy = "auto",
    longest: int | None = LONGEST,
    limit: int | None = None,
) -> tuple[TokenisedSentence, ...]:
    """Sentences of a treebank as this model reads them; `limit` counts documents of each part and genre."""
    few = _first_documents(load_treebank(source), limit)
    shortest = _shortest(longest, model)
    tokenised = [tokenise_sentence(model.tokenizer, sentence, bos=bos, longest=shortest) for sentence in few]
    for sentence in tokenised:
        refuse_foreign_ids(model, sentence.tokens.ids, sentence.name)
    return tuple(tokenised)


def tokenised_words(
    model: LayeredModel, source: Any, *, limit: int | None = None
) -> tuple[TokenisedWord, ...]:
    """Words of a list as this model reads them; `limit` counts words of each number of tokens."""
    every = [tokenise_word(model.tokenizer, word) for word in load_words(source)]
    few = first_of_each(
        every, None if limit is None else limit * _WORDS_FOR_A_TEXT, lambda word: len(word.ids)
    )
    for word in few:
        refuse_foreign_ids(model, (*word.ids, *word.alone), word.word)
    return tuple(few)


def _refuse_longer_than_context(model: LayeredModel, prompt: TokenisedPrompt) -> None:
    context = model.facts.context
    if context is not None and prompt.n_tokens > context:
        raise LayerscopeError(
            f"the prompt {prompt.name} is longer than the model's context",
            found=f"{prompt.n_tokens:,} tokens",
            expected=f"at most {context:,}",
            hint="a shorter prompt",
        )


def _first_documents(sentences: Sequence[Sentence], limit: int | None) -> list[Sentence]:
    kinds = {sentence.document: (sentence.split, sentence.genre) for sentence in sentences}
    kept = set(first_of_each(list(kinds), limit, lambda document: kinds[document]))
    return [sentence for sentence in sentences if sentence.document in kept]


def _shortest(longest: int | None, model: LayeredModel) -> int | None:
    """Tokens that are read of a text: what was asked for, which the model's context must hold.

    Only the default gives way to a shorter context; a length that somebody asked for is not cut in silence.
    """
    context = model.facts.context
    if longest is not None and context is not None and longest > context and longest != LONGEST:
        raise LayerscopeError(
            "texts of this length are longer than the model's context",
            found=f"longest = {longest:,} tokens",
            expected=f"at most {context:,}",
            hint=f"--longest {context}",
        )
    limits = [limit for limit in (longest, context) if limit is not None]
    return min(limits) if limits else None


def refuse_foreign_ids(model: LayeredModel, ids: Sequence[int], name: str) -> None:
    """Refuse token ids that the model has no embedding for: the tokenizer belongs to another model.

    Raises:
        LayerscopeError: with the largest id and the number of embeddings.
    """
    rows = int(model.module.get_input_embeddings().weight.shape[0])
    if max(ids) >= rows:
        raise LayerscopeError(
            "the tokenizer does not belong to this model",
            found=f"token id {max(ids)} in {name}",
            expected=f"ids below {rows}, the model's embeddings",
            hint="the tokenizer that the model was trained with",
        )


def first_of_each(texts: Sequence[Text], limit: int | None, kind: Callable[[Text], Any]) -> list[Text]:
    """At most `limit` texts of each kind, the first ones, in their order; None keeps all."""
    seen: Counter[Any] = Counter()
    kept = []
    for text in texts:
        seen[kind(text)] += 1
        if limit is None or seen[kind(text)] <= limit:
            kept.append(text)
    return kept


def default_source(model: LayeredModel, kind: str) -> str | Path:
    """What a run uses when it is given no texts of a kind ("prompts", "passages", "treebank" or "words").

    Files beside the model come first; then the bundled world's set for the bundled model, and an
    English one for any other.
    """
    beside = Path(model.facts.source).expanduser() / f"{kind}{_ENDINGS.get(kind, '.jsonl')}"
    return beside if beside.is_file() else _bundled_set(kind, _own_set(model))


def plain_set(model: LayeredModel) -> str:
    """The bundled passages of the model's language."""
    return _bundled_set("passages", _own_set(model))


def _own_set(model: LayeredModel) -> list[str]:
    return ["world", "english"] if model.facts.source == "bundled" else ["english", "world"]


def _bundled_set(kind: str, wanted: Iterable[str]) -> str:
    listed: dict[str, Callable[[], Iterable[str]]] = {"treebank": treebank_sets, "words": word_sets}
    there = list(listed[kind]() if kind in listed else ()) or list(bundled_names(kind))
    for name in wanted:
        if name in there:
            return name
    raise LayerscopeError(
        f"there are no {kind} to run on",
        found=f"no --{kind}, and no bundled set",
        expected=f"a file of {kind}, or a bundled set",
        hint=f"--{kind} FILE",
    )
