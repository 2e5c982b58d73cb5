"""Text to token ids with character spans, and the one rule about the first token.

Whether a tokenizer adds a first token (BOS) by itself cannot be learned from its settings: it is found by
encoding. Text itself is encoded bare, and what stands first is put there here, by a stated policy. Special
tokens that are typed in a text stay plain text.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import nearest, refuse_hostile, shown
from layerscope.text.spans import read_pieces

BosPolicy = str
"""What stands first: "auto" (what the tokenizer does by itself), "always" (its BOS), "never", or a token's text.

A run decides "auto" by the model, where the tokenizer puts nothing first (`jobs/standing_first.py`), and hands
on the token that it chose, or "never".
"""

_PROBE = "The quick brown fox (aged 7½) reads “naïve” 日本 🙂\n\tx_1 = 3.14;  <s> 's"


class Tokens(BaseModel):
    """The tokens of one text, in order; the four fields fit one another.

    Attributes:
        ids: token ids.
        texts: what each token reads as; one "�" for a token that is only part of a character, and the
            unknown token's own name where the model will not see what is written.
        spans: the characters [start, end) of the text that each token stands for, its leading blank
            included. Pieces of one character share a span; a token that stands for no character, as the
            blank that some tokenizers put before a text, has an empty one; what was put first has (0, 0).
        bos: whether the first token was put there, and stands for nothing of the text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    bos: bool

    def __len__(self) -> int:
        return len(self.ids)

    # A corpus holds the same ids, readings and (in texts of like length) spans again and again. As one
    # object each they cost a pointer, a third of what they cost apart: texts are held through a whole run.
    @field_validator("ids", "spans")
    @classmethod
    def _one_object_each(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_the_same(value) for value in values)

    @field_validator("texts")
    @classmethod
    def _one_string_each(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sys.intern(text) for text in texts)


@lru_cache(maxsize=1 << 17)
def _the_same(value: Any) -> Any:
    """The first of all equal values, while it is remembered."""
    return value


def encode(tokenizer: Any, text: str, bos: BosPolicy = "auto") -> Tokens:
    """Encode a text with character spans, and put first what the policy says.

    Args:
        tokenizer: a transformers tokenizer that knows offsets ("fast").
        text: any text; special tokens typed in it are encoded as the plain characters they are.
        bos: see `BosPolicy`.

    Raises:
        LayerscopeError: no offsets, nothing of that name to put first, a first token that the text itself
            begins with, or text that cannot be encoded.
    """
    ids, offsets = bare_encoding(tokenizer, text)
    return with_bos(tokenizer, text, ids, offsets, bos)


