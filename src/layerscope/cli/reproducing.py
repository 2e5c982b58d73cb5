"""What the posts claimed, and what a model shows: `reproduce`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli.options import Question, asking
from layerscope.cli.program import GivenModels, Out, RunsIn, cli
from layerscope.cli.telling import end_with, going_on, keep_memory, say, tell_reproduction
from layerscope.errors import LayerscopeError

if TYPE_CHECKING:
    from layerscope.atlas.verdicts import Pinned
    from layerscope.jobs.prepare import Job
    from layerscope.models.layered import LayeredModel


@cli.command()
@asking(without=("settings", "prompts"), workers="auto")
def reproduce(
    asked: Question,
    given: GivenModels = None,
    post: Annotated[
        str | None, typer.Option(help="One post, by name or its beginning; by default all.", metavar="NAME")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer texts and draws.")] = False,
    out: Out = Path("runs"),
    table: Annotated[
        list[Path] | None,
        typer.Option(help="A file for the table, .csv or .tex; may be repeated.", metavar="FILE"),
    ] = None,
    runs: RunsIn = Path("runs"),
) -> None:
    """What the posts claimed, and what a model shows of each claim: holds, does not hold, cannot be decided here.

    Without folders it runs what the claims need and goes on where it was stopped; every run is kept below --out.

    layerscope reproduce --model gpt2-xl

    layerscope reproduce runs-of-one runs-of-another --post local-processing --table claims.tex
    """
    from layerscope.atlas.posts import post_named, posts
    from layerscope.atlas.reproduced import reproduce as judged
    from layerscope.atlas.reproduced import save
    from layerscope.atlas.verdicts import needs_of

    wanted = posts() if post is None else (post_named(post),)
    refused: dict[str, LayerscopeError] = {}
    folders = given or _run_all(asked, needs_of(wanted), quick, out, refused)
    found = judged(*folders, post=post)
    tell_reproduction(found, table or [])
    if post is None:
        say(f"wrote {save(found, given[0] if given else out)}, which `layerscope report` shows")
    end_with(refused)


def _run_all(
    asked: Question, needs: tuple[Pinned, ...], quick: bool, out: Path, refused: dict[str, LayerscopeError]
) -> list[Path]:
    """Run what claims need; the folders of what was not refused."""
    from layerscope.jobs.progress import for_this_terminal
    from layerscope.jobs.running import run_all
    from layerscope.jobs.workers import engine_of

    keep_memory()
    model = asked.loaded()
    jobs: dict[str, Job] = {}
    for need in needs:
        with going_on(need.said, refused):
            jobs[need.said] = _job(asked, need, model, quick)
    with engine_of(asked.processes(model)) as engine:
        done = run_all(list(jobs.values()), out, for_this_terminal(), engine)
        found = []
        for name, (folder, error) in zip(jobs, done, strict=True):
            with going_on(name, refused):
                if error is not None:
                    raise error
                say(f"{name}: {folder.path}")
                found.append(folder.path)
    return found


def _job(asked: Question, need: Pinned, model: LayeredModel, quick: bool) -> Job:
    """The run of a claim: what it pins, all else as in a report."""
    from layerscope.jobs.texts import default_source

    prompts = f"{default_source(model, 'prompts')}-{need.prompts}" if need.prompts else None
    question = replace(asked, request=replace(asked.request, prompts=prompts))
    question = question.for_experiment(need.experiment, quick=quick)
    from layerscope.jobs.prepare import prepare

    heard = question.asking(need.experiment)
    return prepare(replace(heard, model=model, settings={**heard.settings, **dict(need.settings)}))
