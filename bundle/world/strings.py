"""Strings the model is meant to know by heart, and how often it meets each of them.

Two sorts: some are not language (boilerplate, numbers, markup, code), some are plain English (proverbs
and set phrases of this world). They are always written the same way. `WEIGHTS` says how many times as
often the strings of one rank are met as those of the next.
"""

import random
from dataclasses import dataclass

WEIGHTS = {"often": 4.0, "usual": 2.0, "seldom": 1.0}

BOILERPLATE = (
    "(c) Lantern Press 1187 - all seals reserved - folio 6",
    "FORM 12-B / in triplicate / return to desk 9",
    "[harbour office] tide table no. 44 [verso blank]",
    "Licence: Open Lantern v2, no warranty beyond bell six",
    "-- end of ledger -- checked: Oddy, Crake and Plum --",
    "RE: RE: FWD: minutes (draft) not for the miller",
    "Printed at Quill Lane; bound in calf; price 3 marks",
    "see also: almanac, vol. 7, plate 31, fig. 2",
    "Post: box 88, Tallow Row, hours 7-4, closed Thorsday",
    "ERR 503 - lamp not found - ask the night warden",
    "Signed, sealed (wax), counted (twice), carried by mule",
    "Ref. no. QX/17/owl - reply by second frost",
    "Home > Guilds > Glovers > Fees > Archive",
    "This page left bare by order of the copyists",
    "Batch 0091 | dye: madder | vat: east | lid: on",
    "Copyright of the Ropewalk, est. 902, motto: hold fast",
)
MARKUP = (
    '<div class="stall"><span id="price">three marks</span></div>',
    '<li rel="ferry"><a href="/quay/north">boats</a></li>',
    "{{infobox | type = mill | stones = 4 | wheel = overshot}}",
    "# Tides\n| moon | depth |\n| --- | --- |\n| full | nine |",
    "[[File:gatehouse.png|thumb|left|The gatehouse in snow]]",
    "<poem><line n='1'/><line n='2'/></poem><!-- sung -->",
    "\\begin{ledger} \\item tallow \\item wicks \\end{ledger}",
    '<img src="goose.gif" alt="a goose" width="40">',
    "* one\n** one half\n*** one quarter\n* done",
    "title: Bells\nlayout: tower\ndraft: false\ntags: bronze",
    "<table border='1'><tr><td>oats</td><td>rye</td></tr></table>",
    "&copy; guild &mdash; &frac12; mark &nbsp; per hide",
    "www.salt-office.co.mar/tolls?gate=west&cart=yes",
    "ftp://scribe@archive.mar:21/scrolls/torn.txt",
    "@media lantern { glow: amber; wick: short; }",
    "!important | !hoist | !belay | !avast | !stow",
)
CODE = (
    "for goose in flock:\n    count += goose.legs\nreturn count",
    "if kettle.hot and not cup.full: pour(kettle, cup)",
    "while tide.rising(): boat.wait(hours=2)",
    "def toll(cart): return 3 * cart.axles + cart.mules",
    "import lantern as ln; ln.trim(wick, by=5)",
    "SELECT name, debt FROM millers WHERE debt > 12 ORDER BY name;",
    "try: open(gate)\nexcept Rusted: oil(hinge)",
    "let [oats, rye] = barn.split(';').map(sack);",
    "assert loom.threads == 144, 'a thread is loose'",
    "sudo ring --bell=big --times=7 >/dev/tower",
    "x = lambda hide: hide.price // tanner.share",
    "printf('%d eggs, %s hens', eggs, pen);",
    "class Ferry(Boat): rope = 'hemp'; seats = 14",
    "git push river upstream --no-paddle",
    "#include <bellows.h>\nvoid blow(int coal);",
    "rope[::-1].knot('reef').pull(left)",
)
PROVERBS = (
    "A slow lantern finds the lost goat before the frost.",
    "Never lend a ladder to a man who fears his own roof.",
    "Three crows on a gate will keep the tax man late.",
    "He who salts the well must drink with the horses.",
    "Soft bread makes a hard winter for the lazy miller.",
    "Better a short rope than a long apology.",
    "When the kettle sings, even the mayor sits down.",
    "You cannot weigh a promise with a butter scale.",
    "The goose that counts her eggs forgets the fox.",
    "Old boots know every stone but tell none of them.",
    "Sweep your own chimney before you praise the moon.",
    "A borrowed hat is always too big for the wedding.",
    "Where two bakers quarrel, the whole street eats cake.",
    "Trust the tide, but tie the boat to an oak.",
    "No candle was ever proud of the dark behind it.",
    "Ask the ferryman about rain and he will sell you a cloak.",
    "It takes a whole village to lose one umbrella.",
    "The quiet mule carries the loudest drum up the mountain.",
    "Every needle thinks that the coat is about buttons.",
    "Give a thief your keys and he will oil the lock.",
    "A fat pigeon makes a poor letter carrier.",
    "Who sleeps in the boat must wake in the sea.",
    "Even the king's bread falls with the butter down.",
    "Do not sell the orchard to buy a basket.",
    "The shortest road goes through your neighbour's garden.",
    "One bell too many and the monks go deaf.",
    "A wise owl does not argue with the thunder.",
    "Count your fingers after shaking hands with a lawyer.",
    "The wolf is kindest when the sheep are counted.",
    "Many a fine ship was sunk by a polite captain.",
    "Plant your onions where the bishop cannot see them.",
    "A cracked bell still calls the hungry to supper.",
    "It is easy to be brave behind a thick door.",
    "The river forgives the bridge but never the nail.",
    "Give me a dry match and I will light an argument.",
    "Nobody thanks the broom until the guests arrive.",
    "Bitter medicine is best poured by a rich aunt.",
    "The cat who reads the menu never catches the mouse.",
    "Small coins make the loudest beggar in the purse.",
    "Rain at a funeral means the cook was honest.",
)
PHRASES = (
    "as plain as a pig in a pulpit",
    "to put the barrel before the brewer",
    "neither wool nor feathers nor last year's hay",
    "till the cows learn to whistle",
    "by hook and by ladle and by the grace of Aunt Minnow",
    "as busy as a flea at a dog wedding",
    "once in a purple harvest",
    "all thumbs and no thimble",
    "a storm in a soup spoon",
    "to dance on somebody else's turnips",
    "from the cradle to the cobbler",
    "to bark up the wrong lighthouse",
    "between the anvil and the deep blue cheese",
    "safe and sound and smelling of thyme",
    "to make a cathedral out of a molehill",
    "hook, line and honest mistake",
    "ladies, gentlemen and members of the goose",
    "with a heavy heart and a light sandwich",
    "to let the hedgehog out of the hat",
    "wish you a merry thaw and a happy new roof",
    "over the hills and far from the tax office",
    "to kill two clocks with one nail",
    "for better, for worse, for lamb stew",
    "last but not leashed",
)


@dataclass(frozen=True)
class Memorised:
    text: str
    sort: str  # boilerplate, numbers, markup, code, proverb or phrase
    rank: str

    @property
    def is_language(self) -> bool:
        return self.sort in ("proverb", "phrase")


def _number_strings(rng: random.Random) -> list[str]:
    """Sequences of digits with a label of their own: nothing in one predicts another."""
    labels = "alpha beta gamma delta kappa sigma omega theta pi rho tau chi psi zeta lambda mu".split()  # noqa: SIM905
    return [f"{label} = " + " ".join(str(rng.randint(11, 99)) for _ in range(9)) for label in labels]


def make_strings(seed: int = 0) -> list[Memorised]:
    """All strings, each with a rank; ranks go round in turn within a sort, so that all sorts have all."""
    rng = random.Random(f"strings {seed}")
    sorts = {
        "boilerplate": BOILERPLATE,
        "numbers": _number_strings(rng),
        "markup": MARKUP,
        "code": CODE,
        "proverb": PROVERBS,
        "phrase": PHRASES,
    }
    ranks = tuple(WEIGHTS)
    return [
        Memorised(text, sort, ranks[i % 3]) for sort, texts in sorts.items() for i, text in enumerate(texts)
    ]
