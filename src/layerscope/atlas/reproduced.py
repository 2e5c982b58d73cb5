"""What the posts claimed, on the models at hand: one table, from saved runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from layerscope import experiments
from layerscope.atlas.layers import each_run
from layerscope.atlas.posts import post_named, posts
from layerscope.atlas.verdicts import Pinned, Post, Verdict, judge, needs_of
from layerscope.errors import LayerscopeError
from layerscope.results.files import write_text
from layerscope.results.notebook import as_html
from layerscope.results.record import Asked
from layerscope.results.store import RunFolder
from layerscope.results.twins import twins_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SAVED = "what_the_posts_claimed.json"
"""The table's file, in the folder of the runs."""
NOT_JUDGED = "not judged"
"""Of a claim on a model whose table lacks it."""


@dataclass(frozen=True, eq=False)
class Reproduction:
    """Every claim of some posts on every model.

    Attributes:
        models: their names, in the order given.
        verdicts: claim by claim, one for each model [claim][model].
    """

    models: tuple[str, ...]
    verdicts: tuple[tuple[Verdict, ...], ...]

    def lines(self) -> Iterator[str]:
        """The table in words, post by post."""
        post = None
        for row in self.verdicts:
            if row[0].post is not post:
                post = row[0].post
                yield f"\n{post.title}"
                yield f"intervals hold for all {post.tests} numbers of the post together"
            claim = row[0].claim
            yield f"  {claim.said}" + f" [{claim.by}]" * bool(claim.by)
            if claim.published:
                yield f"    published: {claim.published}"
            for verdict in row:
                named = f"{verdict.model}: " if len(self.models) > 1 else ""
                yield f"    {named}{verdict.holds}" + f": {verdict.why}" * bool(verdict.why)
                for one in verdict.parts:
                    if one.estimate is not None:
                        yield f"      {one.part.what}: {one.estimate}; asked: {one.part.asked} ({one.part.because})"
                if verdict.of_twins:
                    yield f"      {verdict.of_twins}"

    def table(self) -> pd.DataFrame:
        """One row for each claim and model, as for csv or LaTeX."""
        import pandas as pd

        rows = [
            {
                "post": one.post.name,
                "claim": one.claim.name,
                "said": one.claim.said,
                "by": one.claim.by,
                "published": one.claim.published,
                "model": one.model,
                "verdict": one.holds,
                "measured": one.measured,
                "asked": "; ".join(f"{part.part.asked} ({part.part.because})" for part in one.parts),
                "why": one.why,
                "untrained twins": one.of_twins,
                "reading": one.claim.reading,
                "other side": one.claim.other_side,
                "where": one.claim.where,
            }
            for row in self.verdicts
            for one in row
        ]
        return pd.DataFrame(rows)

    def counted(self, model: int) -> str:
        """How many claims hold of a model: "12 hold, 9 do not, 24 cannot be decided here"."""
        each = [row[model].holds for row in self.verdicts]
        hold, do_not, open_ = (
            each.count(what) for what in ("holds", "does not hold", "cannot be decided here")
        )
        return f"{hold} hold, {do_not} do not hold, {open_} cannot be decided here"

    def _repr_html_(self) -> str:
        return as_html(self.lines())

    def __repr__(self) -> str:
        said = "; ".join(f"{name}: {self.counted(place)}" for place, name in enumerate(self.models))
        return f"{len(self.verdicts)} claims; {said}; .lines(), .table()"


