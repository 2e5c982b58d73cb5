"""Chooses the prompts that ship: those the trained model gets right and that hang on their subject.

Three categories. "recall": facts, half of them through templates held out for that fact.
"plain-English regurgitation" and "non-English regurgitation": memorised strings, cut before one of
their words, with an earlier word as the subject. A prompt is kept only if the model's first choice is
right and noise on the subject's embeddings at least halves its probability. Probabilities are printed,
not stored: they belong to a run, not to a prompt.
"""

import itertools
import math
import random
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from recall import last_probabilities
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from world.documents import Library
from world.facts import RELATIONS, Fact
from world.strings import Memorised
from world.templates import TEMPLATES

STRING_LEAD_INS = {
    True: ("", "As they say: ", "Remember: ", "Saying: ", "An old saying goes: "),
    False: ("", "Notice: ", "Item: "),
}
PHRASE_LEAD_INS = ("It was, as they say, ", "Some would call it ", "You might say: ", "Saying: ")
FACT_LEAD_INS = ("", "Note: ", "It is said: ", "As the almanac says: ")
NON_ENGLISH, PLAIN, RECALL = "non-English regurgitation", "plain-English regurgitation", "recall"
LEAST_PROBABILITY = 0.3
NOISE_DRAWS, NOISE_SIZE = 6, 3.0  # in standard deviations of the embedding's entries


@dataclass(frozen=True)
class Candidate:
    category: str
    prompt: str
    subject: str
    answer: str
    source: str  # the fact or the string it comes from
    relation: str
    hop: int = 1
    template_held_out: bool = False
    tokens: int = 0  # without <|endoftext|>
    distance: int = 0  # from the subject's last token to the prompt's last
    clean: float = 0.0
    noised: float = 0.0

    def row(self, name: str, **more: str) -> dict:
        row = {
            "id": name,
            "category": self.category,
            "prompt": self.prompt,
            "subject": self.subject,
            "answer": self.answer,
            "relation": self.relation,
        }
        if self.category == RECALL:
            row |= {"hop": self.hop, "template_held_out": self.template_held_out}
        return row | more


def subject_span(tokenizer: Tokenizer, prompt: str, subject: str) -> tuple[int, int, int]:
    """First and last token touched by the subject's only occurrence, and the prompt's token count."""
    start = prompt.index(subject)
    end = start + len(subject)
    offsets = tokenizer.encode(prompt).offsets
    touched = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    return touched[0], touched[-1], len(offsets)


def measured(candidate: Candidate, tokenizer: Tokenizer) -> Candidate | None:
    """The candidate with its lengths, or nothing if its subject or answer does not qualify."""
    if candidate.prompt.count(candidate.subject) != 1:
        return None
    first, last, count = subject_span(tokenizer, candidate.prompt, candidate.subject)
    ids = tokenizer.encode(candidate.prompt + candidate.answer).ids
    one_token = ids[:-1] == tokenizer.encode(candidate.prompt).ids and len(ids) == count + 1
    whole_words = tokenizer.decode(ids[first : last + 1]).strip() == candidate.subject
    if first == 0 or last == count - 1 or not (one_token and whole_words):
        return None
    return replace(candidate, tokens=count, distance=count - 1 - last)


def fact_candidates(facts: list[Fact]) -> list[Candidate]:
    return [
        Candidate(
            RECALL,
            fact.prompt(i, lead_in),
            fact.subject,
            " " + fact.answer,
            f"{fact.subject}/{fact.relation}",
            f"{fact.kind} {fact.relation}",
            fact.hop,
            i in fact.held_out,
        )
        for fact in facts
        for i in range(len(fact.templates))
        for lead_in in FACT_LEAD_INS
    ]


def _lead_ins(string: Memorised) -> tuple[str, ...]:
    return PHRASE_LEAD_INS if string.sort == "phrase" else STRING_LEAD_INS[string.is_language]


def string_candidates(strings: list[Memorised], tokenizer: Tokenizer) -> list[Candidate]:
    """Every cut of every string before a token that begins with a space, every earlier word as subject."""
    found = []
    for string, lead_in in ((s, lead) for s in strings for lead in _lead_ins(s)):
        text, before = lead_in + string.text, len(lead_in)
        offsets = tokenizer.encode(text).offsets
        wordlike = [match.span() for match in re.finditer(r"[A-Za-z0-9]{2,}", text)]
        for start, end in offsets:
            if start <= before + 8 or text[start : start + 1] != " " or not text[start:end].strip().isalnum():
                continue
            for a, b in wordlike:
                if before < b <= start:
                    category = PLAIN if string.is_language else NON_ENGLISH
                    found.append(
                        Candidate(
                            category, text[:start], text[a:b], text[start:end], string.text, string.sort
                        )
                    )
    return found


class Judge:
    """Runs the model on candidates, clean and with noise on the subject."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer: Tokenizer, seed: int = 0) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.noise = torch.Generator().manual_seed(seed)
        self.scale = NOISE_SIZE * model.transformer.wte.weight.std().item()

    def right(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those whose answer is the first choice, and likely enough."""
        prompts = [[0, *self.tokenizer.encode(candidate.prompt).ids] for candidate in candidates]
        passed = []
        for start in range(0, len(prompts), 1024):  # whole vocabularies of probabilities take room
            part = candidates[start : start + 1024]
            rows = last_probabilities(self.model, prompts[start : start + 1024])
            for candidate, row in zip(part, rows, strict=True):
                answer = self.tokenizer.encode(candidate.answer).ids[0]
                if row.argmax().item() == answer and row[answer] >= LEAST_PROBABILITY:
                    passed.append(replace(candidate, clean=row[answer].item()))
        return passed

    @torch.no_grad()
    def shaken(self, candidate: Candidate) -> Candidate | None:
        """The candidate, if noise on its subject at least halves the answer's probability."""
        ids = [0, *self.tokenizer.encode(candidate.prompt).ids]
        answer = self.tokenizer.encode(candidate.answer).ids[0]
        first, last, _ = subject_span(self.tokenizer, candidate.prompt, candidate.subject)
        embedded = self.model.transformer.wte(torch.tensor([ids])).repeat(NOISE_DRAWS, 1, 1)
        shape = (NOISE_DRAWS, last + 1 - first, embedded.shape[-1])
        embedded[:, first + 1 : last + 2] += self.scale * torch.randn(shape, generator=self.noise)
        logits = self.model(inputs_embeds=embedded).logits[:, -1]
        noised = logits.float().softmax(-1)[:, answer].mean().item()
        return replace(candidate, noised=noised) if noised <= candidate.clean / 2 else None


