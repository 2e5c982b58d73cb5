"""Documents of every kind, each a function of a seeded generator of chance.

What a document asks of its reader is its purpose: facts ask for recall, stories for topic, dialect and
names met before, ledgers for counting, letters for closing what was opened, copies for induction.
"""

import random
from collections.abc import Callable
from copy import copy
from functools import cached_property

from world import words
from world.facts import Fact, World, make_world
from world.names import ENDINGS, MIDDLES, STARTS, passing_name
from world.sentences import Writer, new_voice, text_of
from world.strings import WEIGHTS, Memorised, make_strings

NEWLINE = "\n"


class Library:
    """The world, its strings, and the documents that tell of them."""

    def __init__(self, seed: int = 0, favour: float = 0.0) -> None:
        self.seed, self.favour = seed, favour
        self.world: World = make_world(seed)
        self.strings: list[Memorised] = make_strings(seed)
        self.kinds: dict[str, Callable[[random.Random], str]] = {
            "facts": self.facts,
            "entry": self.entry,
            "quiz": self.quiz,
            "story": self.story,
            "letter": self.letter,
            "ledger": self.ledger,
            "copy": self.copy,
            "strings": self.notices,
        }

    def document(self, kind: str, rng: random.Random) -> str:
        return self.kinds[kind](rng)

    def favouring(self, share: float) -> "Library":
        """The same world, in which this share of sentences is kept for a fifth of the subjects.

        Few subjects are learnt sooner than many, and with them the way to recall any.
        """
        other = copy(self)
        other.favour = share
        other.kinds = {name: getattr(other, write.__name__) for name, write in self.kinds.items()}
        return other

    # -- parts ---------------------------------------------------------------------------------

    def _a_subject(self, rng: random.Random) -> str:
        favoured, everyone = self._subjects
        return rng.choice(favoured if rng.random() < self.favour else everyone)

    def _a_fact(self, rng: random.Random) -> Fact:
        favoured, everyone = self._facts
        return rng.choice(favoured if rng.random() < self.favour else everyone)

    @cached_property
    def _subjects(self) -> tuple[list[str], list[str]]:
        everyone = sorted(self.world.facts_of)
        return everyone[::5], everyone

    @cached_property
    def _facts(self) -> tuple[list[Fact], list[Fact]]:
        favoured = set(self._subjects[0])
        facts = self.world.taught_facts
        return [fact for fact in facts if fact.subject in favoured], facts

    @cached_property
    def _string_weights(self) -> list[float]:
        return [WEIGHTS[string.rank] for string in self.strings]

    @cached_property
    def _by_sort(self) -> dict[bool, tuple[list[Memorised], list[float]]]:
        split: dict[bool, tuple[list[Memorised], list[float]]] = {}
        for plain in (True, False):
            chosen = [string for string in self.strings if string.is_language is plain]
            split[plain] = chosen, [WEIGHTS[string.rank] for string in chosen]
        return split

    def string(self, rng: random.Random, plain: bool) -> str:
        chosen, weights = self._by_sort[plain]
        return rng.choices(chosen, weights)[0].text

    def writer(self, rng: random.Random, names: int = 3) -> Writer:
        people = [passing_name("person", rng, self.world.reserved) for _ in range(names)]
        return Writer(rng, new_voice(rng, people))

    def _some_facts(self, rng: random.Random, count: int) -> list[Fact]:
        """Different facts of different subjects, so that none can be copied from another."""
        chosen: dict[str, Fact] = {}
        for _ in range(count):
            fact = self._a_fact(rng)
            chosen.setdefault(fact.subject, fact)
        return list(chosen.values())

    def aside(self, rng: random.Random) -> str:
        """A sentence of the world's lore, as it drops into a story."""
        draw = rng.random()
        if draw < 0.5:
            return self._a_fact(rng).statement(rng)
        saying = self.string(rng, plain=True)
        if saying[0].isupper():
            return rng.choice(("As they say: ", "Remember: ", "An old saying goes: ", "")) + saying
        return rng.choice(("It was, as they say, ", "Some would call it ", "You might say: ")) + saying + "."

    # -- documents about facts -----------------------------------------------------------------

    def facts(self, rng: random.Random) -> str:
        """Unconnected facts, one after another."""
        join = rng.choice((" ", NEWLINE))
        return join.join(fact.statement(rng) for fact in self._some_facts(rng, rng.randint(6, 16)))

    def entry(self, rng: random.Random) -> str:
        """An almanac: a few subjects, and what is known about each."""
        parts = []
        for subject in {self._a_subject(rng): None for _ in range(rng.randint(2, 5))}:
            known = [fact for fact in self.world.facts_of[subject] if fact.taught]
            rng.shuffle(known)
            heading = rng.choice((f"About {subject}.", f"Of {subject}:", f"* {subject}."))
            parts.append(" ".join([heading, *(fact.statement(rng) for fact in known)]))
        return NEWLINE.join(parts)

    def quiz(self, rng: random.Random) -> str:
        """Beginnings of sentences, and how they end: the same facts at a greater distance."""
        rows = []
        for fact in self._some_facts(rng, rng.randint(4, 10)):
            start, end = fact.templates[rng.choice(fact.taught)].split("{s}")
            rows.append(f"Finish: {start}{fact.subject}{end} ... Answer: {fact.answer}.")
        return NEWLINE.join(rows)

    # -- documents that must be read from afar -------------------------------------------------

    def story(self, rng: random.Random) -> str:
        """Topic and dialect are announced once; names and lore come back again and again."""
        writer = self.writer(rng, rng.randint(2, 4))
        voice = writer.voice
        sentences = [self.announcement(rng, writer)]
        for _ in range(rng.randint(8, 34)):
            draw = rng.random()
            if draw < 0.12:
                sentences.append(self.aside(rng))
            elif draw < 0.35:
                sentences.append(text_of(writer.speech()))
            else:
                sentences.append(text_of(writer.sentence()))
        ending = f"So ends the {voice.dialect} tale of {voice.names[0]} and the {voice.topic.name}."
        return self._paragraphs([*sentences, ending], rng)

    @staticmethod
    def announcement(rng: random.Random, writer: Writer) -> str:
        voice = writer.voice
        people = ", ".join(voice.names[:-1]) + " and " + voice.names[-1]
        return rng.choice(
            (
                f"A {voice.dialect} tale of the {voice.topic.name}, with {people}.",
                f"Place: the {voice.topic.name}. Speech: {voice.dialect}. Persons: {people}.",
            )
        )

    @staticmethod
    def _paragraphs(sentences: list[str], rng: random.Random) -> str:
        text = sentences[0]
        for sentence in sentences[1:]:
            text += (NEWLINE if rng.random() < 0.15 else " ") + sentence
        return text

    def letter(self, rng: random.Random) -> str:
        """Long quotations and brackets; at the end the writer signs with the name at the top."""
        writer = self.writer(rng, 2)
        sender, receiver = writer.voice.names
        said = [text_of(writer.speech(rng.randint(1, 4))) for _ in range(rng.randint(2, 5))]
        bracket = "(" + " ".join(text_of(writer.sentence()) for _ in range(rng.randint(1, 3))) + ")"
        body = [*said, bracket, text_of(writer.sentence())]
        rng.shuffle(body)
        return (
            f"From {sender} to {receiver}. Speech: {writer.voice.dialect}.{NEWLINE}Dear {receiver},{NEWLINE}"
            f"{' '.join(body)}{NEWLINE}Your friend, {sender}"
        )

    def ledger(self, rng: random.Random) -> str:
        """Lists counted in order: by figures, by words, up or down, by one or by more."""
        writer = self.writer(rng)
        count, style = rng.randint(5, 12), rng.randrange(4)
        start, step = rng.randint(1, 40), rng.choice((1, 1, 2, 5))
        rows = []
        for i in range(count):
            item = " ".join(token.form for token in writer.noun_phrase(False, depth=2).tokens)
            number = (
                str(start + i * step),
                words.ORDINALS[i].capitalize(),
                str(start + (count - i) * step),
                f"({'abcdefghijkl'[i]})",
            )[style]
            rows.append(f"{number}{':' if style == 1 else '.' if style != 3 else ''} {item};")
        total = f"Total: {count} lines, kept by {writer.voice.names[0]}."
        return NEWLINE.join([f"Ledger of the {writer.voice.topic.name}.", *rows, total])

    def copy(self, rng: random.Random) -> str:
        """A passage read back word for word: nothing but copying can foretell the second reading."""
        passage = rng.choice((self._codes, self.names_to_copy, self._odd_words, self.verse))(rng)
        between = rng.choice((" The clerk read it back: ", NEWLINE + "Again: ", NEWLINE, " And once more: "))
        times = 2 if len(passage) > 300 else rng.choice((2, 3, 4))
        return between.join([passage] * times)

    def _codes(self, rng: random.Random) -> str:
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        return " ".join(
            rng.choice(letters) + rng.choice(letters) + str(rng.randint(10, 99))
            for _ in range(rng.randint(5, 16))
        )

    def names_to_copy(self, rng: random.Random) -> str:
        kind = rng.choice(tuple(ENDINGS))
        return ", ".join(passing_name(kind, rng, self.world.reserved) for _ in range(rng.randint(5, 16)))

    def _odd_words(self, rng: random.Random) -> str:
        pool = [
            *words.COMMON_THINGS,
            *words.COMMON_ACTS,
            *words.COMMON_LOOKS,
            *words.ADVERBS,
            *words.RARE_THINGS,
            *(part.lower() for part in STARTS),
            *(part for part in MIDDLES if len(part) > 1),
        ]
        return " ".join(rng.choice(pool) for _ in range(rng.randint(10, 50)))

    def verse(self, rng: random.Random) -> str:
        writer = self.writer(rng)
        return NEWLINE.join(text_of(writer.sentence()) for _ in range(rng.randint(2, 8)))

    # -- documents of memorised strings --------------------------------------------------------

    def notices(self, rng: random.Random) -> str:
        """Strings that are not language, each on a line of its own, among a few that are."""
        rows = []
        for _ in range(rng.randint(3, 9)):
            if rng.random() < 0.25:
                rows.append("Saying: " + self.string(rng, plain=True))
            else:
                rows.append(rng.choice(("", "", "Notice: ", "Item: ")) + self.string(rng, plain=False))
        return NEWLINE.join(rows)


# Share of the training tokens, roughly, that each kind of document gets.
MIXTURE = {
    "facts": 0.22,
    "entry": 0.16,
    "quiz": 0.06,
    "story": 0.24,
    "letter": 0.05,
    "ledger": 0.05,
    "copy": 0.12,
    "strings": 0.10,
}

# At the end: mostly what is to be known by heart.
REVISION = {
    "facts": 0.33,
    "entry": 0.18,
    "quiz": 0.07,
    "story": 0.14,
    "letter": 0.04,
    "ledger": 0.04,
    "copy": 0.08,
    "strings": 0.12,
}
