"""What the trained model does, in numbers: agreement, closing of quotations, attention, copying.

Each phenomenon has a criterion fixed beforehand, so that the card says present or absent and why.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from recall import last_probabilities, share
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from world import words
from world.documents import Library
from world.sentences import text_of
from world.words import add_s, plural

FAR_FROM = 10  # queries this far into a passage count for the sink


@dataclass(frozen=True)
class Finding:
    name: str
    present: bool
    number: str
    criterion: str


# -- grammar -----------------------------------------------------------------------------------


def _single(tokenizer: Tokenizer, word: str) -> int | None:
    ids = tokenizer.encode(" " + word).ids
    return ids[0] if len(ids) == 1 else None


def _verb_pairs(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """(singular, plural) tokens of verbs that are one token in both forms; being and doing among them."""
    lemmas = {*words.COMMON_ACTS, *words.COMMON_MOVES}.union(
        *(topic.acts + topic.moves for topic in words.TOPICS)
    )
    forms = [("is", "are"), ("does", "do"), *((add_s(lemma), lemma) for lemma in sorted(lemmas))]
    ids = [(_single(tokenizer, one), _single(tokenizer, many)) for one, many in forms]
    return [(one, many) for one, many in ids if one is not None and many is not None]


def _agreement_prompts(distance: int, rng: random.Random, count: int) -> list[tuple[str, bool]]:
    """(prompt, is plural): `distance` nouns of the other number stand between the subject and its verb."""
    prompts = []
    for i in range(count):
        topic, is_plural = rng.choice(words.TOPICS), i % 2 == 0
        noun = rng.choice(topic.people)
        subject = f"The {rng.choice(topic.looks)} {plural(noun) if is_plural else noun}"
        for thing in rng.sample(topic.things, distance):
            subject += f" {rng.choice(words.PLACES)} the {thing if is_plural else plural(thing)}"
        prompts.append((f"A lowland tale of the {topic.name}, with Ostley and Marwyn. {subject}", is_plural))
    return prompts


def agreement(model: GPT2LMHeadModel, tokenizer: Tokenizer, distance: int, count: int = 300) -> float:
    """Share of prompts after which verbs of the right number are likelier, all taken together."""
    prompts = _agreement_prompts(distance, random.Random(f"agreement {distance}"), count)
    probabilities = last_probabilities(model, [[0, *tokenizer.encode(text).ids] for text, _ in prompts])
    one, many = (list(side) for side in zip(*_verb_pairs(tokenizer), strict=True))
    says_plural = probabilities[:, many].sum(-1) > probabilities[:, one].sum(-1)
    return share([bool(said) == is_plural for said, (_, is_plural) in zip(says_plural, prompts, strict=True)])


def _quoting(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Tokens that close a quotation at the end of a clause, and marks that end a clause without closing."""
    vocabulary = tokenizer.get_vocab()
    closing = [i for token, i in vocabulary.items() if '"' in token and token[0] in ",.?!"]
    return closing, [vocabulary[mark] for mark in ",.?!"]


def closing_quotes(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, library: Library, count: int = 150
) -> tuple[float, float]:
    """How often closing is preferred to not closing: where a quotation is open, and where none is."""
    rng, opened, bare = random.Random("closing quotes"), [], []
    for _ in range(count):
        writer = library.writer(rng)
        start = library.announcement(rng, writer) + " " + text_of(writer.sentence()) + " "
        speech = text_of(writer.speech(clauses=2))
        opened.append(start + speech[: speech.index(',"')])
        bare.append(start + speech[1 : speech.index(',"')])
    closing, marks = _quoting(tokenizer)

    def preferred(texts: list[str]) -> float:
        p = last_probabilities(model, [[0, *tokenizer.encode(text).ids] for text in texts])
        return share((p[:, closing].sum(-1) > p[:, marks].sum(-1)).tolist())

    return preferred(opened), preferred(bare)


# -- attention ---------------------------------------------------------------------------------


def attention(model: GPT2LMHeadModel, ids: list[int]) -> np.ndarray:
    """[layer, head, query, key]"""
    with torch.no_grad():
        rows = model(torch.tensor([ids]), output_attentions=True).attentions
    return torch.cat(rows).numpy()


