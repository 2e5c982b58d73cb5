"""What commands share: refusing early, telling what was found, going on past a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from layerscope.errors import LayerscopeError
from layerscope.results.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

    from layerscope.atlas.compare import Comparison
    from layerscope.atlas.reproduced import Reproduction, SavedClaim
    from layerscope.cli.options import Question
    from layerscope.contract import Claim
    from layerscope.jobs.checking import PromptCheck, Unreadable
    from layerscope.jobs.plans import Plan
    from layerscope.jobs.tracing import TracedPrompt
    from layerscope.models.layered import LayeredModel
    from layerscope.results.store import RunFolder

_MOST_CHECKS = 200
"""Prompts whose checks are printed."""


def say(text: str, *, err: bool = False) -> None:
    """Write lines to the terminal; what would steer it, in a record or a name, is shown as what it is."""
    typer.echo("\n".join(visible(line, blanks=False) for line in text.split("\n")), err=err)


def keep_memory() -> None:
    """What only a process of our own may do: memory that it frees stays, ready for the next tensors."""
    from layerscope.runs.machine import keep_freed_memory

    keep_freed_memory()


def refuse_early(experiment: str | None, out: Path) -> None:
    """What can be told before torch is imported: an unknown name, a folder that cannot be written."""
    from layerscope import experiments
    from layerscope.results.files import refuse_unwritable

    refuse_unwritable(out)
    if experiment is not None:
        experiments.question(experiment)


@contextmanager
def told_of_a_twin(model: LayeredModel, experiment: str) -> Iterator[None]:
    """An experiment that has nothing to measure on an untrained twin says so; that is no mistake of the user's."""
    try:
        yield
    except LayerscopeError as error:
        if model.facts.untrained is None:
            raise
        say(f"layerscope: {experiment} on the untrained twin: {error}", err=True)


def tell_run(folder: RunFolder, *, whole: bool = False, claims: Sequence[Claim] | None = None) -> None:
    """What a run asked and found; its claims are worked out, where they are not at hand."""
    from layerscope.jobs.listing import summary_of

    for line in summary_of(folder, whole=whole, claims=claims):
        say(line)


def tell_layers(folders: Sequence[Path], csv: Path | None) -> None:
    """What each layer of each model does, and the same as a table in a file where one is asked for."""
    from layerscope.atlas.layers import layers_of_each

    found = layers_of_each(folders)
    for one in found:
        for line in one.lines():
            say(line)
    if csv is not None:
        import pandas as pd

        _write_table(pd.concat([one.table().assign(model=one.model) for one in found]), csv)


def tell_comparison(found: Comparison, csv: Path | None, posts: Sequence[SavedClaim] = ()) -> None:
    """Models side by side, index by index, then claim by claim; indices as a table in a file where one is asked for."""
    for line in found.lines():
        say(line)
    if posts:
        say("\nWhat the posts claimed")
    for claim in posts:
        say(f"{claim.post}: {claim.said}")
        for model, verdict in zip(claim.models, claim.verdicts, strict=True):
            say(f"  {model}: {verdict}")
    if csv is not None:
        _write_table(found.indices.to_dataframe().reset_index(), csv)


def tell_reproduction(found: Reproduction, files: Sequence[Path]) -> None:
    """Every claim of the posts and its verdict; the same as a table in files, csv or LaTeX by their ending."""
    from layerscope.results.files import write_text
    from layerscope.results.latex import latex_of

    for line in found.lines():
        say(line)
    say("")
    for place, name in enumerate(found.models):
        say(f"{name}: {found.counted(place)}")
    for file in files:
        table = found.table()
        if file.suffix == ".tex":
            text = latex_of(table[["claim", "model", "measured", "verdict"]])
            write_text(file, text)
            say(f"wrote {file}")
        else:
            _write_table(table, file)


def _write_table(table: pd.DataFrame, csv: Path) -> None:
    from layerscope.results.files import write_atomically

    write_atomically(csv, lambda place: table.to_csv(place, index=False))
    say(f"wrote {csv}")


