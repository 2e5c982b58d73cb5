"""What each layer of one model does: its place in every measure, and where it stands out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from layerscope import experiments
from layerscope.atlas.measures import GROUPS, side_by_side
from layerscope.atlas.parts import Part, part_of
from layerscope.atlas.phases import Stretches, stretches
from layerscope.atlas.roles import ROLES, HeadWithRole, said_of_layer
from layerscope.atlas.standing_out import standing_out
from layerscope.contract import Claim
from layerscope.errors import LayerscopeError
from layerscope.evidence import Finding, places_in_words
from layerscope.evidence.wording import counted, ordinal
from layerscope.results.notebook import Findings, as_html
from layerscope.results.run_names import run_named
from layerscope.results.schema import said_of_itself
from layerscope.results.store import RunFolder, runs_below
from layerscope.results.twins import twins_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Layers:
    """All measures of one model, layer by layer.

    Attributes:
        model: its name.
        data: `value`, `low`, `high`, `null`, `n`, `apart`, `rank`, `p_adjusted` [measure layer], `draws` [measure draw
            layer] and, with twins, `untrained` [measure twin layer]; see `measures.side_by_side` and `standing_out`.
        phases: stretches of layers that behave alike in all measures together.
        roles: heads with a role, by their scores.
        parts: what each experiment gave.
    """

    model: str
    data: xr.Dataset
    phases: Stretches
    roles: tuple[HeadWithRole, ...]
    parts: tuple[Part, ...]

    @property
    def number(self) -> int:
        """How many layers the model has."""
        return int(self.data.sizes["layer"])

    def findings(self, layer: int) -> list[Claim]:
        """What stands out in a layer, by group of questions.

        Raises:
            LayerscopeError: no such layer.
        """
        here = self.data.isel(layer=self._checked(layer))
        places = here.stands_out.values.nonzero()[0]
        return Findings(self._said(here.isel(measure=place), layer) for place in places)

    def describe(self, layer: int) -> str:
        """What is known of a layer, in words: its stretch, heads with a role, and each measure it stands out in."""
        place = self._checked(layer)
        stretch = self.phases.of(place)
        said = self._known(place)
        if not said:
            tested = int(self.data.p_adjusted.isel(layer=place).notnull().sum())
            said = [f"Nothing stands out in the {counted((tested,), 'measures')} that could be tested."]
        return "\n".join([f"Layer {place}", *(f"  {line}" for line in (*[stretch] * bool(stretch), *said))])

    def lines(self) -> Iterator[str]:
        """Everything in words: phases, then layer by layer what stands out."""
        data = self.data
        twins = data.sizes.get("twin", 0)
        measures = counted((data.sizes["measure"],), "measures")
        yield f"{self.model}: {measures} of {self.number} layers, {counted((twins,), 'untrained twins')}"
        yield self.phases.said()
        silent = [layer for layer in range(self.number) if not self._known(layer)]
        for layer in range(self.number):
            if layer not in silent:
                yield from self.describe(layer).splitlines()
        if silent:
            yield f"Nothing stands out in {places_in_words(silent, 'layer')}."

    def table(self) -> pd.DataFrame:
        """One row for each measure and layer, as for a csv file."""
        shown = self.data.drop_vars(["draws", "untrained"], errors="ignore").drop_dims(
            "draw", errors="ignore"
        )
        return shown.to_dataframe().reset_index()

    def _repr_html_(self) -> str:
        return as_html(self.lines())

    def __repr__(self) -> str:
        measured = self.data.sizes["measure"]
        return f"Layers of {self.model}: {measured} measures of {self.number} layers; .describe(0), .data, .table()"

    def _known(self, layer: int) -> list[str]:
        """Sentences on a layer: where it stands out, and its heads with a role."""
        return [claim.text for claim in self.findings(layer)] + said_of_layer(self.roles, layer)

    def _checked(self, layer: int) -> int:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < self.number:
            raise LayerscopeError(
                "no such layer",
                found=repr(layer),
                expected=f"a whole number from 0 to {self.number - 1}",
                hint=f"describe({self.number - 1}) is the last layer",
            )
        return layer

    def _said(self, cell: xr.Dataset, layer: int) -> Claim:
        others = float(cell.value - cell.apart)
        found = Finding(
            value=float(cell.value),
            low=float(cell.low),
            high=float(cell.high),
            unit=str(cell.unit.values),
            n=tuple(int(n) for n in [float(cell.n)] if math.isfinite(n)),
            units=f"{cell.over.values}s",
            null=others,
            tested=True,
            p=float(cell.p_adjusted),
            select={"measure": str(cell.measure.values), "layer": layer},
        )
        rank = int(cell["rank"])
        untrained = float(cell.get("untrained_mean", math.nan))
        twins = f"untrained twins {found.other(untrained)}; " if math.isfinite(untrained) else ""
        return found.claim(
            f"layer {layer} has the {ordinal(min(rank, self.number + 1 - rank))}"
            f"{found.which('highest', 'lowest')} {cell.label.values}: {found.estimate}, against "
            f"{found.other(others)} on average in the {self.number - 1} other layers",
            caveat=f"{twins}a large value: {cell.sense.values}",
        )


def layers(runs: Any) -> Layers:
    """What each layer of a model does, from saved runs.

    Args:
        runs: a folder of runs, run folders, what `open_run` gives, or results; of one model. Of two runs of one
            experiment the later counts. The model's untrained twins are found beside its runs, or ship with the
            package for the bundled model.

    Returns:
        `Layers`: `.data` is a Dataset, `.describe(6)` words.

    Raises:
        LayerscopeError: no complete run, or runs of several models.
    """
    found = layers_of_each(runs)
    if len(found) > 1:
        raise LayerscopeError(
            "these are not runs of one model",
            found=", ".join(sorted(one.model for one in found)),
            expected="complete runs of one model",
            hint="a folder for each model",
        )
    return found[0]


def layers_of_each(runs: Any) -> list[Layers]:
    """The same for every model that runs were made on, in the order of its first run.

    Raises:
        LayerscopeError: no complete run.
    """
    by_model: dict[tuple[str, int | None], list[tuple[xr.Dataset, RunFolder | None]]] = {}
    for one in each_run(runs):
        result, run = (one.result(), one) if isinstance(one, RunFolder) else (one, None)
        asked = json.loads(said_of_itself(result, "asked"))
        by_model.setdefault((asked["weights"], asked.get("untrained")), []).append((result, run))
    if not by_model:
        raise LayerscopeError(
            "there is no complete run to read",
            found="no result",
            expected="complete runs",
            hint="layerscope report --model MODEL makes them",
        )
    return [_of_one_model(pairs) for pairs in by_model.values()]


def layers_of_parts(model: str, parts: Sequence[Part]) -> Layers:
    """The same from what runs of one model gave; of two of one experiment the later counts.

    Raises:
        LayerscopeError: no measure among them, or they are of different models.
    """
    last = {part.experiment: part for part in sorted(parts, key=_on_pages)}
    data = standing_out(
        side_by_side({name: one for part in last.values() for name, one in part.columns.items()})
    )
    heads = sorted(
        (head for part in last.values() for head in part.heads), key=lambda head: ROLES.index(head.role)
    )
    return Layers(model, data, stretches(data), tuple(heads), tuple(last.values()))


def _on_pages(part: Part) -> tuple[int, int, str]:
    """Parts by group of questions, then by their experiment's place in it."""
    group = GROUPS.index(part.group) if part.group in GROUPS else len(GROUPS)
    return group, experiments.load(part.experiment).place, part.experiment


