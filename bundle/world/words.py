"""The ordinary words of the world, by topic and by class, and how they inflect.

Topics are kept apart on purpose: a document announces its topic once, and the words that follow
depend on it, so that a model gains by reading far back.
"""

# ruff: noqa: SIM905 - lists of words read better as words
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    name: str
    people: tuple[str, ...]
    things: tuple[str, ...]
    acts: tuple[str, ...]  # transitive verbs
    moves: tuple[str, ...]  # intransitive verbs
    looks: tuple[str, ...]  # adjectives


def _topic(name: str, people: str, things: str, acts: str, moves: str, looks: str) -> Topic:
    return Topic(name, *(tuple(part.split()) for part in (people, things, acts, moves, looks)))


TOPICS = (
    _topic(
        "harbour",
        "sailor pilot captain docker diver",
        "boat rope anchor sail net barrel oar mast",
        "load moor haul paint repair",
        "sail drift arrive row",
        "salty wet tarred windy rusty",
    ),
    _topic(
        "farm",
        "farmer shepherd milker ploughman drover",
        "field goat cow barn fence hen cart plough",
        "feed milk gather mend lead",
        "graze wander work dig",
        "muddy green ripe dusty fat",
    ),
    _topic(
        "kitchen",
        "cook baker butler servant guest",
        "pot oven loaf bowl spoon kettle pan dish",
        "stir bake taste serve wash",
        "eat wait boil cool",
        "hot fresh burnt sweet clean",
    ),
    _topic(
        "market",
        "trader buyer porter beggar juggler",
        "stall coin basket scale cloth lamp purse bell",
        "sell buy weigh carry count",
        "shout bargain stop queue",
        "cheap costly busy loud fine",
    ),
    _topic(
        "forest",
        "hunter woodman ranger trapper charcoaler",
        "oak path owl fox branch nest deer log",
        "chase follow chop hide track",
        "climb hunt rest creep",
        "dark tall mossy quiet wild",
    ),
    _topic(
        "school",
        "teacher pupil clerk scholar warden",
        "book slate map desk letter page lesson pen",
        "teach read copy correct draw",
        "study write listen answer",
        "clever dull strict careful neat",
    ),
    _topic(
        "mountain",
        "climber miner guide hermit mason",
        "peak cave stone ledge pass bridge hut tunnel",
        "cross cut find guard build",
        "climb slip camp descend",
        "steep cold high icy lonely",
    ),
    _topic(
        "workshop",
        "weaver potter smith carver glazier",
        "loom hammer thread wheel kiln bench needle vase",
        "shape weave polish hammer sort",
        "labour hurry whistle yawn",
        "rough smooth bright heavy plain",
    ),
)

