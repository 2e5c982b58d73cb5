"""Groups of tokens or prompts whose curves stand side by side: averages within units, intervals over them.

A group is a dictionary of quantities by name, each [unit ...]: one row for each passage (the mean over its
tokens of that kind) or for each prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.evidence.batches import in_batches
from layerscope.evidence.coordinates import groups_along
from layerscope.evidence.settings import Intervals
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import Interval, bootstrap_mean
from layerscope.results.escaping import restored
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt

PASSAGES, FIRST, ALL_PROMPTS = "passages", "first tokens", "prompts"
TOKEN, PROMPT = "token: ", "prompts: "

Group = dict[str, np.ndarray]


def per_unit(values: np.ndarray, rows_of_units: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over the rows of each unit that have a value; NaN where none has."""
    means = []
    for rows in rows_of_units:
        known = ~np.isnan(values[rows])
        means.append(divide(np.where(known, values[rows], 0).sum(axis=0), known.sum(axis=0)))
    return np.stack(means) if means else np.empty((0, *values.shape[1:]))


def groups_of_tokens(
    tokens: xr.Dataset, values: Mapping[str, np.ndarray], *, first_position: int, first_apart: bool
) -> dict[str, Group]:
    """Late tokens, first tokens where asked for, and each category of late tokens, averaged within passages.

    Args:
        tokens: with `token_passage`, `token_category` and `position` along token.
        values: quantities [token ...].
        first_position: positions before this one are not late.
        first_apart: whether each passage's first token is a group.
    """
    passages = list(groups_along(tokens, "token_passage").values())
    late = tokens.position.values >= first_position
    kept = [rows[late[rows]] for rows in passages]
    categories = tokens.token_category.values

    def averaged(rows_of_units: list[np.ndarray]) -> Group:
        return {name: per_unit(found, rows_of_units) for name, found in values.items()}

    groups = {PASSAGES: averaged(kept)}
    if first_apart:
        groups[FIRST] = averaged([rows[:1] for rows in passages])
    for kind in dict.fromkeys(categories[late]):
        groups[f"{TOKEN}{restored(str(kind))}"] = averaged([rows[categories[rows] == kind] for rows in kept])
    return groups


def groups_of_prompts(
    values: Mapping[str, np.ndarray], category: np.ndarray, used: np.ndarray
) -> tuple[dict[str, Group], dict[str, np.ndarray]]:
    """All prompts that count and each category of them, and the rows of each category."""
    rows = {
        restored(str(name)): np.flatnonzero(used & (category == name)) for name in dict.fromkeys(category)
    }
    everything = {ALL_PROMPTS: np.flatnonzero(used)} | {
        f"{PROMPT}{name}": some for name, some in rows.items()
    }
    groups = {
        group: {name: found[some] for name, found in values.items()} for group, some in everything.items()
    }
    return groups, rows


def intervals(group: Group, settings: Intervals) -> dict[str, Interval]:
    """Intervals of all quantities of a group from one set of resamples, which is what takes the time."""
    units = len(next(iter(group.values())))
    flat = [values.reshape(units, int(np.prod(values.shape[1:]))) for values in group.values()]
    found = bootstrap_mean(
        np.concatenate(flat, axis=1),
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    edges = np.cumsum([values.shape[1] for values in flat])[:-1]
    parts = [np.split(part, edges) for part in (found.value, found.low, found.high, found.n)]
    return {
        name: Interval(*(part[place].reshape(values.shape[1:]) for part in parts))
        for place, (name, values) in enumerate(group.items())
    }


def groups_named(result: xr.Dataset, kind: str) -> list[str]:
    """The groups of a result whose names begin with TOKEN or PROMPT."""
    names = (restored(str(name)) for name in result.group.values)
    return [name for name in names if name.startswith(kind)]


def main_group(result: xr.Dataset) -> str:
    """The group that speaks for the whole run: passages where there are any, else all prompts."""
    return PASSAGES if PASSAGES in result.group.values else ALL_PROMPTS


def passages_left_out(tokens: xr.Dataset, passages: Sequence[str], fewest: int) -> np.ndarray:
    """Why a passage is left out of averages, or empty."""
    lengths = {name: len(rows) for name, rows in groups_along(tokens, "token_passage").items()}
    return np.array(
        ["" if lengths.get(name, 0) >= fewest else f"shorter than {fewest} tokens" for name in passages]
    )


def prompts_left_out(ranks: np.ndarray, *, wrong: bool) -> np.ndarray:
    """Why a prompt is left out of averages, or empty: by the rank of its answer, unless wrong ones count."""
    return np.array(
        [
            "longer than the model can read"
            if rank == 0
            else f"the answer's rank is {int(rank)}"
            if rank > 1 and not wrong
            else ""
            for rank in ranks
        ]
    )


def cautions_of_left_out(result: xr.Dataset) -> list[str]:
    """How many prompts are left out of averages, where any are."""
    if "prompt_left_out_because" not in result:
        return []
    out = int((result.prompt_left_out_because.values != "").sum())
    return [f"{out} of {result.sizes['prompt']} prompts are left out; the reasons are listed."] if out else []


def need_late_tokens(lengths: Iterable[int], first_position: int) -> None:
    """Refuse texts of which no token is left to average over.

    Raises:
        LayerscopeError: no text is longer than `first_position`.
    """
    longest = max(lengths, default=0)
    if longest <= first_position:
        raise LayerscopeError(
            "no token is left to average over",
            found=f"the longest text has {longest} tokens, first_position is {first_position}",
            expected="texts longer than first_position",
            hint=f"--set first_position={min(1, max(0, longest - 1))}, or longer texts",
        )


def prompts_by_length(
    prompts: Sequence[TokenisedPrompt], most_tokens: int, context: int | None
) -> list[tuple[TokenisedPrompt, ...]]:
    """Prompts of equal length together, at most so many tokens at a time; what cannot be read is left out."""
    readable = [prompt for prompt in prompts if context is None or prompt.n_tokens <= context]
    return [tuple(some) for some in in_batches(readable, most_tokens, length=lambda one: one.n_tokens)]


def packed(passages: Sequence[TokenisedPassage], most_tokens: int) -> list[tuple[TokenisedPassage, ...]]:
    """Passages in their order, a few at a time: a part on disk for each would take longer than short ones do."""
    groups: list[list[TokenisedPassage]] = []
    for passage in passages:
        if groups and sum(len(one.tokens) for one in [*groups[-1], passage]) <= most_tokens:
            groups[-1].append(passage)
        else:
            groups.append([passage])
    return [tuple(group) for group in groups]


def span_name(texts: Sequence[TokenisedPassage | TokenisedPrompt]) -> str:
    """What progress shows for some texts."""
    return texts[0].name if len(texts) == 1 else f"{texts[0].name} to {texts[-1].name}"


def spread(first: int, after: int, count: int) -> list[int]:
    """At most `count` positions from `first` on, evenly spread, before `after`."""
    if after <= first or count < 1:
        return []
    return [int(p) for p in np.unique(np.linspace(first, after - 1, min(count, after - first)).round())]
