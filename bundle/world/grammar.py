"""Sentences from a small dependency grammar of English, each with its own gold analysis.

Every phrase is a list of `Token`s and a head among them. Phrases hang their heads on one another, so
that a sentence is grown together with its Universal Dependencies tree and the two cannot disagree.
"""

import random
from dataclasses import dataclass, field

from world import words
from world.words import Topic, add_s, in_dialect, past, plural


@dataclass(eq=False)
class Token:
    form: str
    upos: str
    lemma: str
    deprel: str = "root"
    head: "Token | None" = None
    space_after: bool = True

    def under(self, head: "Token", deprel: str) -> "Token":
        self.head, self.deprel = head, deprel
        return self


@dataclass
class Phrase:
    tokens: list[Token]
    head: Token
    is_plural: bool = False

    def under(self, head: Token, deprel: str) -> list[Token]:
        self.head.under(head, deprel)
        return self.tokens


@dataclass
class Voice:
    """What a document keeps to throughout: its topic, its dialect, its tense and the names in it."""

    topic: Topic
    dialect: str = "lowland"
    tense: str = "present"
    names: list[str] = field(default_factory=list)


class Grammar:
    """Writes sentences in one voice."""

    def __init__(self, rng: random.Random, voice: Voice) -> None:
        self.rng, self.voice = rng, voice

    # -- words ---------------------------------------------------------------------------------

    def _chance(self, p: float) -> bool:
        return self.rng.random() < p

    def _pick(self, of_topic: tuple[str, ...], common: tuple[str, ...]) -> str:
        return in_dialect(self.rng.choice(of_topic if self._chance(0.7) else common), self.voice.dialect)

    def _adjective(self) -> list[Token]:
        look = self._pick(self.voice.topic.looks, words.COMMON_LOOKS)
        if self._chance(0.04):
            look = self.rng.choice(words.RARE_LOOKS)
        token = Token(look, "ADJ", look)
        if not self._chance(0.12):
            return [token]
        degree = in_dialect(self.rng.choice(words.DEGREES), self.voice.dialect)
        return [Token(degree, "ADV", degree).under(token, "advmod"), token]

    def _noun_word(self, animate: bool) -> str:
        topic = self.voice.topic
        if animate:
            return self._pick(topic.people, words.COMMON_PEOPLE)
        if self._chance(0.05):
            return self.rng.choice(words.RARE_THINGS)
        return self._pick(topic.things, words.COMMON_THINGS)

    def _verb(self, lemma: str, is_plural: bool) -> Token:
        if self.voice.tense == "past":
            return Token(past(lemma), "VERB", lemma)
        return Token(lemma if is_plural else add_s(lemma), "VERB", lemma)

    # -- noun phrases --------------------------------------------------------------------------

    def name(self) -> Phrase:
        first, *rest = self.rng.choice(self.voice.names).split()
        head = Token(first, "PROPN", first)
        return Phrase([head, *(Token(word, "PROPN", word).under(head, "flat") for word in rest)], head)

    def noun_phrase(self, animate: bool, depth: int = 0, bare: bool = False) -> Phrase:
        if animate and self.voice.names and self._chance(0.3):
            return self.name()
        is_plural = self._chance(0.4)
        lemma = self._noun_word(animate)
        noun = Token(plural(lemma) if is_plural else lemma, "NOUN", lemma)
        before = self._determiners(noun, is_plural, depth)
        if self._chance(0.3):
            *degree, adjective = self._adjective()
            before += [*degree, adjective.under(noun, "amod")]
        self._fix_article(before, noun)
        after = [] if bare or depth > 1 else self._after_noun(noun, is_plural, depth)
        return Phrase([*before, noun, *after], noun, is_plural)

    def _determiners(self, noun: Token, is_plural: bool, depth: int) -> list[Token]:
        if depth == 0 and self._chance(0.08):
            return self._owner(noun)
        if is_plural and self._chance(0.25):
            number = self.rng.choice(words.SMALL_NUMBERS)
            if self._chance(0.3):
                number = str(self.rng.randint(13, 99))
            return [Token(number, "NUM", number).under(noun, "nummod")]
        choices = (
            ("the", "the", "these", "some", "many") if is_plural else ("the", "the", "a", "this", "every")
        )
        form = self.rng.choice(choices)
        if form == "many":
            return [Token(form, "ADJ", form).under(noun, "amod")]
        return [Token(form, "DET", form).under(noun, "det")]

    def _owner(self, noun: Token) -> list[Token]:
        owner = self.noun_phrase(animate=True, depth=2)
        last = owner.tokens[-1]
        last.space_after = False
        ending = "'" if last.form.endswith("s") else "'s"
        return [*owner.under(noun, "nmod:poss"), Token(ending, "PART", "'s").under(owner.head, "case")]

    @staticmethod
    def _fix_article(before: list[Token], noun: Token) -> None:
        for token, following in zip(before, [*before[1:], noun], strict=True):
            if token.form == "a" and following.form[0] in "aeiou":
                token.form = "an"

    def _after_noun(self, noun: Token, is_plural: bool, depth: int) -> list[Token]:
        """What may stand between a subject and its verb, and so make agreement reach further."""
        draw = self.rng.random()
        if draw < 0.22:
            return self.place().under(noun, "nmod")
        if draw < 0.34 and depth == 0 and noun.upos == "NOUN":
            return self._relative_clause(noun, is_plural)
        return []

    def _relative_clause(self, noun: Token, is_plural: bool) -> list[Token]:
        lemma = self._pick(self.voice.topic.acts, words.COMMON_ACTS)
        if self._chance(0.5):  # "that sees the boats"
            verb = self._verb(lemma, is_plural).under(noun, "acl:relcl")
            rest = self.noun_phrase(False, depth=2).under(verb, "obj")
            return [Token("that", "PRON", "that").under(verb, "nsubj"), verb, *rest]
        doer = self.noun_phrase(True, depth=2)  # "that the sailors see"
        verb = self._verb(lemma, doer.is_plural).under(noun, "acl:relcl")
        return [Token("that", "PRON", "that").under(verb, "obj"), *doer.under(verb, "nsubj"), verb]

    def place(self) -> Phrase:
        where = self.noun_phrase(False, depth=2)
        preposition = self.rng.choice(words.PLACES)
        return Phrase(
            [Token(preposition, "ADP", preposition).under(where.head, "case"), *where.tokens], where.head
        )

    # -- clauses -------------------------------------------------------------------------------

    def _subject(self) -> Phrase:
        draw = self.rng.random()
        if draw < 0.12:
            form = self.rng.choice(("he", "she", "it", "they", "we"))
            token = Token(form, "PRON", form)
            return Phrase([token], token, form in ("they", "we"))
        first = self.noun_phrase(animate=True)
        if draw < 0.2:
            second = self.noun_phrase(animate=True, depth=2, bare=True)
            joiner = Token("and", "CCONJ", "and").under(second.head, "cc")
            return Phrase([*first.tokens, joiner, *second.under(first.head, "conj")], first.head, True)
        return first

    def _auxiliary(self, verb: Token, is_plural: bool) -> list[Token]:
        """Sometimes an auxiliary takes the verb's ending upon itself."""
        if not self._chance(0.2):
            return []
        if self._chance(0.5):
            form = self.rng.choice(("will", "can", "must", "may"))
            return [Token(form, "AUX", form).under(verb, "aux")]
        do = "did" if self.voice.tense == "past" else "do" if is_plural else "does"
        return [Token(do, "AUX", "do").under(verb, "aux"), Token("not", "PART", "not").under(verb, "advmod")]

    def _verb_phrase(self, subject: Phrase) -> Phrase:
        draw = self.rng.random()
        if draw < 0.2:
            return self._being(subject)
        if draw < 0.28:
            return self._wanting(subject)
        if draw < 0.36:
            return self._giving(subject)
        takes_object = draw < 0.75
        topic = self.voice.topic
        lemma = (
            self._pick(topic.acts, words.COMMON_ACTS)
            if takes_object
            else self._pick(topic.moves, words.COMMON_MOVES)
        )
        verb = self._verb(lemma, subject.is_plural)
        before = self._auxiliary(verb, subject.is_plural)
        if before:
            verb.form = lemma
        after = self.noun_phrase(False).under(verb, "obj") if takes_object else []
        return Phrase([*before, verb, *after, *self._how_and_where(verb)], verb)

    def _how_and_where(self, verb: Token) -> list[Token]:
        tokens: list[Token] = []
        if self._chance(0.2):
            adverb = in_dialect(self.rng.choice(words.ADVERBS), self.voice.dialect)
            tokens.append(Token(adverb, "ADV", adverb).under(verb, "advmod"))
        if self._chance(0.3):
            tokens += self.place().under(verb, "obl")
        elif self._chance(0.12):
            time = self.rng.choice(words.TIMES)
            noun = Token(time, "NOUN", time).under(verb, "obl")
            tokens += [Token("at" if time in ("night", "noon") else "in", "ADP", "in").under(noun, "case")]
            tokens += [] if time in ("night", "noon") else [Token("the", "DET", "the").under(noun, "det")]
            tokens.append(noun)
        return tokens

    def _being(self, subject: Phrase) -> Phrase:
        if self.voice.tense == "past":
            form = "were" if subject.is_plural else "was"
        else:
            form = "are" if subject.is_plural else "is"
        *degree, adjective = self._adjective()
        return Phrase([Token(form, "AUX", "be").under(adjective, "cop"), *degree, adjective], adjective)

    def _wanting(self, subject: Phrase) -> Phrase:
        verb = self._verb("want", subject.is_plural)
        lemma = self._pick(self.voice.topic.acts, words.COMMON_ACTS)
        inner = Token(lemma, "VERB", lemma).under(verb, "xcomp")
        to = Token("to", "PART", "to").under(inner, "mark")
        return Phrase([verb, to, inner, *self.noun_phrase(False).under(inner, "obj")], verb)

    def _giving(self, subject: Phrase) -> Phrase:
        lemma = self.rng.choice(("show", "offer", "lend"))
        verb = self._verb(lemma, subject.is_plural)
        if lemma == "lend" and self.voice.tense == "past":
            verb.form = "lent"
        receiver = self.noun_phrase(True, depth=2, bare=True).under(verb, "iobj")
        return Phrase([verb, *receiver, *self.noun_phrase(False, depth=1).under(verb, "obj")], verb)

    def clause(self) -> Phrase:
        subject = self._subject()
        predicate = self._verb_phrase(subject)
        return Phrase([*subject.under(predicate.head, "nsubj"), *predicate.tokens], predicate.head)