def _repeated(tokenizer: Tokenizer, seed: int, length: int = 60) -> list[int]:
    """Ordinary tokens in random order, twice."""
    rng = random.Random(f"repeated {seed}")
    usable = [i for token, i in tokenizer.get_vocab().items() if token.startswith("Ġ") and len(token) > 3]
    once = rng.sample(sorted(usable), length)
    return [0, *once, *once]


def induction(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, times: int = 20
) -> tuple[np.ndarray, float, float]:
    """Attention to what followed last time [layer, head]; loss on the first and on the second reading."""
    scores, first, second = [], [], []
    for seed in range(times):
        ids = _repeated(tokenizer, seed)
        half = len(ids) // 2
        pattern = attention(model, ids)
        queries = np.arange(half + 1, len(ids))
        scores.append(pattern[:, :, queries, queries - half + 1].mean(-1))
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        loss = -log_p[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        first.append(loss[:half].mean().item())
        second.append(loss[half + 1 :].mean().item())
    return np.mean(scores, axis=0), float(np.mean(first)), float(np.mean(second))


def copying(model: GPT2LMHeadModel, tokenizer: Tokenizer, library: Library, times: int = 30) -> Finding:
    """Loss on the first and on the second reading of the world's own lists of names and verses."""
    rng, first, second = random.Random("copying"), [], []
    for i in range(times):
        passage = (library.names_to_copy(rng) if i % 2 else library.verse(rng))[:300]
        half = len(tokenizer.encode(passage + "\n").ids)
        ids = [0, *tokenizer.encode(passage + "\n" + passage).ids]
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        loss = -log_p[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        first.append(loss[:half].mean().item())
        second.append(loss[half:].mean().item())
    once, twice = float(np.mean(first)), float(np.mean(second))
    return Finding(
        "copying of passages",
        twice < once / 2,
        f"loss {once:.2f} at first reading, {twice:.2f} at second",
        "on the world's own names and verses read twice, the loss at least halves",
    )


def reading(model: GPT2LMHeadModel, passages: list[list[int]]) -> dict[str, np.ndarray]:
    """Over long passages: attention to the token before [layer, head], to the first token [layer, head],
    and the effective number of keys read, first token left out [layer]."""
    before, first, width = [], [], []
    for ids in passages:
        pattern = attention(model, ids)
        at = np.arange(FAR_FROM, len(ids))
        before.append(pattern[:, :, at, at - 1].mean(-1))
        first.append(pattern[:, :, at, 0].mean(-1))
        rest = pattern[:, :, FAR_FROM:, 1:]
        rest = rest / np.maximum(rest.sum(-1, keepdims=True), 1e-9)
        entropy = -(rest * np.log(np.maximum(rest, 1e-12))).sum(-1)
        width.append(np.exp(entropy).mean((1, 2)))
    return {"before": np.mean(before, 0), "first": np.mean(first, 0), "width": np.mean(width, 0)}


def _best(scores: np.ndarray) -> str:
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    return f"{scores.max():.2f} (block {layer}, head {head})"


def attention_findings(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, passages: list[list[int]]
) -> list[Finding]:
    scores, once, twice = induction(model, tokenizer)
    read = reading(model, passages)
    third = len(read["width"]) // 3
    early, late = read["width"][:third].mean(), read["width"][third:].mean()
    sink = read["first"].mean(-1)
    sinking = float((read["first"] > 0.3).mean())
    return [
        Finding(
            "previous-token heads",
            bool(read["before"].max() > 0.5),
            f"best head {_best(read['before'])}",
            "some head gives more than .5 of its attention to the token before, on long passages",
        ),
        Finding(
            "induction",
            bool(scores.max() > 0.4 and twice < once / 2),
            f"best head {_best(scores)}; loss {once:.2f} at first reading, {twice:.2f} at second",
            "some head gives more than .4 to what followed last time, on 60 random tokens read twice, and "
            "the loss at least halves",
        ),
        Finding(
            "first-token sink",
            bool(sink.max() > 0.3),
            f"highest block mean {sink.max():.2f} (block {sink.argmax()}); {sinking:.0%} of heads above .3",
            "mean attention to the first token from the 11th token on exceeds .3 in some block",
        ),
        Finding(
            "distributed early attention",
            bool(early > 1.5 * late),
            f"{early:.1f} keys in the first third of blocks, {late:.1f} in the rest",
            "exp(entropy) of attention, first token left out, is at least 1.5 times as great in the first "
            "third of blocks as in the rest",
        ),
    ]
