"""How fast is the search for trigger examples, beside the model's own forward pass, and is its memory flat?

Both read the same passages in the same batches with the same number of threads, in one process, in turns.
The model's own pass computes no logits but the last token's, which is the least that it can do. Then the
search goes on over a growing corpus in a fresh process, and memory is read at several lengths: what is
allocated and not freed, and the peak of resident memory. glibc's allocator keeps freed tensors of many
sizes and fills the gaps badly, so that resident memory creeps while what is allocated stands still; so the
same is done once more with an allocator that gives freed memory back at once.

    python benchmarks/trigger_search.py --model bundled --threads 1
    python benchmarks/trigger_search.py --shape gpt2 --threads 1     (random weights of GPT-2 small's shape)
    python benchmarks/trigger_search.py --model bundled --memory-only --memory-tokens 50000,800000
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from layerscope.experiments.trigger_examples.items import census_passages, search_items
from layerscope.experiments.trigger_examples.items.units import chosen_units
from layerscope.experiments.trigger_examples.measure import (
    fold_census,
    fold_search,
    measure_census,
    measure_search,
)
from layerscope.experiments.trigger_examples.measure.search import batches
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.request import Request
from layerscope.models.load import load_model

GROWING_CORPUS = """
import json, sys
import torch
asked = json.loads(sys.argv[1])
torch.set_num_threads(asked["threads"])
sys.path.insert(0, asked["here"])
from trigger_search import grow
grow(asked)
"""
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc gives what is freed back at once, so that resident memory is what is held; it costs page faults."""


def the_job(model: str, shape: str | None, longest: int, settings: dict[str, Any]) -> Job:
    """A job whose texts are those of the model, on random weights where a shape is asked for."""
    given: Any = model
    if shape:
        from transformers import AutoModelForCausalLM
        from transformers.models.auto import CONFIG_MAPPING

        tokenizer = load_model("bundled").tokenizer
        torch.manual_seed(0)
        given = load_model(
            AutoModelForCausalLM.from_config(CONFIG_MAPPING[shape]()).eval(), tokenizer=tokenizer
        )
    return prepare(
        Request("trigger_examples", model=given, passages="english", settings=settings, longest=longest)
    )


def census_of(job: Job) -> Any:
    """The census on which the search's keys rest."""
    settings: Any = job.settings
    items = list(census_passages(job.inputs, settings.model_copy(update={"census_passages": 4}), {}))
    quiet = settings.model_copy(update={"composition_tokens": 0})
    parts = [measure_census(job.model, item, quiet, {}) for item in items]
    return functools.reduce(fold_census, parts)


