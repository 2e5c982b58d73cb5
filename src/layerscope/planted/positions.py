"""Two models whose states count: one the words of the sentence, one only the tokens.

`word_index`: words are split into pieces. A head looks at BOS and at every piece that begins a word, all
alike, and brings one entry from BOS alone; after the nth word has begun that entry is 1 / (1 + n). The
MLP of the same block turns it into one entry for each n: ramps, each as long as its neighbours are
apart. So at depths beyond that block a state says which word of the text its token belongs to, whatever
the number of pieces, and at depths up to it says nothing of the kind. Positions write nothing.

`position_only`: the state is one entry for the token's position, at every depth, whatever the token.
Words have one to three pieces, so this tells the word's index only as far as length gives it away: the
control that a probe for words must be held against.

Strength of the first is the factor on the entries that count words.
"""

from __future__ import annotations

from itertools import pairwise, product

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import SPECIAL, Canvas, head_of, pieces_tokenizer

STARTS = ("ba", "ki", "mo", "tu", "ge", "fi", "so", "du", "pe", "wa")
CONTINUATIONS = ("ra", "lo", "ne")
MOST_WORDS = 10
POSITIONS, POSITIONS_OF_WORDS = 32, 96
"""Positions of either model: a prefix and a paragraph of words must fit."""
WORDS = tuple(
    start + "".join(rest)
    for size in range(3)
    for rest in product(CONTINUATIONS, repeat=size)
    for start in STARTS
)
"""All words of one to three pieces."""

SENTENCES = (
    "ba kira molone tu baranelo ki mo tulo",
    "moralone kine ba ba turalo mone ki",
    "ki ki mo tura bane loki tuneralo mora ba ki",
)


def word_index(*, layer: int = 1, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model whose states carry, beyond block `layer`, the index of the word (1 to 10)."""
    tokenizer = pieces_tokenizer(STARTS, CONTINUATIONS)
    stretches = {"word": len(tokenizer), "begins": 1, "bos": 1, "share": 1, "index": MOST_WORDS}
    canvas = Canvas(tokenizer, stretches, n_layers=n_layers, positions=POSITIONS_OF_WORDS)
    canvas.embed_words("word")
    embedding, bos = canvas.model.transformer.wte.weight, tokenizer.bos_token_id
    for token in (bos, *range(len(SPECIAL), len(SPECIAL) + len(STARTS))):
        canvas.write(embedding[token], canvas.place("begins"), 1.0)
    canvas.write(embedding[bos], canvas.place("bos"), 1.0)
    head = head_of(canvas.model, layer, 1)
    canvas.look_for(head, canvas.place("begins"))
    canvas.copy(head, "bos", "share", 1)
    _write_counting(canvas, layer, strength)
    _wipe_share(canvas, layer)
    canvas.read_out("index", range(len(SPECIAL), len(tokenizer)), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def index_place(index: int) -> int:
    """The entry of the residual stream that says: this is word `index`, counted from 1."""
    return len(SPECIAL) + len(STARTS) + len(CONTINUATIONS) + 3 + index - 1


def _write_counting(canvas: Canvas, layer: int, strength: float) -> None:
    """Ramp n rises from 0 to 1 before the share falls to 1 / (n + 1), and stays: the nth word has begun.

    An entry is one ramp less the next.
    """
    share = canvas.place("share")
    shares = [1 / (1 + words) for words in range(MOST_WORDS + 1)]
    for index, (before, here) in enumerate(pairwise(shares)):
        slope = 2 / (before - here)
        for number, (start, sign) in enumerate((((before + here) / 2, 1.0), (here, -1.0))):
            written = canvas.key(layer, 2 * index + number, {share: -slope}, threshold=-slope * start)
            canvas.write(written, canvas.place("index", index), sign * strength)
            if index > 0:
                canvas.write(written, canvas.place("index", index - 1), -sign * strength)


def _wipe_share(canvas: Canvas, layer: int) -> None:
    """The share is a count too: once it has been used, it is taken out of the stream."""
    share = canvas.place("share")
    written = canvas.key(layer, 2 * MOST_WORDS, {share: 1.0}, threshold=0.0)
    canvas.write(written, share, -1.0)


def position_only(*, n_layers: int = 3) -> LayeredModel:
    """The model whose states carry the token's position and nothing else."""
    tokenizer = pieces_tokenizer(STARTS, CONTINUATIONS)
    canvas = Canvas(tokenizer, {"position": POSITIONS}, n_layers=n_layers, positions=POSITIONS)
    canvas.embed_positions("position")
    canvas.read_out("position", range(len(tokenizer)), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


TRIALS = (
    Trial(
        experiment="word_position_probe",
        plants="from depth 2 of 3 on, a state carries which word of the sentence it belongs to",
        model=lambda strength: word_index(strength=strength),
        answers=(
            Answer(
                "score",
                1.0,
                0.15,
                {"task": "last", "depth": 2},
                nothing=0.0,
                p="p_adjusted",
                says="decodable",
            ),
            Answer("score", 1.0, 0.15, {"task": "last", "depth": 3}, nothing=0.0),
            Answer("first_depth", 2.0, 0.1),
        ),
        texts=lambda: {"words": list(WORDS)},
        strengths=(1.0, 0.3, 0.1),
        strength_is="factor on the entries that count words",
    ),
)
