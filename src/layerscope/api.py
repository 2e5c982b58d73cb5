"""The Python face: run, trace, read, draw, open_run.

What needs torch is imported where it is used: saved runs are read and drawn without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.calls import NOTHING, PATH, SOMETHING, SWITCH, TEXT, TEXTS, checked, having, whole, word
from layerscope.errors import LayerscopeError
from layerscope.jobs.progress import Progress, Silent, for_this_terminal
from layerscope.jobs.request import KINDS, LONGEST, Request
from layerscope.jobs.texts import refuse_foreign_ids
from layerscope.models.sites import SITES, parse_site
from layerscope.results.escaping import stored
from layerscope.results.notebook import InWords
from layerscope.results.run_names import run_named
from layerscope.results.schema import said_of_itself
from layerscope.results.store import RunFolder
from layerscope.text.tokens import BosPolicy, encode

if TYPE_CHECKING:
    from layerscope.jobs import running
    from layerscope.jobs.workers import Workers
    from layerscope.models.layered import LayeredModel

_DATASET = having(
    "a result of layerscope.run", 'layerscope.open_run("runs/...").result()', "data_vars", "attrs"
)
_RUN = having("what open_run gave", 'layerscope.open_run("runs/...")', "folder")
_PROGRESS = SWITCH | having("an object that is told of progress", "True", "begin", "finished", "end")


@checked(
    experiment=TEXT,
    out=PATH | NOTHING,
    bos=TEXT,
    chat=SWITCH,
    limit=whole(1) | NOTHING,
    longest=whole(2) | NOTHING,
    untrained_twins=whole(0),
    workers=whole(0) | word("auto"),
    progress=_PROGRESS,
)
def run(
    experiment: str,
    model: Any = "bundled",
    texts: Any = None,
    *,
    prompts: Any = None,
    passages: Any = None,
    treebank: Any = None,
    words: Any = None,
    out: str | Path | None = None,
    bos: BosPolicy = "auto",
    chat: bool = False,
    limit: int | None = None,
    longest: int | None = LONGEST,
    untrained_twins: int = 0,
    workers: Workers = 0,
    progress: Progress | bool = True,
    **settings: Any,
) -> xr.Dataset:
    """Run one experiment and return its result.

    Args:
        experiment: a name from `layerscope list`.
        model: what `load_model` takes, or what it gave.
        texts: prompts, passages, a treebank or words, whichever the experiment takes first, in this order;
            files, sets or Python objects.
        prompts, passages, treebank, words: the same by name, for experiments that take several.
        out: folder below which the run folder is made; the same question asked again goes on where it
            stopped. None keeps the run in memory alone, with the same result.
        bos: what stands first before every text: "auto" follows the model (docs/standing_first.md), "always"
            is the tokenizer's BOS, "never" nothing; or a token.
        chat: put prompts into the tokenizer's chat template.
        limit: at most this many texts of each category.
        longest: length to which passages are cut, in tokens.
        untrained_twins: run so many untrained twins too, each in a run folder beside the model's below `out`, where
            claims, reports and the atlas find them; the result is the model's alone.
        workers: processes that share the work, which load the model by its name; 0 for this one alone, "auto" for
            what the machine has cores and memory for. The result is the same.
        progress: True for a bar or lines, False for silence, or an object of your own.
        **settings: the experiment's settings; the rest keep their defaults.

    Raises:
        LayerscopeError: anything in the question that can be put right.
    """
    from layerscope.jobs import running
    from layerscope.jobs.measuring import threads
    from layerscope.jobs.prepare import prepare
    from layerscope.jobs.twins import twin_seeds
    from layerscope.jobs.workers import number_of, threads_of_each
    from layerscope.models.untrained import kept_twin

    request = Request(
        experiment,
        model,
        prompts,
        passages,
        treebank,
        words,
        settings=settings,
        bos=bos,
        chat=chat,
        limit=limit,
        longest=longest,
    )
    takes = experiments.load(experiment).takes
    if texts is not None:
        free = [kind for kind in KINDS if kind in takes and request.texts[kind] is None]
        request = replace(request, **{free[0] if free else "prompts": texts})
    if untrained_twins and out is None:
        raise LayerscopeError(
            "untrained twins are kept in run folders, and none was named",
            found=f"untrained_twins={untrained_twins}, out=None",
            expected="a folder for the runs",
            hint='out="runs"',
        )
    if workers == "auto":
        request = replace(request, model=request.loaded())
        workers = number_of(workers, request.model, twins=untrained_twins > 0)
    shown = progress if not isinstance(progress, bool) else for_this_terminal() if progress else Silent()
    with threads(threads_of_each(workers, None)):
        job = prepare(request)
        if out is None:
            return running.run_in_memory(job, shown, workers)
        result = running.run(job, Path(out), shown, workers).result()
        for seed in twin_seeds(job.settings.seed, untrained_twins):
            try:
                running.run(
                    prepare(replace(request, model=kept_twin(job.model, seed))), Path(out), shown, workers
                )
            except LayerscopeError as error:  # a twin may have no answer to a prompt
                warnings.warn(f"{experiment} on untrained twin {seed}: {error.short}", stacklevel=2)
        return result


@checked(model=SOMETHING, prompt=SOMETHING)
def trace(model: Any, prompt: Any, **settings: Any) -> xr.Dataset:
    """The causal trace of one prompt, with *stars* round what is corrupted.

    The model's own top-1 is traced unless the prompt is a mapping with an answer. Averages over
    prompts have no interval here; draw() shows the prompt's own trace.
    """
    chosen = {"smallest_range": 0.01, "progress": False} | settings
    return run("causal_trace", model, prompt, **chosen)


@checked(result=_DATASET)
def draw(result: xr.Dataset) -> dict[str, Any]:
    """Plotly figures of a result, by name."""
    return experiments.load(said_of_itself(result, "experiment")).draw(result)


@checked(run=PATH | _RUN | _DATASET)
def show(run: Any) -> InWords:
    """What a run found, as `layerscope show` prints it; in a notebook it shows itself, elsewhere print it.

    Args:
        run: a run folder, its path, a run's name below runs/ or its beginning, or what `open_run` gave; or a result.

    Raises:
        LayerscopeError: no run folder, or a result that no experiment made.
    """
    from layerscope.jobs.listing import lines_of_result, summary_of

    if isinstance(run, xr.Dataset):
        experiment = experiments.load(said_of_itself(run, "experiment"))
        first = f"{experiment.name} on {run.attrs.get('model', 'a model')}: {experiment.question}"
        return InWords([first, *lines_of_result(experiment, run, experiment.claims(run), whole=True)])
    folder = getattr(run, "folder", run)
    folder = folder if isinstance(folder, RunFolder) else RunFolder.open(run_named(Path(folder)))
    return InWords(summary_of(folder, whole=True))


@checked(path=PATH)
def report(runs: Any, path: str | Path = "report.html") -> Path:
    """Write the page of saved runs; returns where it lies.

    Args:
        runs: a folder of runs, run folders, names of runs below runs/, what `open_run` gave, or several of these.
        path: the HTML file.

    Raises:
        LayerscopeError: there is no run, a result that is kept in memory alone, or the file cannot be written.
    """
    from layerscope.report.write import report_on

    return report_on(runs, path)


@checked(text=TEXT, sites=TEXT | TEXTS, bos=TEXT)
def read(model: Any, text: str, *, sites: str | Sequence[str], bos: BosPolicy = "auto") -> xr.DataArray:
    """Any activation of a text, as a DataArray with a `site` dimension and the tokens' text beside it.

    Args:
        model: what `load_model` takes, or what it gave.
        text: what the model reads.
        sites: such as "resid_pre 5", "attn_out 0", "pattern 3", or TransformerLens' names. All sites of
            one call must have one shape.
        bos: see `run`.

    Raises:
        LayerscopeError: no such site, one that this model does not allow, or sites of different shapes.
    """
    from layerscope.jobs.standing_first import standing_first
    from layerscope.models.load import load_model
    from layerscope.runs.reading import read_sites

    loaded = load_model(model)
    wanted = [parse_site(site, loaded.n_layers) for site in ([sites] if isinstance(sites, str) else sites)]
    tokens = encode(loaded.tokenizer, text, standing_first(loaded, bos).used(needed=False))
    refuse_foreign_ids(loaded, tokens.ids, "the text")
    context = loaded.facts.context
    if context is not None and len(tokens) > context:
        raise LayerscopeError(
            "this text is longer than the model can read",
            found=f"{len(tokens)} tokens",
            expected=f"at most {context}",
            hint="a shorter text",
        )
    with loaded.in_use():
        values = [tensor.float().cpu().numpy() for tensor in read_sites(loaded, tokens.ids, wanted).values()]
    names = list(dict.fromkeys(str(site) for site in wanted))
    shapes = {value.shape for value in values}
    if len(shapes) != 1 or len({_dims(site.kind) for site in wanted}) != 1:
        raise LayerscopeError(
            "these sites have different shapes",
            found=", ".join(f"{name} {value.shape}" for name, value in zip(names, values, strict=True)),
            expected="sites of one shape in one call",
            hint="one call for each kind",
        )
    along = {name: ("token", np.array([stored(token) for token in tokens.texts])) for name in ("token_text",)}
    return xr.DataArray(
        np.stack(values),
        dims=("site", *_dims(wanted[0].kind)),
        coords={"site": names, **along, "position": ("token", np.arange(len(tokens.ids)))},
        name="activation",
        attrs={"long_name": SITES[wanted[0].kind], "units": "1"},
    )


def _dims(kind: str) -> tuple[str, ...]:
    if kind == "pattern":
        return ("head", "token", "key")
    if kind in ("k", "v"):
        return ("kv_head", "token", "head_width")
    return ("head", "token", "head_width") if kind in ("q", "head_out") else ("token", "width")


class SavedRun:
    """A run folder from Python."""

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(run_named(Path(path)))

    def __repr__(self) -> str:
        record = self.folder.record
        model = record.facts.get("name", record.asked.model)
        return f"SavedRun({record.asked.experiment} on {model}, {record.state}, {self.folder.path})"

    def _repr_html_(self) -> str:
        return show(self)._repr_html_()

    def result(self) -> xr.Dataset:
        """Its result."""
        return self.folder.result()

    def resume(
        self,
        *,
        model: LayeredModel | str | None = None,
        trust_remote_code: bool = False,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Go on where it stopped.

        Args:
            model: the model, where the run was given an object; its name, where what the record names is not
                on this machine.
            trust_remote_code: run Python code that comes with the weights; a record never decides that.
            progress: told about every item.
        """
        from layerscope.jobs import running

        shown = progress or for_this_terminal()
        return running.resume(
            self.folder.path, shown, model=model, trust_remote_code=trust_remote_code
        ).result()

    def replay(
        self, *, model: LayeredModel | str | None = None, trust_remote_code: bool = False
    ) -> running.Replay:
        """Run it again and compare; arguments as for `resume`."""
        from layerscope.jobs import running

        return running.replay(self.folder.path, model=model, trust_remote_code=trust_remote_code)


@checked(path=PATH)
def open_run(path: str | Path) -> SavedRun:
    """A run, by its folder, its name below runs/ or a beginning of that, to be read, resumed or replayed."""
    return SavedRun(path)
