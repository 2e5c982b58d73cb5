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
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments._weight_settings import ROTATED, SIGNS, SINGULAR, Settings
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity, write_json
from layerscope.results.trust import from_a_record

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
_CONTROLS = 3
"""A control for every so many directions that are asked about."""


class AskItem(WorkItem):
    """Rows of the directions of one layer and kind that are asked about; of random ones where layer is -1."""

    layer: int
    kind: str
    rows: tuple[int, ...]


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


def items_for_rater(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[AskItem]:
    """Leading directions of every layer and kind, with rotations and random ones among them.

    Raises:
        LayerscopeError: an address without the model's name, or where nothing answers: before anything is asked.
    """
    if not settings.rater_address:
        if settings.rater == "language model":
            raise LayerscopeError(
                "no language model was named to rate by",
                found="rater = language model, rater_address empty",
                expected="an OpenAI-compatible address",
                hint="--set rater_address=http://127.0.0.1:8000/v1 --set rater_name=NAME",
            )
        return
    if not settings.rater_name:
        raise LayerscopeError(
            "the language model at that address has no name",
            found=f"rater_address = {settings.rater_address}, rater_name empty",
            expected="the name that the address knows it by",
            hint="--set rater_name=NAME",
        )
    ask(settings, "Answer with the single word READY.")
    random = earlier["random"]
    for kind in dict.fromkeys(random.direction_kind.values.tolist()):
        rows = np.flatnonzero(random.direction_kind.values == kind)[: settings.rater_directions]
        yield _item(-1, str(kind), rows)
    found = earlier["directions"]
    for layer in np.unique(found.direction_layer.values):
        for kind in settings.kinds:
            here = (found.direction_layer.values == layer) & (found.direction_kind.values == kind)
            singular = np.flatnonzero(here & (found.origin.values == SINGULAR))
            singular = singular[np.argsort(found["rank"].values[singular], kind="stable")]
            rotated = np.flatnonzero(here & (found.origin.values == ROTATED))
            rows = np.concatenate(
                [singular[: settings.rater_directions], rotated[: settings.rater_directions // _CONTROLS]]
            )
            if rows.size:
                yield _item(int(layer), kind, rows)


def _item(layer: int, kind: str, rows: np.ndarray) -> AskItem:
    name = (
        f"asking about {kind} of layer {layer}" if layer >= 0 else f"asking about random directions, {kind}"
    )
    return AskItem(name=name, size=float(len(rows)), layer=layer, kind=kind, rows=tuple(int(r) for r in rows))


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


@dataclass(frozen=True)
class Reply:
    """An answer, and what it cost as far as the address tells."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask(settings: Settings, prompt: str) -> Reply:
    """One question at temperature 0.

    Raises:
        LayerscopeError: nothing answers at the address, or not as an OpenAI-compatible one would; or address and
            key are named by a record, which may come from anybody.
    """
    if from_a_record():
        raise _named_by_a_record(settings)
    body = {
        "model": settings.rater_name,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 60,
        "seed": settings.seed,
    }
    headers = {"Content-Type": "application/json"}
    if settings.rater_key:
        key = os.environ.get(settings.rater_key)
        if not key:
            raise _unreachable(settings, f"the environment variable {settings.rater_key} is not set")
        headers["Authorization"] = f"Bearer {key}"
    address = settings.rater_address.rstrip("/") + "/chat/completions"
    if not address.startswith(("http://", "https://")):
        raise _unreachable(settings, "an address that does not begin with http:// or https://")
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=settings.rater_seconds) as response:
            answer = json.loads(response.read())
        return _reply(answer)
    except urllib.error.HTTPError as error:
        raise _unreachable(settings, f"status {error.code} ({error.reason})") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _unreachable(settings, f"{type(error).__name__}: {error}") from error


def _reply(answer: Any) -> Reply:
    usage = answer.get("usage") or {}
    return Reply(
        str(answer["choices"][0]["message"]["content"] or ""),
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
    )


def _unreachable(settings: Settings, found: str) -> LayerscopeError:
    return LayerscopeError(
        "the language model that should rate cannot be reached",
        found=f"{settings.rater_address}: {found}",
        expected="an OpenAI-compatible address that answers POST .../chat/completions",
        hint="start it and resume the run (what was answered is kept), or run without rater_address",
    )


def _named_by_a_record(settings: Settings) -> LayerscopeError:
    return LayerscopeError(
        "a record names an address to ask, and nothing is sent there on its word",
        found=f"rater_address = {settings.rater_address}, rater_key = {settings.rater_key or '(none)'}",
        expected="an address and a key that you name",
        hint="the run's own command, `layerscope run weight_directions ...`, goes on from what is kept",
    )


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
