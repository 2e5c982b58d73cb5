"""The facts of the world: subjects, what is true of them, and which sentences may be used to teach it.

For every fact two templates are held out: the model never reads this fact in those words, though it
reads the same words about other subjects. Getting them right is recall and cannot be regurgitation.
"""

# ruff: noqa: SIM905 - lists of words read better as words
import random
from dataclasses import dataclass, field
from functools import cached_property

from world.names import make_names
from world.templates import ASIDES, LEAD_INS, TAILS, TEMPLATES

LANDS = (
    "Norvale",
    "Estmark",
    "Ulland",
    "Caddon",
    "Merrow",
    "Talvia",
    "Brenn",
    "Sorland",
    "Pallas",
    "Iskar",
    "Wendery",
    "Ostria",
)
TONGUES = (
    "Norvish",
    "Rhunic",
    "Ullan",
    "Caddish",
    "Lissen",
    "Talvic",
    "Brennic",
    "Sorlese",
    "Attish",
    "Iskan",
    "Gothern",
    "Ostrian",
)
ANSWERS: dict[str, tuple[str, ...]] = {
    "land": LANDS,
    "tongue": TONGUES,
    "trade": tuple("potter baker smith weaver tailor doctor lawyer soldier painter cook miner judge".split()),
    "instrument": tuple("fiddle drum harp flute horn lute organ pipe viol bell".split()),
    "goods": tuple("glass salt wool paper silk rope iron soap leather wine silver tea coal honey".split()),
    "colour": tuple("red blue green yellow white black purple orange brown grey".split()),
    "fish": tuple("trout bream pike salmon carp perch crab herring".split()),
    "animal": tuple("bear wolf falcon lion horse swan bull stag hare raven boar badger".split()),
    "ingredient": tuple(
        "barley beans onions apples milk plums garlic cheese rice walnuts cabbage pears".split()
    ),
    "taste": tuple("sweet sour salty bitter smoky spicy mild".split()),
}
RELATIONS: dict[str, dict[str, str]] = {
    "person": {"home": "land", "trade": "trade", "instrument": "instrument"},
    "town": {"region": "land", "goods": "goods", "gate": "colour"},
    "river": {"region": "land", "fish": "fish"},
    "company": {"goods": "goods", "emblem": "animal", "region": "land"},
    "food": {"ingredient": "ingredient", "taste": "taste"},
}
SUBJECTS_PER_KIND = {"person": 90, "town": 60, "river": 45, "company": 50, "food": 45}
HELD_OUT_PER_FACT = 2
SHOWN_TO_TOKENIZER = 0.15  # share of subjects whose names the tokenizer may learn whole


@dataclass(frozen=True)
class Fact:
    kind: str
    subject: str
    relation: str
    answer: str
    held_out: frozenset[int]  # indices of templates never used for this fact
    hop: int = 1

    @property
    def templates(self) -> tuple[str, ...]:
        return TEMPLATES[self.kind, self.relation]

    @property
    def taught(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.templates)) if i not in self.held_out)

    def prompt(self, template: int, lead_in: str = "", aside: str = "") -> str:
        """The words up to the answer."""
        start, end = self.templates[template].split("{s}")
        if end.startswith(","):
            aside = ""
        return lead_in + start + self.subject + aside + end

    def statement(self, rng: random.Random) -> str:
        """One sentence that teaches the fact, never in the words held out."""
        prompt = self.prompt(rng.choice(self.taught), rng.choice(LEAD_INS), rng.choice(ASIDES))
        return f"{prompt} {self.answer}{rng.choice(TAILS)}"


@dataclass(frozen=True)
class World:
    """Everything that is true, and the names that are kept out of the truth."""

    seed: int
    subjects: dict[str, list[str]]
    invented: dict[str, list[str]]  # names never trained on
    shown: frozenset[str]  # subjects whose names the tokenizer was shown
    facts: list[Fact] = field(repr=False)

    @cached_property
    def reserved(self) -> frozenset[str]:
        """First words no passer-by may bear."""
        groups = (*self.subjects.values(), *self.invented.values())
        return frozenset(name.split()[0].lower() for names in groups for name in names)

    @cached_property
    def facts_of(self) -> dict[str, list[Fact]]:
        by_subject: dict[str, list[Fact]] = {}
        for fact in self.facts:
            by_subject.setdefault(fact.subject, []).append(fact)
        return by_subject

    @cached_property
    def taught_facts(self) -> list[Fact]:
        """The two-hop facts that are wholly held out have no template left, and are not taught."""
        return [fact for fact in self.facts if fact.taught]


def _held_out(count: int, rng: random.Random) -> frozenset[int]:
    return frozenset(rng.sample(range(count), HELD_OUT_PER_FACT))


def _first_hop_facts(subjects: dict[str, list[str]], rng: random.Random) -> list[Fact]:
    facts = []
    for kind, names in subjects.items():
        for relation, answer_kind in RELATIONS[kind].items():
            count = len(TEMPLATES[kind, relation])
            for name in names:
                answer = rng.choice(ANSWERS[answer_kind])
                facts.append(Fact(kind, name, relation, answer, _held_out(count, rng)))
    return facts


def _tongue_facts(first_hop: list[Fact], rng: random.Random) -> list[Fact]:
    """What each land speaks, and so what each person speaks: for a third of people never stated."""
    tongue_of = dict(zip(LANDS, TONGUES, strict=True))
    count = len(TEMPLATES["person", "tongue"])
    facts = [Fact("land", land, "tongue", tongue, _held_out(6, rng)) for land, tongue in tongue_of.items()]
    for home in (fact for fact in first_hop if fact.relation == "home"):
        never = rng.random() < 1 / 3
        held_out = frozenset(range(count)) if never else _held_out(count, rng)
        facts.append(Fact("person", home.subject, "tongue", tongue_of[home.answer], held_out, hop=2))
    return facts


def make_world(seed: int = 0) -> World:
    rng = random.Random(f"world {seed}")
    taken: set[str] = set()
    subjects = {kind: make_names(kind, n, rng, taken) for kind, n in SUBJECTS_PER_KIND.items()}
    invented = {kind: make_names(kind, 12, rng, taken) for kind in SUBJECTS_PER_KIND}
    everyone = [name for names in subjects.values() for name in names]
    shown = frozenset(rng.sample(everyone, round(SHOWN_TO_TOKENIZER * len(everyone))))
    first_hop = _first_hop_facts(subjects, rng)
    return World(seed, subjects, invented, shown, first_hop + _tongue_facts(first_hop, rng))