COMMON_PEOPLE = tuple("man woman child neighbour friend stranger king queen cousin widow".split())
COMMON_THINGS = tuple("house door road river window table wall gate garden hill box key tree fire".split())
COMMON_ACTS = tuple("see watch want love hold know leave push pull remember forget open close help".split())
COMMON_MOVES = tuple("sleep laugh cry walk run sing smile wait fall return dance talk".split())
COMMON_LOOKS = tuple(
    "old young small great good bad new poor rich long short red blue white black strange".split()
)
SAYING_VERBS = tuple("say whisper shout reply explain".split())
THINKING_VERBS = tuple("think know believe hope".split())
ADVERBS = tuple("slowly often never always quickly soon gently again loudly seldom".split())
DEGREES = tuple("very quite rather too".split())
PLACES = tuple("in near behind under beside above".split())
TIMES = tuple("morning evening night noon winter summer".split())
JOINERS = ("and", "but", "or")
LINKS = tuple("because when while although if".split())
INTERJECTIONS = tuple("oh well ah alas".split())
SMALL_NUMBERS = tuple("two three four five six seven eight nine ten eleven twelve".split())
ORDINALS = tuple("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split())

RARE_THINGS = tuple(
    "candlewright thistleberry underquarry moonharrow perambulator clockweasel parchmentry saltcellar "
    "windlestraw gallimaufry hobbledehoy quernstone wickerwork flintlocker bramblethatch nettlecloth "
    "hourglass mizzenmast portcullis ferrywright lanternfish marrowbone cobblestone sextant "
    "thunderstone wheelbarrow butterchurn candlesnuffer weathercock spinningwheel".split()
)
RARE_LOOKS = tuple(
    "crepuscular lugubrious vermilion perpendicular unfathomable threadbare waterlogged moth-eaten "
    "labyrinthine immaculate ramshackle featherlight".split()
)

# One meaning, three dialects: a document announces its dialect and then keeps to it.
DIALECTS = ("lowland", "coastal", "upland")
DIALECT_WORDS: dict[str, tuple[str, str, str]] = {
    "small": ("small", "wee", "tiny"),
    "great": ("great", "mickle", "mighty"),
    "child": ("child", "bairn", "kid"),
    "friend": ("friend", "matey", "crony"),
    "old": ("old", "hoary", "aged"),
    "good": ("good", "braw", "grand"),
    "bad": ("bad", "ill", "foul"),
    "very": ("very", "fair", "mighty"),
    "often": ("often", "oft", "mostly"),
    "quickly": ("quickly", "swift", "briskly"),
    "man": ("man", "fellow", "bloke"),
    "woman": ("woman", "lass", "dame"),
    "house": ("house", "croft", "lodge"),
    "road": ("road", "lane", "track"),
    "hill": ("hill", "brae", "fell"),
    "see": ("see", "spy", "behold"),
    "know": ("know", "ken", "grasp"),
    "talk": ("talk", "blether", "chatter"),
    "oh": ("oh", "och", "hey"),
    "well": ("well", "aye", "so"),
}

IRREGULAR_PLURALS = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "ploughman": "ploughmen",
    "woodman": "woodmen",
    "lanternfish": "lanternfish",
    "loaf": "loaves",
    "fox": "foxes",
    "deer": "deer",
}
IRREGULAR_PASTS = {
    "see": "saw",
    "hold": "held",
    "know": "knew",
    "leave": "left",
    "forget": "forgot",
    "sleep": "slept",
    "run": "ran",
    "sing": "sang",
    "fall": "fell",
    "say": "said",
    "think": "thought",
    "feed": "fed",
    "lead": "led",
    "dig": "dug",
    "eat": "ate",
    "sell": "sold",
    "buy": "bought",
    "hide": "hid",
    "creep": "crept",
    "teach": "taught",
    "read": "read",
    "draw": "drew",
    "write": "wrote",
    "cut": "cut",
    "find": "found",
    "build": "built",
    "weave": "wove",
    "spy": "spied",
    "behold": "beheld",
    "ken": "kent",
    "stir": "stirred",
    "chop": "chopped",
    "stop": "stopped",
    "hurry": "hurried",
    "slip": "slipped",
    "carry": "carried",
    "cry": "cried",
    "study": "studied",
    "reply": "replied",
}


def _takes_es(word: str) -> bool:
    return word.endswith(("s", "x", "z", "ch", "sh"))


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in "aeiou"


def add_s(word: str) -> str:
    """The regular plural of a noun, and the third person singular of a verb: spelt the same way."""
    if _ends_in_consonant_y(word):
        return word[:-1] + "ies"
    return word + ("es" if _takes_es(word) else "s")


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun) or add_s(noun)


def past(verb: str) -> str:
    if verb in IRREGULAR_PASTS:
        return IRREGULAR_PASTS[verb]
    return verb + ("d" if verb.endswith("e") else "ed")


def in_dialect(word: str, dialect: str) -> str:
    """The word this dialect uses for that meaning; most words are the same in all three."""
    if word not in DIALECT_WORDS:
        return word
    return DIALECT_WORDS[word][DIALECTS.index(dialect)]
