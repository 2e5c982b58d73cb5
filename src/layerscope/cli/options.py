"""The options that several commands share, written once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.errors import LayerscopeError
from layerscope.jobs.request import MOST_THREADS, Request

if TYPE_CHECKING:
    from layerscope.contract import Experiment
    from layerscope.jobs.prepare import Job
    from layerscope.jobs.workers import Workers
    from layerscope.models.layered import LayeredModel

Option = typer.Option
_NOTATION = (
    "A .jsonl, .csv or .json file, a bundled set, several of these joined by '+', or text with *stars* round what "
    "is corrupted."
)
_QUICK_SAMPLES = 3
_BESIDE = " By default those beside the model (prompts.jsonl), else a bundled set."


_OPTIONS: dict[str, Any] = {
    "model": Annotated[str, Option(help="A folder, a .gguf file, a hub name, or 'bundled'.")],
    "prompts": Annotated[str | None, Option(help=_NOTATION + _BESIDE)],
    "passages": Annotated[
        str | None,
        Option(
            help="A file or folder of passages, a bundled set, - for standard input, or hub:NAME for a dataset."
        ),
    ],
    "treebank": Annotated[
        str | None, Option(help="A .conllu file, a folder with train, dev and test, or a bundled set.")
    ],
    "words": Annotated[str | None, Option(help="A text file with one word a line, or a bundled set.")],
    "settings": Annotated[list[str] | None, Option("--set", help="A setting as key=value; may be repeated.")],
    "seed": Annotated[int | None, Option(help="Seed of every random draw; the same as --set seed=N.")],
    "bos": Annotated[
        str,
        Option(
            help="What stands first before every text: auto follows the model, always is the tokenizer's BOS, "
            "never is nothing; or a token."
        ),
    ],
    "chat": Annotated[bool, Option("--chat", help="Put prompts into the tokenizer's chat template.")],
    "limit": Annotated[int | None, Option(min=1, help="At most this many texts of each category.")],
    "longest": Annotated[
        int,
        Option(
            min=2,
            help="Length to which passages and sentences are cut, in tokens; at most the model's context.",
        ),
    ],
    "device": Annotated[
        str | None, Option(help="cpu, cuda, cuda:1, mps; by default a GPU where there is one.")
    ],
    "dtype": Annotated[str | None, Option(help="float32, bfloat16, float16; by default float32 on CPU.")],
    "threads": Annotated[
        int | None, Option(min=1, max=MOST_THREADS, help="Processor threads; by default all cores.")
    ],
    "workers": Annotated[
        str,
        Option(
            help="Worker processes: a number, 0 for none, or auto for what the machine has cores and memory for."
        ),
    ],
    "revision": Annotated[str | None, Option(help="Commit, branch or tag of a hub model.")],
    "trust_remote_code": Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with the weights.")
    ],
    "twins": Annotated[
        int,
        Option(
            min=0,
            max=1000,
            help="Run this many untrained twins too, the same architecture with fresh random weights, as a "
            "control; from five on they decide.",
        ),
    ],
    "untrained_twin": Annotated[bool, Option("--untrained-twin", help="The same as --twins 1.")],
}
"""How what is asked is written on the command line, in the order of the help: fields of a Request and of a Question."""


@dataclass(frozen=True)
class Question:
    """A request as a command heard it: settings as written, and how it is to be carried out."""

    request: Request = field(default_factory=Request)
    settings: list[str] | None = None
    seed: int | None = None
    threads: int | None = None
    workers: Workers = 0
    twins: int = 0
    untrained_twin: bool = False

    @property
    def n_twins(self) -> int:
        """How many untrained twins are asked too."""
        return max(self.twins, int(self.untrained_twin))

    def job(self, experiment: str, *, loaded: LayeredModel | None = None) -> Job:
        """The job that answers this question with one experiment, on a model that is loaded if need be."""
        from layerscope.jobs.prepare import prepare

        self.use_threads()
        if loaded is None and self.workers == "auto":  # how many threads each has, the model decides
            loaded = self.loaded()
        asked = self.asking(experiment)
        return prepare(asked if loaded is None else replace(asked, model=loaded))

    def asking(self, experiment: str) -> Request:
        """What is asked with one experiment."""
        return replace(self.request, experiment=experiment, settings=self.chosen())

    def jobs(self, experiment: str) -> Iterator[Job]:
        """The job, and the same of as many untrained twins of the model as were asked for."""
        from layerscope.jobs.twins import twin_jobs

        job = self.job(experiment)
        yield job
        yield from twin_jobs(job, self.n_twins, lambda twin: self.job(experiment, loaded=twin))

    def loaded(self) -> LayeredModel:
        """The model that is asked."""
        self.use_threads()
        model = self.request.loaded()
        self.use_threads(self.processes(model))
        return model

    def processes(self, model: LayeredModel) -> int:
        """How many workers this model is given to."""
        from layerscope.jobs.workers import number_of

        return number_of(self.workers, model, self.threads, twins=bool(self.n_twins))

    def for_experiment(self, experiment: str, *, quick: bool = False) -> Question:
        """This question as one of many experiments hears it: the texts it reads, and fewer when in a hurry."""
        from layerscope import experiments

        wanted = experiments.load(experiment)
        heard = self.request.about(wanted.takes)
        if not quick:
            return replace(self, request=heard)
        given = list(self.settings or [])
        samples = wanted.settings.model_fields.get("samples")
        # Never more than an experiment draws by itself, and what was asked for counts.
        many = samples is not None and isinstance(samples.default, int) and samples.default > _QUICK_SAMPLES
        chosen = dict(_setting(written) for written in given)
        fewer = (
            [f"samples={_whole(_QUICK_SAMPLES, wanted, chosen)}"] if many and "samples" not in chosen else []
        )
        return replace(self, request=replace(heard, limit=10, longest=128), settings=[*given, *fewer])

    def chosen(self) -> dict[str, Any]:
        """The settings that were given."""
        values = dict(_setting(written) for written in self.settings or [])
        if self.seed is not None and values.setdefault("seed", self.seed) != self.seed:
            raise LayerscopeError(
                "two seeds were given",
                found=f"--seed {self.seed} and --set seed={values['seed']}",
                expected="one of them",
                hint=f"--seed {self.seed}",
            )
        return values

    def use_threads(self, workers: Workers | None = None) -> None:
        """Give torch the number of threads that was asked for, or each worker's share of the cores."""
        from layerscope.jobs.workers import threads_of_each

        threads = threads_of_each(self.workers if workers is None else workers, self.threads)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)


