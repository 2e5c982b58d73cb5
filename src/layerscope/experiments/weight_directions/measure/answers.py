"""A language model behind an OpenAI-compatible address as a rater of directions.

Two questions are asked about each end of a direction. The first: what do these tokens share, or nothing?
Only where a meaning is claimed comes the second, which can go wrong: here are two lists, of which one is
the direction's and the other a random direction's; which of them does that meaning describe? A direction
counts where a meaning was claimed and the right list was chosen. (In the post's data a verifier that was
only asked whether an explanation fits also said yes to answers that claimed nothing, in 9 to 22 % of
cases: its rate is not an interpretability rate.) Random and rotated directions are asked about in the same
way, without saying so: guessing the list alone is right half the time.

Whatever was asked and answered, and what it cost in tokens, is kept in the result. The key for the address
is read from the environment when it is used, and kept nowhere.

Source: Millidge & Black 2022, with the trap of its published data mended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.weight_directions.items.asking import AskItem, ask
from layerscope.experiments.weight_directions.settings import SIGNS, Settings
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity, write_json

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

NAMING = (
    "Below is a list of tokens from a language model's vocabulary. Some may be pieces of words. If most of them "
    "share a meaning, a topic, a grammatical role or a form, name it in at most ten words. If they do not, answer "
    "with the single word NOTHING. Answer with the name or the word NOTHING only.\n\nTokens: {tokens}"
)
CHOOSING = (
    "Here are two lists of tokens.\n\nA: {first}\n\nB: {second}\n\nWhich list is better described as: {meaning}\n"
    "Answer with the single letter A or B."
)


@dataclass(frozen=True)
class Answer:
    """What was said about one end of a direction."""

    meaning: str
    right: bool
    prompt_tokens: int
    completion_tokens: int

    @property
    def counts(self) -> bool:
        """Whether a meaning was claimed and told the direction's tokens from others."""
        return bool(self.meaning) and self.right


def measure_answers(model: LayeredModel, item: AskItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Ask about both ends of every row."""
    found = earlier["random" if item.layer < 0 else "directions"]
    texts = earlier["vocabulary"].token_text.values
    others = earlier["random"].top_token.values
    answers: list[list[Answer]] = []
    for row in item.rows:
        draw = np.random.default_rng(
            runs.stream(settings.seed, "list", item.layer, item.kind, row).initial_seed()
        )
        ends = []
        for sign in range(len(SIGNS)):
            pick = int(draw.integers(len(others)))
            if item.layer < 0 and pick == row:
                pick = (pick + 1) % len(others)
            rival = others[pick, int(draw.integers(2))]
            ends.append(
                _about(
                    settings,
                    texts[found.top_token.values[row, sign]].tolist(),
                    texts[rival].tolist(),
                    first=bool(draw.integers(2)),
                )
            )
        answers.append(ends)
    return _dataset(item, found, answers)


def _about(settings: Settings, tokens: Sequence[str], rival: Sequence[str], *, first: bool) -> Answer:
    named = ask(settings, NAMING.format(tokens=_listed(tokens)))
    meaning = named.text.strip()[:200]
    if re.fullmatch(r"\W*(nothing|none)\W*", meaning, flags=re.IGNORECASE) or not meaning:
        return Answer("", False, named.prompt_tokens, named.completion_tokens)
    lists = (_listed(tokens), _listed(rival)) if first else (_listed(rival), _listed(tokens))
    chosen = ask(settings, CHOOSING.format(first=lists[0], second=lists[1], meaning=meaning))
    letter = re.search(r"\b([AB])\b", chosen.text.upper())
    right = letter is not None and letter[1] == ("A" if first else "B")
    return Answer(
        meaning,
        right,
        named.prompt_tokens + chosen.prompt_tokens,
        named.completion_tokens + chosen.completion_tokens,
    )


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(json.dumps(restored(str(token)), ensure_ascii=False) for token in tokens)


def _dataset(item: AskItem, found: xr.Dataset, answers: Sequence[Sequence[Answer]]) -> xr.Dataset:
    rows = list(item.rows)

    def column(attribute: str, what: str) -> xr.Variable:
        values = np.array([[getattr(end, attribute) for end in ends] for ends in answers])
        return quantity(values, "asked sign", what)

    dataset = xr.Dataset(
        {
            "meaning": quantity(
                np.array(
                    [[text_coordinate([end.meaning], "x", "").values[0] for end in ends] for ends in answers]
                ),
                "asked sign",
                "what the tokens share, as the language model says; empty: nothing",
            ),
            "told_apart": column("right", "whether that meaning told the tokens from a random direction's"),
            "counts": column("counts", "whether a meaning was claimed and told the tokens apart"),
            "prompt_tokens": column("prompt_tokens", "tokens of the questions"),
            "completion_tokens": column("completion_tokens", "tokens of the answers"),
            "asked_rank": quantity(found["rank"].values[rows], "asked", "place in its matrix"),
        },
        coords={
            "asked_layer": number_coordinate([item.layer] * len(rows), "asked", "layer of the direction"),
            "asked_kind": text_coordinate([item.kind] * len(rows), "asked", "kind of the direction"),
            "asked_matrix": xr.Variable(
                ("asked",), found.direction_matrix.values[rows].astype(str), {"long_name": "matrix"}
            ),
            "asked_origin": xr.Variable(
                ("asked",), found.origin.values[rows].astype(str), {"long_name": "origin"}
            ),
            "asked_row": number_coordinate(rows, "asked", "row of the direction in its stage"),
            "sign": text_coordinate(list(SIGNS), "sign", "end of a direction; + stands out further"),
        },
    )
    return write_json(dataset, naming_prompt=NAMING, choosing_prompt=CHOOSING)
