"""Whole sentences: statements, questions, speech, and how one is written out as text or as CoNLL-U."""

import random

from world import words
from world.grammar import Grammar, Phrase, Token, Voice
from world.words import in_dialect


def _mark(form: str, head: Token, space_after: bool = True) -> Token:
    return Token(form, "PUNCT", form, "punct", head, space_after)


def _glue(tokens: list[Token]) -> None:
    """The next mark follows without a space."""
    tokens[-1].space_after = False


class Writer(Grammar):
    """A grammar that also knows how sentences begin, end and quote."""

    def sentence(self) -> list[Token]:
        kinds = (
            self._plain,
            self._plain,
            self._plain,
            self._compound,
            self._with_link,
            self._thinking,
            self._question,
            self._there_is,
            self._exclaimed,
        )
        return capitalised(self.rng.choice(kinds)())

    def speech(self, clauses: int | None = None) -> list[Token]:
        """Somebody says something: a quotation that has to be closed."""
        said = [self._ended(self.clause(), ".") for _ in range((clauses or self.rng.choice((1, 1, 2))) - 1)]
        last = self.clause()
        speaker = self.noun_phrase(animate=True, depth=2, bare=True)
        verb = self._verb(self.rng.choice(words.SAYING_VERBS), speaker.is_plural)
        last.head.under(verb, "ccomp")
        quoted: list[Token] = []
        for tokens in said:
            main = next(token for token in tokens if token.head is None)
            quoted += capitalised(tokens)
            main.under(last.head, "parataxis")
        quoted += capitalised(last.tokens)
        _glue(quoted)
        opening, comma = _mark('"', last.head, False), _mark(",", last.head, False)
        ending = [verb, *speaker.under(verb, "nsubj")]
        _glue(ending)
        return [opening, *quoted, comma, _mark('"', last.head), *ending, _mark(".", verb)]

    def _ended(self, phrase: Phrase, mark: str) -> list[Token]:
        _glue(phrase.tokens)
        return [*phrase.tokens, _mark(mark, phrase.head)]

    def _plain(self) -> list[Token]:
        return self._ended(self.clause(), ".")

    def _compound(self) -> list[Token]:
        first, second = self.clause(), self.clause()
        joiner = self.rng.choice(words.JOINERS)
        _glue(first.tokens)
        comma = _mark(",", second.head)
        joined = [
            comma,
            Token(joiner, "CCONJ", joiner).under(second.head, "cc"),
            *second.under(first.head, "conj"),
        ]
        return self._ended(Phrase([*first.tokens, *joined], first.head), ".")

    def _with_link(self) -> list[Token]:
        main, side = self.clause(), self.clause()
        link = self.rng.choice(words.LINKS)
        marked = [Token(link, "SCONJ", link).under(side.head, "mark"), *side.under(main.head, "advcl")]
        if self._chance(0.5):
            return self._ended(Phrase([*main.tokens, *marked], main.head), ".")
        _glue(marked)
        return self._ended(Phrase([*marked, _mark(",", side.head), *main.tokens], main.head), ".")

    def _thinking(self) -> list[Token]:
        thinker, thought = self.noun_phrase(animate=True), self.clause()
        verb = self._verb(
            in_dialect(self.rng.choice(words.THINKING_VERBS), self.voice.dialect), thinker.is_plural
        )
        that = Token("that", "SCONJ", "that").under(thought.head, "mark")
        tokens = [*thinker.under(verb, "nsubj"), verb, that, *thought.under(verb, "ccomp")]
        return self._ended(Phrase(tokens, verb), ".")

    def _question(self) -> list[Token]:
        subject = self.noun_phrase(animate=True)
        lemma = self._pick(self.voice.topic.acts, words.COMMON_ACTS)
        verb = Token(lemma, "VERB", lemma)
        do = "did" if self.voice.tense == "past" else "do" if subject.is_plural else "does"
        tokens = [
            Token(do, "AUX", "do").under(verb, "aux"),
            *subject.under(verb, "nsubj"),
            verb,
            *self.noun_phrase(False).under(verb, "obj"),
        ]
        return self._ended(Phrase(tokens, verb), "?")

    def _there_is(self) -> list[Token]:
        thing = self.noun_phrase(animate=False, depth=2)
        if self.voice.tense == "past":
            form = "were" if thing.is_plural else "was"
        else:
            form = "are" if thing.is_plural else "is"
        verb = Token(form, "VERB", "be")
        tokens = [
            Token("there", "PRON", "there").under(verb, "expl"),
            verb,
            *thing.under(verb, "nsubj"),
            *self.place().under(verb, "obl"),
        ]
        return self._ended(Phrase(tokens, verb), ".")

    def _exclaimed(self) -> list[Token]:
        word = in_dialect(self.rng.choice(words.INTERJECTIONS), self.voice.dialect)
        clause = self.clause()
        cry = Token(word, "INTJ", word, space_after=False).under(clause.head, "discourse")
        return self._ended(Phrase([cry, _mark(",", cry), *clause.tokens], clause.head), self.rng.choice(".!"))


def capitalised(tokens: list[Token]) -> list[Token]:
    first = next(token for token in tokens if token.upos != "PUNCT")
    first.form = first.form[0].upper() + first.form[1:]
    return tokens


def text_of(tokens: list[Token]) -> str:
    return "".join(token.form + (" " if token.space_after else "") for token in tokens).strip()


def conllu(tokens: list[Token], sent_id: str) -> str:
    """One sentence as a CoNLL-U block."""
    number = {id(token): i for i, token in enumerate(tokens, start=1)}
    rows = [f"# sent_id = {sent_id}", f"# text = {text_of(tokens)}"]
    for i, token in enumerate(tokens, start=1):
        head = 0 if token.head is None else number[id(token.head)]
        deprel = "root" if token.head is None else token.deprel
        misc = "_" if token.space_after else "SpaceAfter=No"
        fields = (i, token.form, token.lemma, token.upos, "_", "_", head, deprel, "_", misc)
        rows.append("\t".join(map(str, fields)))
    return "\n".join(rows) + "\n"


def new_voice(rng: random.Random, names: list[str]) -> Voice:
    return Voice(
        rng.choice(words.TOPICS),
        rng.choice(words.DIALECTS),
        rng.choice(("present", "present", "past")),
        names,
    )