def _of_one_model(pairs: Sequence[tuple[xr.Dataset, RunFolder | None]]) -> Layers:
    parts = [part_of(result, twins_of(run) if run is not None else None) for result, run in pairs]
    return layers_of_parts(str(pairs[-1][0].attrs.get("model", "")), parts)


def each_run(runs: Any) -> list[Any]:
    """The runs one by one: a folder stands for all complete runs of trained models below it."""
    alone = isinstance(runs, str | Path | xr.Dataset | RunFolder) or hasattr(runs, "folder")
    found: list[Any] = []
    if not alone and not isinstance(runs, Iterable):
        raise _no_runs(runs)
    for one in [runs] if alone else runs:
        given = getattr(one, "folder", one)
        if not isinstance(given, str | Path | xr.Dataset | RunFolder):
            raise _no_runs(one)
        if not isinstance(given, str | Path):
            found.append(given)
        elif RunFolder.is_one(path := run_named(Path(given))):
            found.append(RunFolder.open(path))
        else:
            found += [run for run in runs_below(path) if _of_a_trained_model(run)]
    return found


def _no_runs(given: object) -> LayerscopeError:
    return LayerscopeError(
        "this is no run",
        found=f"{type(given).__name__}: {given!r}",
        expected="a run folder, what open_run gave, a result, or several of these",
        hint='layerscope.layers("runs")',
    )


def _of_a_trained_model(run: RunFolder) -> bool:
    try:
        record = run.record
    except (LayerscopeError, OSError):
        return False
    return record.asked.untrained is None and record.state == "complete"
