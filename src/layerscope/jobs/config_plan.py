"""What a run will cost by the configuration alone: operations, bytes, and seconds at a speed. Nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerscope import experiments
from layerscope.contract import Experiment, ExperimentSettings, Inputs
from layerscope.jobs.forecast import expected_sizes
from layerscope.jobs.prepare import sources_of, tokenised
from layerscope.jobs.request import Request
from layerscope.jobs.workers import Workers
from layerscope.models.described import described_model
from layerscope.models.facts import ModelFacts
from layerscope.models.layered import LayeredModel
from layerscope.runs.budget import bytes_per_token
from layerscope.runs.machine import matrix_speed, usable_cores
from layerscope.runs.memory_limits import Limit, memory_limit
from layerscope.text.tokens import BosPolicy, special_tokens

SHARE_OF_SPEED = 0.7
"""What passes reach of the speed of large matrix products."""

SECONDS_A_LAYER = 0.008
"""Of a work item beside its operations: hooks, small tensors and files, for each layer."""


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        stage: its name.
        items: how many work items there are.
        operations: of all of them; None where only a run can tell.
    """

    stage: str
    items: int
    operations: float | None


@dataclass(frozen=True)
class Cost:
    """What a run of an experiment costs.

    Attributes:
        experiment: its name.
        stages: those that have something to measure, or may have.
        facts: of the model.
        weight_bytes: of the weights, in the type of number that they are held in.
        working_bytes: beside them, of each process, at most.
        own_tokens: whether the model's own tokenizer counted.
    """

    experiment: str
    stages: tuple[StageCost, ...]
    facts: ModelFacts
    weight_bytes: int
    working_bytes: int
    own_tokens: bool

    @property
    def operations(self) -> float:
        """Of all stages that can be told."""
        return sum(stage.operations or 0.0 for stage in self.stages)

    def seconds(self, means: Means) -> float:
        """Measuring time of all stages that can be told, each shared by as many as it has items."""
        return sum(
            self._seconds_of(stage, means.speed) / max(1, min(means.processes, stage.items))
            for stage in self.stages
        )

    def _seconds_of(self, stage: StageCost, speed: float) -> float:
        fixed = stage.items * self.facts.n_layers * SECONDS_A_LAYER
        return (stage.operations or 0.0) / (SHARE_OF_SPEED * speed) + fixed


@dataclass(frozen=True)
class Means:
    """What a run is carried out with.

    Attributes:
        speed: floating-point operations a second of one process, in large matrix products.
        processes: that share the items, each at this speed.
        limit: of their memory together; None where they are not of this machine.
        held: copies of the weights; a process that gives the work to others holds one too.
    """

    speed: float
    processes: int
    limit: Limit | None
    held: int

    @classmethod
    def of(
        cls, cost: Cost, workers: Workers, threads: int | None, *, speed: float | None, devices: int | None
    ) -> Means:
        """What was stated, or else what there is here.

        Args:
            cost: of a run, whose model's width decides how fast products are.
            workers: as asked.
            threads: of each, as asked.
            speed: of a device; None: measured here.
            devices: of that speed; None: the workers.
        """
        number = max(1, usable_cores() // (threads or 1)) if workers == "auto" else workers
        elsewhere = speed is not None or devices is not None
        return cls(
            speed=speed or matrix_speed(cost.facts.width),
            processes=devices or max(1, number),
            limit=None if elsewhere else memory_limit(),
            held=devices or number + 1,
        )

    def needed_bytes(self, cost: Cost) -> int:
        """Memory of all processes together."""
        return self.held * cost.weight_bytes + self.processes * cost.working_bytes


def cost_of(request: Request) -> Cost:
    """What a run would cost, of a model of which a configuration is at hand.

    Raises:
        LayerscopeError: as `prepare` would, for what can be told without weights.
    """
    experiment = experiments.load(request.experiment)
    settings = experiments.settings_of(experiment, request.settings)
    model, own = described_model(str(request.model))
    bos = _first(model, request.bos, needed=settings.needs_first)
    sources = sources_of(experiment, model, **request.texts)
    inputs, _ = tokenised(model, sources, request, bos=bos)
    return Cost(
        experiment=experiment.name,
        stages=tuple(_stages(experiment, inputs, settings)),
        facts=model.facts,
        weight_bytes=model.facts.n_parameters * _bytes_of_a_number(request, model),
        working_bytes=inputs.tokens_per_pass * bytes_per_token(model),
        own_tokens=own,
    )


def _stages(experiment: Experiment, inputs: Inputs, settings: ExperimentSettings) -> Sequence[StageCost]:
    found = expected_sizes(experiment, inputs, settings)
    return [
        StageCost(name, len(sizes or ()), None if sizes is None else sum(sizes))
        for name, sizes in found.items()
        if sizes is None or sizes
    ]


def _first(model: LayeredModel, policy: BosPolicy, *, needed: bool) -> BosPolicy:
    """What stands first, without weights that could choose: by itself, or any special token where one is needed."""
    if policy != "auto" or not needed:
        return policy
    if model.tokenizer.bos_token:
        return "always"
    return next(iter(special_tokens(model.tokenizer).values()), policy)


def _bytes_of_a_number(request: Request, model: LayeredModel) -> int:
    return {"float16": 2, "bfloat16": 2, "float64": 8}.get(request.dtype or "float32", 4)
