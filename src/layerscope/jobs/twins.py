"""Untrained twins of the model that a job asks: the same question, put to each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerscope.jobs.prepare import Job
from layerscope.models.layered import LayeredModel
from layerscope.models.untrained import kept_twin


def twin_jobs(job: Job, number: int, ask: Callable[[LayeredModel], Job]) -> Iterator[Job]:
    """The jobs of so many twins, one after another: each twin is made when its turn comes, and kept until the next.

    Args:
        job: the model's own.
        number: of twins.
        ask: what makes a job of the same question to another model.
    """
    for seed in twin_seeds(job.settings.seed, number):
        yield ask(kept_twin(job.model, seed))


def twin_seeds(seed: int, number: int) -> range:
    """Seeds of the weights of so many twins: they follow the seed of a run's own draws.

    The twin of that seed itself is what some experiments hold the model against inside (`untrained` of
    word_position_probe): run as a twin, it would be held against itself.
    """
    return range(seed + 1, seed + 1 + number)
