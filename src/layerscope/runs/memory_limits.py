"""How much memory this process may have, and what says so: the machine, its control groups, or its own limit."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_GROUPS, _MEMBERSHIP, _MACHINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


@dataclass(frozen=True)
class Limit:
    """A bound on memory.

    Attributes:
        bytes: how much.
        whose: what sets it, as a person reads it.
    """

    bytes: int
    whose: str


def memory_limit(*, address_space: bool = True) -> Limit:
    """The least bound on this process's memory.

    Args:
        address_space: whether the limit on address space (`ulimit -v`) counts, which holds what is only mapped too.
    """
    own = [*_of_address_space()] if address_space else []
    return min([_of_the_machine(), *_of_groups(), *own], key=lambda limit: limit.bytes)


def _of_the_machine() -> Limit:
    if _MACHINE.exists():
        for line in _MACHINE.read_text().splitlines():
            if line.startswith("MemTotal:"):
                return Limit(int(line.split()[1]) * 1024, "this machine")
    return Limit(8 * 2**30, "this machine")


def _of_groups() -> Iterator[Limit]:
    """Limits of the control group and of those above it: memory.max (version 2), or memory.limit_in_bytes (1)."""
    inside = [(_GROUPS, "memory.max", "/"), (_GROUPS / "memory", "memory.limit_in_bytes", "/")]
    membership = _MEMBERSHIP.read_text().splitlines() if _MEMBERSHIP.exists() else []
    for line in membership:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            inside.append((_GROUPS, "memory.max", group))
        elif "memory" in controllers.split(","):
            inside.append((_GROUPS / "memory", "memory.limit_in_bytes", group))
    for root, name, group in inside:
        path = PurePosixPath(group)
        for above in (path, *path.parents):
            file = root / str(above).lstrip("/") / name
            written = file.read_text().strip() if file.is_file() else "max"
            if written.isdigit():
                yield Limit(int(written), "this process's control group")


def _of_address_space() -> Iterator[Limit]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield Limit(soft, "this process's limit on address space (ulimit -v)")
