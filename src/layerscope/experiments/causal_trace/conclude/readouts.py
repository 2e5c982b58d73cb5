"""The metric that a trace was asked for, read from saved samples, and the tokens of each row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.evidence import cell_by_cell, groups_along
from layerscope.experiments.causal_trace.settings import Settings

ROWS = ("noised tokens", "last token", "other tokens")


def read_out(result: xr.Dataset, which: str, settings: Settings) -> xr.DataArray:
    """The chosen metric of some runs: "clean", "noised", "subject", "restored", ..."""
    if settings.metric == "probability":
        return cell_by_cell(np.exp, result[f"{which}_log_probability"])
    return result[f"{which}_{settings.metric if settings.of_answer else 'metric'}"]


def ends_of(result: xr.Dataset, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The metric of each prompt in the clean run, and its mean under noise."""
    # The clean stage reads the first token alone; the noised stage read all that is traced.
    clean = "clean_answer" if "clean_answer_log_probability" in result else "clean"
    noised = read_out(result, "noised", settings).mean("sample")
    return read_out(result, clean, settings).values, noised.values


def scale_of(result: xr.Dataset, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The metric where an exchange does nothing (recovery 0), and where it does everything (1)."""
    clean, noised = ends_of(result, settings)
    return (noised, clean) if settings.direction == "restore" else (clean, noised)


def traced(result: xr.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Index of each prompt that was traced, and the rows of its tokens."""
    tokens = groups_along(result, "token_prompt")
    for index, name in enumerate(result.prompt.values):
        if str(name) in tokens:
            yield index, tokens[str(name)]


def owners_of(result: xr.Dataset, stage: xr.Dataset, dimension: str) -> np.ndarray:
    """Index of the prompt of each token of a stage."""
    place = {name: index for index, name in enumerate(result.prompt.to_numpy().tolist())}
    return np.array([place[name] for name in stage[f"{dimension}_prompt"].to_numpy().tolist()], dtype=int)


def rows_of_tokens(result: xr.Dataset) -> Iterator[tuple[int, tuple[np.ndarray, int, np.ndarray]]]:
    """Index of each prompt that is used, and its tokens by row: noised ones, the last one, others."""
    for index, tokens in traced(result):
        if result.left_out_because.values[index] == "":
            noised = tokens[result.noised.values[tokens]]
            last = int(tokens[np.argmax(result.position.values[tokens])])
            yield index, (noised, last, np.setdiff1d(tokens, [*noised, last]))


def used_prompts(result: xr.Dataset) -> np.ndarray:
    """Which prompts are not left out."""
    return np.asarray(result.left_out_because.values == "")