def judged(
    candidates: list[Candidate], judge: Judge, most_per_source: int, tries: int, rng: random.Random
) -> list[Candidate]:
    """Up to so many good candidates of each fact or string, tried in random order."""
    by_source: dict[str, list[Candidate]] = {}
    for candidate in rng.sample(candidates, len(candidates)):
        group = by_source.setdefault(candidate.source, [])
        if len(group) < tries:
            group.append(candidate)
    tried = itertools.chain.from_iterable(by_source.values())
    good = []
    for _, group in itertools.groupby(judge.right(list(tried)), key=lambda candidate: candidate.source):
        passed = (judge.shaken(candidate) for candidate in group)
        good += list(itertools.islice((each for each in passed if each), most_per_source))
    return good


def good_candidates(library: Library, judge: Judge, rng: random.Random) -> dict[str, list[Candidate]]:
    """All that pass, by category: a random third of the facts, and every string."""
    facts = rng.sample(library.world.facts, len(library.world.facts) // 3)
    asked = fact_candidates(facts) + string_candidates(library.strings, judge.tokenizer)
    fit = [each for each in (measured(candidate, judge.tokenizer) for candidate in asked) if each]
    facts_fit = [each for each in fit if each.category == RECALL]
    recall = judged([c for c in facts_fit if c.template_held_out], judge, 4, 8, rng)
    recall += judged([c for c in facts_fit if not c.template_held_out], judge, 6, 12, rng)
    strings = judged([each for each in fit if each.category != RECALL], judge, 24, 50, rng)
    return {
        name: [each for each in (*recall, *strings) if each.category == name]
        for name in (NON_ENGLISH, PLAIN, RECALL)
    }


def spread(candidates: list[Candidate], count: int, rng: random.Random) -> list[Candidate]:
    """One candidate of each source, going round the relations (or sorts) in turn."""
    groups: dict[str, list[Candidate]] = {}
    seen: set[str] = set()
    for candidate in rng.sample(candidates, len(candidates)):
        if candidate.source not in seen:
            seen.add(candidate.source)
            groups.setdefault(f"{candidate.relation} {candidate.template_held_out}", []).append(candidate)
    turns = itertools.zip_longest(*(groups[name] for name in sorted(groups)))
    return [each for turn in turns for each in turn if each][:count]


def match_pairs(
    good: dict[str, list[Candidate]], frequency: Counter, count: int = 60
) -> list[tuple[Candidate, Candidate]]:
    """Regurgitation with recall: equal in tokens and in distance, nearest in answer frequency and certainty.

    Each string and each fact is used once; the two sorts of regurgitation get half of the pairs each.
    """
    pairs: list[tuple[Candidate, Candidate]] = []
    used: set[str] = set()
    for category in (NON_ENGLISH, PLAIN):
        options = sorted(
            (
                (_unlikeness(a, b, frequency), i, j)
                for i, a in enumerate(good[category])
                for j, b in enumerate(good[RECALL])
                if (a.tokens, a.distance) == (b.tokens, b.distance)
            )
        )
        chosen = []
        for _, i, j in options:
            a, b = good[category][i], good[RECALL][j]
            if len(chosen) < count // 2 and a.source not in used and b.source not in used:
                used |= {a.source, b.source}
                chosen.append((a, b))
        pairs += chosen
    return pairs


def _unlikeness(a: Candidate, b: Candidate, frequency: Counter) -> float:
    by_frequency = abs(math.log((frequency[a.answer] + 1) / (frequency[b.answer] + 1)))
    return by_frequency + abs(_log_odds(a.clean) - _log_odds(b.clean)) / 4


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def invented_rows(library: Library, seed: int = 0) -> list[dict]:
    """Prompts about subjects that no text ever mentions: whatever the model answers, it does not know."""
    rng = random.Random(f"invented {seed}")
    rows = []
    for kind, names in library.world.invented.items():
        for relation in RELATIONS[kind]:
            for name in rng.sample(names, 6):
                template = rng.choice(TEMPLATES[kind, relation])
                rows.append(
                    {
                        "id": f"world-invented-{len(rows) + 1:03}",
                        "category": "invented",
                        "prompt": template.replace("{s}", name),
                        "subject": name,
                        "answer": "",
                        "relation": f"{kind} {relation}",
                        "hop": 1,
                        "template_held_out": False,
                    }
                )
    return rows


def summary(name: str, candidates: list[Candidate]) -> str:
    clean, noised = (np.array([getattr(each, what) for each in candidates]) for what in ("clean", "noised"))
    return (
        f"{name}: {len(candidates)} prompts, clean p {clean.mean():.3f} ({clean.min():.3f} to "
        f"{clean.max():.3f}), noised p {noised.mean():.3f}, tokens "
        f"{np.mean([c.tokens for c in candidates]):.1f}, "
        f"distance {np.mean([c.distance for c in candidates]):.1f}"
    )
