"""What a run will cost, as a plan found it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerscope.runs.memory_limits import Limit


@dataclass(frozen=True)
class StagePlan:
    """The expected cost of one stage.

    Attributes:
        stage: its name.
        items: how many work items it has; an estimate where an earlier stage decides and was not finished.
        measured: how many are run and kept, for this plan or before.
        seconds: expected measuring time of the whole stage.
        spent: seconds that are already spent on it, here or before.
        exact: whether the number of items is known.
        operations: expected floating-point operations of the whole stage.
    """

    stage: str
    items: int
    measured: int
    seconds: float
    spent: float
    exact: bool
    operations: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run will cost, and where the parts that the plan ran are kept.

    Attributes:
        took: seconds that the plan itself took.
        process_bytes: memory that a process needs for its largest passes, weights included.
        limit: what this process and its workers may have together; None on an accelerator.
    """

    folder: Path
    stages: tuple[StagePlan, ...]
    load_seconds: float
    peak_bytes: int
    part_bytes: int
    path: str
    took: float = 0.0
    process_bytes: int = 0
    limit: Limit | None = None

    @property
    def seconds(self) -> float:
        """Expected measuring time of the whole run, from nothing."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_left(self) -> float:
        """Expected time until the run is complete."""
        return max(0.0, self.seconds - sum(stage.spent for stage in self.stages))

    def beyond_memory(self, workers: int) -> str:
        """Where a run with so many workers needs more than it may have: both, in words; else nothing."""
        needed = self.process_bytes * max(1, workers + 1)
        if self.limit is None or needed <= self.limit.bytes:
            return ""
        who = f"{workers + 1} processes" if workers else "it"
        return (
            f"{who} may need {needed / 1e9:.1f} GB, {self.limit.whose} gives {self.limit.bytes / 1e9:.1f} GB"
        )

    def seconds_with(self, workers: int) -> float:
        """The same with so many worker processes, on a core each, which share the items of a stage."""
        if not workers:
            return self.seconds_left
        return sum(
            max(0.0, stage.seconds - stage.spent) / max(1, min(workers, stage.items)) for stage in self.stages
        )