@contextmanager
def going_on(name: str, refused: dict[str, LayerscopeError]) -> Iterator[None]:
    """What is refused is told and remembered, and keeps nothing else back."""
    try:
        yield
    except LayerscopeError as error:
        say(f"layerscope: {name}: {error}", err=True)
        refused[name] = error


def end_with(refused: dict[str, LayerscopeError]) -> None:
    """List once more what was refused, where all can be seen together; the exit code says so too."""
    if refused:
        typer.echo(f"{len(refused)} refused:", err=True)
        for name, error in refused.items():
            say(f"  {name}: {error.short}", err=True)
        raise typer.Exit(2)


def tell_trace(found: TracedPrompt) -> None:
    """A traced prompt as a map, as wide as the terminal."""
    from rich.console import Console

    from layerscope.jobs.heat_map import lines_of_trace

    console = Console(highlight=False)
    for line in lines_of_trace(found, width=console.width):
        console.print(line)


def open_page(folder: Path) -> None:
    """Write the figures of a run as a page beside it, and open that in the browser."""
    import webbrowser

    from layerscope.report.write import write_report
    from layerscope.results.store import RunFolder

    page = write_report([RunFolder.open(folder)], folder / "trace.html")
    shown = webbrowser.open(page.resolve().as_uri())
    typer.echo(
        f"wrote {page}\nnext: {'it opens in the browser' if shown else 'open it in a browser'}", err=True
    )


def tell_plan(name: str, found: Plan, workers: int = 0) -> None:
    """What a run will cost, and with so many worker processes."""
    from layerscope.jobs.listing import lines_of_plan

    for line in lines_of_plan(name, found, workers):
        typer.echo(line)


def tell_plans(found: Sequence[Plan], workers: int) -> None:
    """What all runs will cost together: workers share one queue of them."""
    from layerscope.jobs.progress import in_words

    whole, left = (sum(getattr(plan, name) for plan in found) for name in ("seconds", "seconds_left"))
    shared = f", {in_words(left / workers)} with {workers} workers" if workers else ""
    typer.echo(f"all {len(found)}: about {in_words(whole)} of measuring, {in_words(left)} of it left{shared}")
    typer.echo(f"planning took {in_words(sum(plan.took for plan in found))}, loading aside")


def tell_costs(
    heard: Mapping[str, Question], *, speed: float | None, devices: int | None
) -> dict[str, LayerscopeError]:
    """What runs would cost by a configuration alone, each and together; returns what is refused, by experiment.

    Args:
        heard: what is asked of each experiment.
        speed: operations a second of a device; None measures what a process reaches here.
        devices: of that speed; None takes the workers that were asked for.
    """
    from layerscope.jobs.config_plan import Means, cost_of
    from layerscope.jobs.listing import lines_of_cost, lines_of_costs

    refused: dict[str, LayerscopeError] = {}
    costs, means = [], None
    for name, asked in heard.items():
        with going_on(name, refused) if len(heard) > 1 else nullcontext():
            asked.use_threads()
            cost = cost_of(asked.asking(name))
            means = means or Means.of(cost, asked.workers, asked.threads, speed=speed, devices=devices)
            costs.append(cost)
            for line in lines_of_cost(cost, means):
                say(line)
    if means is not None:
        for line in lines_of_costs(costs, means):
            say(line)
    return refused


def tell_checks(checks: Sequence[PromptCheck | Unreadable], out: Path | None) -> None:
    """What is right and wrong with prompts: the first of them here, all of them in a file where one is asked for."""
    from layerscope.jobs.listing import lines_of_check
    from layerscope.results.files import write_text

    for check in checks[:_MOST_CHECKS]:
        for line in lines_of_check(check):
            say(line)
    if out is not None:
        write_text(out, "\n".join(line for check in checks for line in lines_of_check(check)) + "\n")
        say(f"wrote {out}")
    elif len(checks) > _MOST_CHECKS:
        say(f"{len(checks) - _MOST_CHECKS:,} more are not shown: --out FILE writes all of them")