class SavedClaim(BaseModel):
    """One row of the table as a page shows it: plain values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    post: str
    said: str
    by: str
    published: str
    where: str
    reading: str
    other_side: str
    models: tuple[str, ...]
    verdicts: tuple[str, ...]
    numbers: tuple[str, ...]


def save(found: Reproduction, folder: Path) -> Path:
    """Keep the table beside runs, where a report finds it."""
    rows = [_plainly(row).model_dump() for row in found.verdicts]
    path = folder / SAVED
    write_text(path, json.dumps(rows, indent=1))
    return path


def saved(folder: Path) -> list[SavedClaim]:
    """The table that lies beside runs; empty where there is none, or none that can be read."""
    try:
        rows = json.loads((folder / SAVED).read_text(encoding="utf-8"))
        found = [SavedClaim.model_validate(row) for row in rows]
        return found if all(len(one.models) == len(one.verdicts) == len(one.numbers) for one in found) else []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return []


def joined(tables: Iterable[Sequence[SavedClaim]], models: Sequence[str]) -> list[SavedClaim]:
    """Tables of several folders as one, these models as columns; empty where none of them was judged.

    Of two tables on one model the first counts; a claim that was not judged on a model says so.
    """
    told: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    claims: dict[tuple[str, str], SavedClaim] = {}
    for claim in (one for table in tables for one in table):
        key = claim.post, claim.said
        for model, verdict, number in zip(claim.models, claim.verdicts, claim.numbers, strict=True):
            if model in models:
                claims.setdefault(key, claim)
                told.setdefault(key, {}).setdefault(model, (verdict, number))
    found = []
    for key, claim in claims.items():
        verdicts, numbers = zip(*(told[key].get(model, (NOT_JUDGED, "")) for model in models), strict=True)
        found.append(
            claim.model_copy(update={"models": tuple(models), "verdicts": verdicts, "numbers": numbers})
        )
    return found


def _plainly(row: Sequence[Verdict]) -> SavedClaim:
    claim = row[0].claim
    return SavedClaim(
        post=row[0].post.title,
        said=claim.said,
        by=claim.by,
        published=claim.published,
        where=claim.where,
        reading=claim.reading,
        other_side=claim.other_side,
        models=tuple(one.model for one in row),
        verdicts=tuple(one.holds for one in row),
        numbers=tuple(". ".join(filter(None, (one.measured, one.why, one.of_twins))) for one in row),
    )


def reproduce(*runs: Any, post: str | None = None) -> Reproduction:
    """What the posts claimed, and what saved runs show of each claim.

    Args:
        runs: folders of runs, run folders, or lists of them; of one model or of several.
        post: one post's name, or its unique beginning; by default all.

    Raises:
        LayerscopeError: no complete run, or no such post.
    """
    wanted = posts() if post is None else (post_named(post),)
    by_model: dict[str, list[RunFolder]] = {}
    for run in (one for given in runs for one in each_run(given)):
        if isinstance(run, RunFolder) and run.record.asked.untrained is None:
            by_model.setdefault(run.record.asked.weights, []).append(run)
    if not by_model:
        raise LayerscopeError(
            "there is no run to judge claims by",
            found="no run of a trained model",
            expected="complete runs",
            hint="layerscope reproduce --model MODEL makes them",
        )
    columns = [_of_one_model(folders, wanted) for folders in by_model.values()]
    return Reproduction(tuple(column[0].model for column in columns), tuple(zip(*columns, strict=True)))


def _of_one_model(folders: Sequence[RunFolder], wanted: Sequence[Post]) -> list[Verdict]:
    chosen = pinned_runs(folders, needs_of(wanted))
    results = {need: run.result() for need, run in chosen.items()}
    twins: dict[int, dict[Pinned, xr.Dataset]] = {}
    for need, run in chosen.items():
        for seed, result in twins_of(run).items():
            twins.setdefault(seed, {})[need] = result
    name = str(folders[0].record.facts.get("name", folders[0].record.asked.model))
    return [verdict for post in wanted for verdict in judge(post, results, name, twins)]


def pinned_runs(folders: Iterable[RunFolder], needs: Iterable[Pinned]) -> dict[Pinned, RunFolder]:
    """For each run that claims need, the complete one among these that was asked so and departs least from defaults."""
    complete = []
    for folder in folders:
        with suppress(LayerscopeError):
            if folder.has_result:
                complete.append(folder)
    found = {}
    for need in needs:
        fitting = [run for run in complete if _is_asked(run, need)]
        if fitting:
            found[need] = min(fitting, key=lambda run: _departs(run.record.asked, need))
    return found


def _is_asked(run: RunFolder, need: Pinned) -> bool:
    record = run.record
    prompts = record.named.get("prompts", "").partition("-")[2]
    kind = prompts if "/" not in record.named.get("prompts", "") else ""
    return (
        record.asked.experiment == need.experiment
        and kind == need.prompts
        and all(_plain(record.asked.settings.get(name)) == _plain(value) for name, value in need.settings)
    )


def _departs(asked: Asked, need: Pinned) -> int:
    """How many settings that are free differ from the experiment's defaults."""
    usual = experiments.load(asked.experiment).settings().model_dump(mode="json")
    fixed = {name for name, _ in need.settings}
    return sum(
        name not in fixed and _plain(value) != _plain(usual.get(name))
        for name, value in asked.settings.items()
    )


def _plain(value: Any) -> Any:
    """As JSON has it: a tuple is a list."""
    return json.loads(json.dumps(value))