def bare_encoding(
    tokenizer: Any, text: str, *, parse_special: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and the tokenizer's own offsets, with nothing added.

    Args:
        tokenizer: a transformers tokenizer.
        text: what to encode.
        parse_special: whether a special token typed in the text becomes that token (for rendered chats).
    """
    refuse_hostile(text, field="text", where="what is to be encoded")
    encoding = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=not parse_special,
        return_offsets_mapping=bool(getattr(tokenizer, "is_fast", False)),
        verbose=False,  # a long text is the caller's business: it is cut or refused with its name
    )
    if "offset_mapping" not in encoding:
        raise LayerscopeError(
            "this tokenizer does not tell which characters a token stands for",
            found=f"{type(tokenizer).__name__}, written in Python only",
            expected="a tokenizer with offsets (a tokenizer.json beside the model)",
            hint="convert it to a tokenizer.json with transformers, and load the model with that",
        )
    return list(encoding["input_ids"]), [(start, end) for start, end in encoding["offset_mapping"]]


def with_bos(
    tokenizer: Any, text: str, ids: list[int], offsets: list[tuple[int, int]], bos: BosPolicy
) -> Tokens:
    """The tokens of an encoding, with what the policy says in front; see `encode`."""
    pieces = read_pieces(tokenizer, text, ids, offsets)
    texts, spans = [piece.text for piece in pieces], [piece.span for piece in pieces]
    first = bos_id(tokenizer, bos)
    if first is not None:
        _refuse_doubled(tokenizer, ids, first)
        ids, texts, spans = [first, *ids], [token_text(tokenizer, first), *texts], [(0, 0), *spans]
    return Tokens(ids=tuple(ids), texts=tuple(texts), spans=tuple(spans), bos=first is not None)


def bos_id(tokenizer: Any, policy: BosPolicy) -> int | None:
    """The id that the policy puts in front of every text, or None.

    Raises:
        LayerscopeError: "always" where the tokenizer defines no BOS, a token that it does not have, or "auto"
            where it puts several tokens first.
    """
    if policy == "never":
        return None
    if policy == "auto":
        return put_first_by_itself(tokenizer)
    return _defined_bos(tokenizer) if policy == "always" else _id_of(tokenizer, policy)


def put_first_by_itself(tokenizer: Any) -> int | None:
    """The id that the tokenizer puts before a text unless it is told not to, found by encoding one; or None."""
    before = _added_by_itself(tokenizer)["before"]
    if len(before) > 1:
        written = [token_text(tokenizer, token) for token in before]
        raise LayerscopeError(
            "this tokenizer puts several tokens before a text",
            found=", ".join(written),
            expected="at most one",
            hint=f"--bos {written[-1]}   (or --bos never)",
        )
    return before[0] if before else None


def token_text(tokenizer: Any, token: int) -> str:
    """How a token is written in the vocabulary."""
    return str(tokenizer.convert_ids_to_tokens(token))


def bos_record(tokenizer: Any, policy: BosPolicy, used: BosPolicy) -> dict[str, Any]:
    """What stands first, for a run's provenance.

    Args:
        tokenizer: the model's.
        policy: what was asked for.
        used: what that came to: "never", or a token.

    Returns:
        `policy`, `prepended`, the `id` and `text` of what stands first (None for nothing), and
        `tokenizer_adds`: the ids that the tokenizer by itself puts before and after a text.
    """
    first = bos_id(tokenizer, used)
    return {
        "policy": policy,
        "prepended": first is not None,
        "id": first,
        "text": None if first is None else token_text(tokenizer, first),
        "tokenizer_adds": _added_by_itself(tokenizer),
    }


def tokenizer_digest(tokenizer: Any) -> str:
    """A sha256 over the vocabulary and the encoding of a fixed text, as hexadecimal digits.

    Two tokenizers of equal vocabulary may split texts differently; the probe tells most of them apart.
    """
    probe = tokenizer(_PROBE, add_special_tokens=False, verbose=False)["input_ids"]
    rest = json.dumps([list(probe), tokenizer.bos_token_id])
    content = f"[{_vocabulary_of(tokenizer, len(tokenizer))}, {rest[1:]}"
    return hashlib.sha256(content.encode("ascii")).hexdigest()


@lru_cache(maxsize=4)
def _vocabulary_of(tokenizer: Any, length: int) -> str:
    """The vocabulary as JSON; half a second for 262,144 tokens, so it is written once while none is added."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
    return json.dumps(vocabulary)


def _defined_bos(tokenizer: Any) -> int:
    defined: int | None = getattr(tokenizer, "bos_token_id", None)
    if defined is None:
        raise LayerscopeError(
            "this tokenizer defines no BOS to put in front",
            found=f"{type(tokenizer).__name__} with bos_token None",
            expected='a tokenizer with a BOS, or "auto", "never" or a token',
            hint="--bos never",
        )
    return defined


def _id_of(tokenizer: Any, text: str) -> int:
    found = tokenizer.convert_tokens_to_ids(text)
    if found is None or token_text(tokenizer, found) != text:  # an unknown token's id stands for any text
        special = [str(token) for token in special_tokens(tokenizer).values()]
        raise LayerscopeError(
            "this tokenizer has no such token to put first",
            found=shown(text),
            expected=f"auto, always, never, or a token such as {', '.join(special[:5]) or 'those of its vocabulary'}",
            hint=f"--bos '{(nearest(text, ['auto', 'always', 'never', *special]) or ['auto'])[0]}'",
        )
    return int(found)


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Every special token of a tokenizer, by id in order: those with a role first."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {number: str(token.content) for number, token in added.items() if token.special}
    named = {
        int(tokenizer.convert_tokens_to_ids(text)): str(text)
        for text in dict.fromkeys(tokenizer.all_special_tokens)
    }
    return dict(sorted(named.items())) | {n: marked[n] for n in sorted(marked) if n not in named}


def _added_by_itself(tokenizer: Any) -> dict[str, list[int]]:
    bare = list(tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"])
    whole = list(tokenizer("a", verbose=False)["input_ids"])
    starts = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
    at = starts[0] if starts else 0
    return {"before": whole[:at], "after": whole[at + len(bare) :]}


def _refuse_doubled(tokenizer: Any, ids: list[int], first: int) -> None:
    if ids and ids[0] == first:
        raise LayerscopeError(
            "one token would stand at the beginning twice",
            found=f"the text itself begins with {shown(token_text(tokenizer, first))} (id {first})",
            expected="one, put there by --bos",
            hint="take it out of the text, or use --bos never",
        )
