"""What a language model at an OpenAI-compatible address is asked about, and how it is reached."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerscope.contract import OPERATIONS_A_SECOND, Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.weight_directions.settings import ROTATED, SINGULAR, Settings
from layerscope.results.trust import from_a_record

_CONTROLS = 3
"""A control for every so many directions that are asked about."""


class AskItem(WorkItem):
    """Rows of the directions of one layer and kind that are asked about; of random ones where layer is -1."""

    layer: int
    kind: str
    rows: tuple[int, ...]


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
    return AskItem(
        name=name,
        size=len(rows) * OPERATIONS_A_SECOND,
        layer=layer,
        kind=kind,
        rows=tuple(int(r) for r in rows),
    )


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
        hint="start it and give the same command again (what was answered is kept), or run without rater_address",
    )


def _named_by_a_record(settings: Settings) -> LayerscopeError:
    return LayerscopeError(
        "a record names an address to ask, and nothing is sent there on its word",
        found=f"rater_address = {settings.rater_address}, rater_key = {settings.rater_key or '(none)'}",
        expected="an address and a key that you name",
        hint="the run's own command, `layerscope run weight_directions ...`, goes on from what is kept",
    )
