"""All prompts of word_position_probe for one tokenizer, and what is known of them beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerscope.errors import LayerscopeError
from layerscope.experiments.word_position_probe.items.prompts import Laid
from layerscope.experiments.word_position_probe.measure.writing import (
    FRAMES,
    NAMES,
    STOPS,
    Pools,
    Writer,
    ceiling_with_length,
    name_joint,
    name_prompts,
    pools,
    sentence_joint,
    sentence_prompts,
    split_templates,
    word_joints,
    word_prompts,
)
from layerscope.experiments.word_position_probe.settings import PREFIXES, Settings
from layerscope.maths.position_ceiling import ceiling
from layerscope.text.tokenised_words import TokenisedWord, tokenise_word
from layerscope.text.tokens import BosPolicy, bare_encoding, bos_id, encode

_ANCHORS = set(".!?;:\n")


def lay(
    tokenizer: Any, words: Sequence[TokenisedWord], bos: BosPolicy, context: int | None, settings: Settings
) -> tuple[list[Laid], dict[str, str]]:
    """Prompts of every arm, and as JSON text: ceilings, anchor positions, and why arms are left out.

    Raises:
        LayerscopeError: too few words, prompts longer than the model's context, or words that change their
            tokens beside others.
    """
    lengths = range(settings.fewest_pieces, settings.most_pieces + 1)
    usable = [word for word in words if word.ids]
    chosen = pools(usable, lengths, settings.seeded("words"), held_out=settings.held_out)
    counts = (settings.train_prompts, settings.test_prompts)
    fewer = (-(-counts[0] // 2), -(-counts[1] // 2))  # longer prompts, and fewer indices to tell apart
    first = bos_id(tokenizer, bos)

    def writer(prefix: str) -> Writer:
        return Writer(lambda text: bare_encoding(tokenizer, text)[0], first, PREFIXES.get(prefix, prefix))

    anchored, bare = writer(settings.prefix), writer(settings.bare_prefix)
    prompts, left_out = [], {}
    for arm, behind in (("anchored", anchored), ("unanchored", bare)):
        prompts += word_prompts(arm, behind, chosen, counts, settings.prompt_words, settings.seeded(arm))
    _check_length(prompts, context)
    ends, begins = word_joints(list(lengths), settings.prompt_words)
    joints = {"last": ends, "first": begins}
    if settings.sentences:
        found, joint = _sentences(anchored, chosen, fewer, settings)
        if _fits(found, context):
            prompts, joints = [*prompts, *found], joints | {"sentences": joint}
        else:
            left_out["sentences"] = "paragraphs are longer than the model's context"
    else:
        left_out["sentences"] = "not asked for"
    if settings.names:
        people = _names(tokenizer, words, settings)
        if people is None:
            left_out["names"] = "fewer than ten names of the lengths asked for"
        else:
            found, joint = _named(anchored, people, fewer, settings)
            if _fits(found, context):
                prompts, joints = [*prompts, *found], joints | {"names": joint}
            else:
                left_out["names"] = "templates are longer than the model's context"
    else:
        left_out["names"] = "not asked for"
    about = {
        "ceiling_with_length": json.dumps(ceiling_with_length(list(lengths), settings.prompt_words)),
        "ceilings": json.dumps({arm: _ceiling(joint) for arm, joint in joints.items()}),
        "anchors": json.dumps(_anchors(tokenizer, anchored.prefix, bos)),
        "left_out": json.dumps(left_out),
        "words_used": json.dumps({str(n): [len(chosen.train[n]), len(chosen.test[n])] for n in lengths}),
    }
    return prompts, about


def _ceiling(joint: np.ndarray) -> dict[str, Any]:
    found = ceiling(joint)
    return {"accuracy": found.accuracy, "recall": found.recall.tolist()}


def _sentences(
    writer: Writer, chosen: Pools, counts: tuple[int, int], settings: Settings
) -> tuple[list[Laid], np.ndarray]:
    word = next(iter(chosen.train.values()))[0]
    before = list(writer.encode(f"{writer.prefix} {word.word}"))
    wholes = {stop: list(writer.encode(f"{writer.prefix} {word.word}{stop}")) for stop in STOPS}
    kept = [stop for stop, whole in wholes.items() if whole[: len(before)] == before] or [STOPS[-1]]
    stop = wholes[kept[0]][len(before) :]
    prompts = sentence_prompts(writer, chosen, (kept[0], tuple(stop)), counts, settings.seeded("sentences"))
    return prompts, sentence_joint(sorted(chosen.train), len(stop))


def _names(tokenizer: Any, words: Sequence[TokenisedWord], settings: Settings) -> Pools | None:
    """Names of the list (words with a capital), or its words with a capital where it has too few."""
    names = [word for word in words if word.word[:1].isupper()]
    if len(names) < 10:
        capitals = dict.fromkeys(word.word[:1].upper() + word.word[1:] for word in words)
        names = [tokenise_word(tokenizer, word) for word in capitals]
    fitting = [name for name in names if 1 <= len(name.ids) <= settings.most_pieces]
    rng = settings.seeded("names")
    order = [fitting[i] for i in rng.permutation(len(fitting))]
    held = max(NAMES, round(settings.held_out * len(order)))
    if len(order) < 10 or len(order) - held < NAMES:
        return None

    def by_length(group: Sequence[TokenisedWord]) -> dict[int, tuple[TokenisedWord, ...]]:
        sizes = sorted({len(name.ids) for name in group})
        return {size: tuple(name for name in group if len(name.ids) == size) for size in sizes}

    return Pools(train=by_length(order[held:]), test=by_length(order[:held]))


def _named(
    writer: Writer, people: Pools, counts: tuple[int, int], settings: Settings
) -> tuple[list[Laid], np.ndarray]:
    frames = [(frame, _behind(writer, frame)) for frame in FRAMES]
    templates = split_templates(len(frames), settings.seeded("templates"))
    rng = settings.seeded("named")
    prompts = name_prompts(writer, people, frames, templates, counts, rng)
    return prompts, name_joint(people, [len(ids) for _, ids in frames], templates[1])


def _behind(writer: Writer, text: str) -> Sequence[int]:
    return writer.encode(f"{writer.prefix} {text}")[len(writer.encode(writer.prefix)) :]


def _anchors(tokenizer: Any, prefix: str, bos: BosPolicy) -> list[int]:
    """Positions of the prefix's tokens that end a sentence or a line."""
    tokens = encode(tokenizer, prefix, bos)
    return [
        place for place, text in enumerate(tokens.texts) if text.strip(" ") and set(text) - {" "} <= _ANCHORS
    ]


def _fits(prompts: Sequence[Laid], context: int | None) -> bool:
    return context is None or max(len(prompt.ids) for prompt in prompts) <= context


def _check_length(prompts: Sequence[Laid], context: int | None) -> None:
    if not _fits(prompts, context):
        raise LayerscopeError(
            "the prompts are longer than this model's context",
            found=f"{max(len(prompt.ids) for prompt in prompts)} tokens",
            expected=f"at most {context}",
            hint="--set prompt_words=5, or a shorter prefix",
        )
