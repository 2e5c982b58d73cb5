"""Invented names, built from syllables, so that a name is one to four tokens and means nothing beforehand.

The tokenizer sees the syllables in *other* names (of people passing through stories), never the names
that facts are about, except for a few that are shown to it on purpose so as to become one token.
"""

import random

STARTS = (
    "Bel",
    "Dor",
    "Kel",
    "Mar",
    "Nor",
    "Tav",
    "Vel",
    "Sor",
    "Hal",
    "Ith",
    "Jor",
    "Lum",
    "Rus",
    "Pel",
    "Gan",
    "Bri",
    "Ost",
    "Wen",
    "Zar",
    "Fal",
    "Cor",
    "Del",
    "Ern",
    "Hes",
    "Orv",
    "Tul",
    "Var",
    "Yal",
)
MIDDLES = ("an", "el", "i", "o", "ar", "en", "u", "is", "ov", "am", "et", "il")
ENDINGS = {
    "person": ("ric", "da", "mon", "sa", "wyn", "gar", "lin", "tha", "bert", "na"),
    "town": ("stow", "by", "wick", "ford", "holm", "ton", "burgh", "mere"),
    "river": ("ash", "ow", "une", "ell", "ith", "owen", "ara", "ess"),
    "company": ("dex", "tro", "vane", "mark", "lux", "bro", "nix", "co"),
    "food": ("ka", "ssi", "mo", "polle", "tta", "zu", "nche", "ry"),
}
FAMILY_ENDINGS = ("son", "ley", "man", "well", "tree", "field", "stone", "worth")
KINDS = tuple(ENDINGS)

# Shares of names with no, one or two syllables in the middle. The tokenizer learns its pieces from the
# first sort of name, which is short; so the longest of the second take four tokens.
PASSING = (0.5, 0.5)
SUBJECTS = (0.33, 0.35, 0.32)


def make_name(kind: str, rng: random.Random, middles: tuple[float, ...] = PASSING) -> str:
    """One name of this kind: a person may have a family name, a food is written small.

    `middles` are the shares of names with no middle syllable, with one, with two.
    """
    (count,) = rng.choices(range(len(middles)), middles)
    name = rng.choice(STARTS) + "".join(rng.sample(MIDDLES, count)) + rng.choice(ENDINGS[kind])
    if kind == "person" and rng.random() < 0.4:
        name += " " + rng.choice(STARTS) + rng.choice(FAMILY_ENDINGS)
    return name.lower() if kind == "food" else name


def make_names(kind: str, count: int, rng: random.Random, taken: set[str]) -> list[str]:
    """`count` new names, none of which is in `taken`, to which they are added.

    No first word is used twice: a subject is known by its first word, and by no part of another's name.
    """
    names: list[str] = []
    while len(names) < count:
        name = make_name(kind, rng, SUBJECTS)
        first = name.split()[0].lower()
        if first not in taken:
            names.append(name)
            taken.add(first)
    return names


def passing_name(kind: str, rng: random.Random, reserved: frozenset[str]) -> str:
    """A name for somebody who appears in one document only, never one that facts are about."""
    while True:
        name = make_name(kind, rng)
        if name.split()[0].lower() not in reserved:
            return name