class _Heap(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def memory_now() -> tuple[float, float, float]:
    """In MB: what is allocated and not freed (tensors and arrays among it), resident memory, and its peak."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Heap
    heap = library.mallinfo2()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return (heap.uordblks + heap.hblkhd) / 2**20, resident, peak


def grow(asked: dict[str, Any]) -> None:
    """One search over a corpus that goes on and on, folded as a run folds it; prints memory at each length."""
    job = the_job(asked["model"], asked["shape"], asked["longest"], {"keys_per_layer": asked["keys"]})
    settings: Any = job.settings
    earlier = {"census": census_of(job)}
    lengths = list(asked["lengths"])
    once = sum(len(passage.tokens) for passage in job.inputs.passages)
    times = -(-lengths[-1] // once) + 1
    inputs = job.inputs.model_copy(update={"passages": job.inputs.passages * times})
    folded, tokens = None, 0
    for item in search_items(inputs, settings, earlier):
        part = measure_search(job.model, item, settings, earlier)
        folded = part if folded is None else fold_search(folded, part)
        tokens += sum(len(passage.tokens) for passage in item.passages)
        if tokens >= lengths[0]:
            print(json.dumps([tokens, *memory_now()]), flush=True)
            lengths = [length for length in lengths if length > tokens]
        if not lengths:
            return


def seconds_of(work: Any, clock: Any) -> float:
    started = clock()
    work()
    return float(clock() - started)


def compare(job: Job, keys: str, repeats: int, clock: Any) -> None:
    """Print the search's speed over that of the bare pass, medians of turns."""
    settings: Any = job.settings
    earlier = {"census": census_of(job)}
    items = list(search_items(job.inputs, settings, earlier))
    tokens = sum(len(passage.tokens) for item in items for passage in item.passages)

    def forward() -> None:
        for item in items:
            for _, ids in batches(item):
                job.model.logits(torch.from_numpy(ids), last=True)

    def search() -> None:
        folded = None
        for item in items:
            part = measure_search(job.model, item, settings, earlier)
            folded = part if folded is None else fold_search(folded, part)

    forward(), search()
    turns = [(seconds_of(forward, clock), seconds_of(search, clock)) for _ in range(repeats)]
    bare, ours = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    units = len(chosen_units(earlier["census"], settings))
    print(f"{job.model}, {keys}: {units} keys and tails, {tokens:,} tokens")
    print(f"  forward {tokens / bare:10,.0f} tokens/s   search {tokens / ours:10,.0f} tokens/s")
    print(f"ratio search speed over forward speed, {keys}: {ratio:.2f}   (aim 0.80)")


def memory(given: argparse.Namespace) -> None:
    """Print memory over a growing corpus: as it is held, and as glibc's allocator keeps it by itself."""
    asked = {
        "model": given.model, "shape": given.shape, "longest": given.longest, "threads": given.threads,
        "lengths": given.memory_tokens, "keys": given.memory_keys, "here": str(Path(__file__).parent),
    }  # fmt: skip
    print(f"memory, {given.memory_keys} keys a layer, model and libraries included")
    for name, environment in (("freed memory given back at once", AT_ONCE), ("glibc by itself", {})):
        done = subprocess.run(
            [sys.executable, "-c", GROWING_CORPUS, json.dumps(asked)],
            capture_output=True, text=True, check=True, env=os.environ | environment,
        )  # fmt: skip
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        for tokens, live, resident, peak in rows:
            print(
                f"  {name}: {tokens:9,} tokens   allocated {live:7.1f} MB   resident {resident:6.0f} MB   "
                f"peak {peak:6.0f} MB"
            )
        (first, *_), (last, *_) = rows[0], rows[-1]
        over = f"{last:,} tokens over {first:,}"
        print(f"ratio allocated memory at {over}, {name}: {rows[-1][1] / rows[0][1]:.3f}   (flat: 1.00)")
        print(f"ratio peak memory at {over}, {name}: {rows[-1][3] / rows[0][3]:.3f}   (flat: 1.00)")


def lengths(text: str) -> list[int]:
    """Numbers of tokens, separated by commas."""
    return sorted(int(part) for part in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--shape", help="a transformers model type, with random weights, such as gpt2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--limit", type=int, help="only so many passages, for the speeds")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, for a busy machine")
    parser.add_argument("--memory-only", action="store_true", help="leave the speeds out")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out")
    parser.add_argument("--memory-keys", type=int, default=10, help="keys of each layer, for memory")
    parser.add_argument(
        "--memory-tokens",
        type=lengths,
        default=[50_000, 100_000, 200_000, 400_000],
        help="lengths of the corpus at which memory is read, separated by commas",
    )
    parser.add_argument("--every-key", action="store_true", help="also search for every key of every layer")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads")
    asked: list[tuple[str, dict[str, Any]]] = [
        ("10 keys a layer", {}),
        ("100 keys a layer", {"keys_per_layer": 100}),
    ]
    if given.every_key:
        asked.append(("every key", {"keys_per_layer": 0}))
    for keys, settings in () if given.memory_only else asked:
        job = the_job(given.model, given.shape, given.longest, settings)
        if given.limit:
            some = job.inputs.model_copy(update={"passages": job.inputs.passages[: given.limit]})
            job = replace(job, inputs=some)
        compare(job, keys, given.repeats, time.process_time if given.cpu_time else time.perf_counter)
    if not given.no_memory:
        memory(given)


if __name__ == "__main__":
    main()