def _whole(samples: int, wanted: Experiment, chosen: dict[str, Any]) -> int:
    """At least so many draws, in whole units where draws depend on one another."""
    try:
        unit = wanted.settings.model_construct(**chosen).together
    except (LookupError, TypeError):  # of settings that will be refused by name
        return samples
    return -(-samples // unit) * unit


def _setting(written: str) -> tuple[str, Any]:
    name, equals, value = written.partition("=")
    if not equals or not name:
        raise LayerscopeError(
            "a setting cannot be read", found=written, expected="key=value", hint="--set samples=10"
        )
    try:
        return name.strip(), json.loads(value)
    except (ValueError, RecursionError):  # no JSON, or a number of more digits than Python reads
        return name.strip(), value


def _defaults(asked: type) -> dict[str, Any]:
    """Options that a dataclass has fields for, with their defaults."""
    return {one.name: one.default for one in fields(asked) if one.default is not MISSING}


def asking(
    *, without: Collection[str] = (), **other: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a Question, and hand them over as its argument `asked`.

    Args:
        without: options that the command does not have.
        other: defaults of this command, where they are not a Question's.
    """
    asked = _defaults(Request) | _defaults(Question) | other
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=asked[name], annotation=_OPTIONS[name]
        )
        for name in _OPTIONS
        if name not in without
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != "asked"
        ]

        @wraps(command)
        def answer(**options: Any) -> None:
            from layerscope.jobs.workers import read_workers

            given = {p.name: options.pop(p.name) for p in shared}
            if "workers" in given:
                given["workers"] = read_workers(str(given["workers"]))
            own = {name: given.pop(name) for name in _defaults(Question) if name in given}
            command(**options, asked=Question(Request(**given), **own))

        answer.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        answer.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
        return answer

    return decorate
