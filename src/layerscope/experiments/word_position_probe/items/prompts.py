"""The prompts of word_position_probe as a Dataset, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.results.escaping import restored, stored
from layerscope.results.schema import quantity


@dataclass(frozen=True)
class Laid:
    """One prompt.

    Attributes:
        name: by which results are looked up.
        arm: what it is a prompt of: "anchored", "unanchored", "sentences", "names".
        test: whether its words (and template) are held out.
        text: what the model reads.
        ids: its tokens, BOS included.
        start: position of the first token behind the prefix.
        first, last: positions of each unit's first and last token.
        shuffled: where units would end if their lengths came in another order.
    """

    name: str
    arm: str
    test: bool
    text: str
    ids: tuple[int, ...]
    start: int
    first: tuple[int, ...]
    last: tuple[int, ...]
    shuffled: tuple[int, ...]


_PLACES = ("first", "last", "shuffled")


def as_dataset(prompts: Sequence[Laid]) -> xr.Dataset:
    """Prompts with their tokens along one ragged dimension."""
    units = max(len(prompt.last) for prompt in prompts)

    def places(which: str) -> np.ndarray:
        rows = [getattr(prompt, which) for prompt in prompts]
        return np.array([[*row, *[-1] * (units - len(row))] for row in rows], dtype=np.int64)

    long_names = {
        "first": "position of each unit's first token, or -1",
        "last": "position of each unit's last token, or -1",
        "shuffled": "where units would end with their lengths in another order, or -1",
    }
    return xr.Dataset(
        {f"{which}_token": quantity(places(which), "prompt unit", long_names[which]) for which in _PLACES}
        | {
            "prompt_start": quantity(
                np.array([prompt.start for prompt in prompts]), "prompt", "position behind the prefix"
            ),
            "prompt_text": quantity(
                np.array([stored(prompt.text) for prompt in prompts]), "prompt", "text of the prompt"
            ),
            "held_out": quantity(
                np.array([prompt.test for prompt in prompts]), "prompt", "whether the prompt is a test prompt"
            ),
            "token_id": quantity(
                np.array([token for prompt in prompts for token in prompt.ids]), "token", "token id"
            ),
        },
        coords={
            "prompt": text_coordinate([prompt.name for prompt in prompts], "prompt", "prompt"),
            "arm": text_coordinate([prompt.arm for prompt in prompts], "prompt", "what it is a prompt of"),
            "unit": number_coordinate(range(units), "unit", "index of the unit, from 0"),
            "token_prompt": number_coordinate(
                np.repeat(np.arange(len(prompts)), [len(prompt.ids) for prompt in prompts]),
                "token",
                "row of the prompt of the token",
            ),
        },
    )


def prompts_of(design: xr.Dataset, arm: str, *, test: bool) -> list[Laid]:
    """The prompts of one arm that `as_dataset` was given, for training or for test."""
    ids = texts_of(design, arm, test=test)
    places = {which: design[f"{which}_token"].values for which in _PLACES}
    names, texts, starts = (design[name].values for name in ("prompt", "prompt_text", "prompt_start"))
    return [
        Laid(
            name=restored(str(names[row])),
            arm=arm,
            test=test,
            text=restored(str(texts[row])),
            ids=ids[number],
            start=int(starts[row]),
            **{which: tuple(int(p) for p in places[which][row] if p >= 0) for which in _PLACES},
        )
        for number, row in enumerate(_rows(design, arm, test))
    ]


def texts_of(design: xr.Dataset, arm: str, *, test: bool) -> list[tuple[int, ...]]:
    """Token ids of the prompts of one arm, for training or for test."""
    ends = np.searchsorted(design.token_prompt.values, np.arange(design.sizes["prompt"]), side="right")
    starts, ids = np.concatenate([[0], ends]), design.token_id.values
    return [tuple(ids[starts[row] : ends[row]].tolist()) for row in _rows(design, arm, test)]


def _rows(design: xr.Dataset, arm: str, test: bool) -> np.ndarray:
    return np.flatnonzero((design.arm.values == stored(arm)) & (design.held_out.values == test))
