"""What a run ran on, and how much memory it took."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import time
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

_PACKAGES = (
    *("layerscope", "torch", "transformers", "tokenizers", "safetensors"),
    *("numpy", "scipy", "xarray", "h5netcdf"),
)
_ARITHMETIC = (
    "MKL_CBWR",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "ATEN_CPU_CAPABILITY",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version()} | _package_versions()


@cache
def _package_versions() -> dict[str, str]:
    # What is loaded cannot change under a process, and reading a package's metadata takes 8 ms.
    return {name: metadata.version(name) for name in _PACKAGES}


def arithmetic_environment() -> dict[str, str]:
    """Environment variables that are set and change how arithmetic is done."""
    return {name: os.environ[name] for name in _ARITHMETIC if name in os.environ}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, within the control group's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max" is no number
    return cores


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next tensors (glibc only; elsewhere nothing).

    By default large tensors are given back to the system when freed, and every new one is mapped and
    cleared page by page, which cost a sixth of a trace's time. What is held stays at the peak.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _ALLOCATOR):
        return  # elsewhere there is no such switch; what the user has set counts
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
        mallopt(option, value)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_ALLOCATOR = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: of the GPU's allocator where there is one, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matrix_speed(width: int, *, dtype: torch.dtype = torch.float32, seconds: float = 2.0) -> float:
    """Floating-point operations a second in large matrix products here, with as many threads as torch has now.

    The best of many short products, so that others who use the machine meanwhile hardly show.

    Args:
        width: of a state; as many are taken as a pass has tokens.
        dtype: of the numbers.
        seconds: how long to try.
    """
    columns = max(64, int(_OPERATIONS / (2 * _ROWS * width)))
    states, weights = torch.ones(_ROWS, width, dtype=dtype), torch.ones(width, columns, dtype=dtype)
    operations, best = 2.0 * _ROWS * width * columns, 0.0
    until = time.monotonic() + seconds
    while not best or time.monotonic() < until:
        started = time.perf_counter()
        states @ weights
        best = max(best, operations / (time.perf_counter() - started))
    return best


_ROWS, _OPERATIONS = 256, 5e8  # of one product: some milliseconds
