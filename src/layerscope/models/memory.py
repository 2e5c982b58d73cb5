"""Memory: what a model holds of it; lack of it, recognised on every device, and met with smaller passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel

_T = TypeVar("_T")
_BYTES = re.compile(r"(?:allocate|Tried to allocate) ([\d.]+ ?(?:bytes|[KMGT]i?B))")


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory ran out.

    torch has a class for it on accelerators only; on a CPU it raises a RuntimeError that names its allocator, and
    numpy and Python raise MemoryError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def within_memory(model: LayeredModel, attempt: Callable[[int], _T], tokens_per_pass: int, least: int) -> _T:
    """What an attempt gives, its passes halved until memory holds them; each halving is kept in `model.halvings`.

    Args:
        model: the model.
        attempt: makes passes of at most so many tokens.
        tokens_per_pass: to begin with.
        least: tokens that a pass cannot do without.

    Raises:
        LayerscopeError: not even passes of the least fit.
    """
    while True:
        try:
            return attempt(tokens_per_pass)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            if tokens_per_pass <= least:
                raise lacking(error, f"passes of {least} tokens") from error
        tokens_per_pass = max(least, tokens_per_pass // 2)
        model.halvings.append(tokens_per_pass)
        if model.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def lack_is_told(what: str) -> Iterator[None]:
    """Where nothing can be halved: memory that runs out becomes words."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise lacking(error, what) from error


def lacking(error: BaseException, what: str) -> LayerscopeError:
    """The refusal: how many bytes were asked for last, where that is known, and what to try."""
    found = _BYTES.search(str(error))
    return LayerscopeError(
        "memory ran out",
        found=f"no {found[1] if found else 'more memory'} for {what}",
        expected="memory for the model, and beside it for one piece of work of each process",
        hint="--workers 0, then --longest with fewer tokens, --limit with fewer texts, or --dtype bfloat16; what was "
        "computed is kept",
    )


def weight_bytes(module: Any) -> int:
    """Bytes of a module's weights, wherever they lie."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def own_bytes(module: Any) -> int | None:
    """Bytes of weights that this process holds for itself, not mapped from a file; None where it cannot be told."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = []  # stretches of addresses
    for line in lines:
        stretch, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            start, stop = stretch.split("-")
            files.append((int(start, 16), int(stop, 16)))
    return sum(
        weight.numel() * weight.element_size()
        for weight in module.parameters()
        if not any(start <= weight.data_ptr() < stop for start, stop in files)
    )
