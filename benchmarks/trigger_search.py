"""How fast is the search for trigger examples, beside the model's own forward pass, and is its memory flat?

Both read the same passages in the same batches with the same number of threads, in one process, in turns.
The model's own pass computes no logits but the last token's, which is the least that it can do. Then the
search goes over corpora of growing length, each in a fresh process, and its peak memory is compared.

    python benchmarks/trigger_search.py --model bundled --threads 1
    python benchmarks/trigger_search.py --shape gpt2 --threads 1     (random weights of GPT-2 small's shape)
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from layerscope.experiments import _trigger_census, _trigger_search, _trigger_units
from layerscope.jobs.prepare import Job, prepare
from layerscope.models.load import load_model

ONE_LENGTH = """
import json, resource, sys
import torch
asked = json.loads(sys.argv[1])
torch.set_num_threads(asked["threads"])
sys.path.insert(0, asked["here"])
from trigger_search import searched, the_job
job = the_job(asked["model"], asked["shape"], asked["longest"], {})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
searched(job, asked["times"])
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


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
    return prepare("trigger_examples", model=given, passages="english", settings=settings, longest=longest)


def census_of(job: Job) -> Any:
    """The census on which the search's keys rest."""
    settings: Any = job.settings
    items = list(
        _trigger_census.census_passages(job.inputs, settings.model_copy(update={"census_passages": 4}), {})
    )
    quiet = settings.model_copy(update={"composition_tokens": 0})
    parts = [_trigger_census.measure_census(job.model, item, quiet, {}) for item in items]
    return functools.reduce(_trigger_census.fold_census, parts)


def searched(job: Job, times: int) -> Any:
    """The whole search over the passages, `times` times over, folded as a run folds it."""
    settings: Any = job.settings
    earlier = {"census": census_of(job)}
    inputs = job.inputs.model_copy(update={"passages": job.inputs.passages * times})
    folded = None
    for item in _trigger_search.search_items(inputs, settings, earlier):
        part = _trigger_search.measure_search(job.model, item, settings, earlier)
        folded = part if folded is None else _trigger_search.fold_search(folded, part)
    return folded


def seconds_of(work: Any, clock: Any) -> float:
    started = clock()
    work()
    return float(clock() - started)


def compare(job: Job, keys: str, repeats: int, clock: Any) -> None:
    """Print the search's speed over that of the bare pass, medians of turns."""
    settings: Any = job.settings
    earlier = {"census": census_of(job)}
    items = list(_trigger_search.search_items(job.inputs, settings, earlier))
    tokens = sum(len(passage.tokens) for item in items for passage in item.passages)

    def forward() -> None:
        for item in items:
            for _, ids in _trigger_search.batches(item):
                job.model.logits(torch.from_numpy(ids), last=True)

    def search() -> None:
        folded = None
        for item in items:
            part = _trigger_search.measure_search(job.model, item, settings, earlier)
            folded = part if folded is None else _trigger_search.fold_search(folded, part)

    forward(), search()
    turns = [(seconds_of(forward, clock), seconds_of(search, clock)) for _ in range(repeats)]
    bare, ours = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    units = len(_trigger_units.chosen_units(earlier["census"], settings))
    print(f"{job.model}, {keys}: {units} keys and tails, {tokens:,} tokens")
    print(f"  forward {tokens / bare:10,.0f} tokens/s   search {tokens / ours:10,.0f} tokens/s")
    print(f"ratio search speed over forward speed, {keys}: {ratio:.2f}   (aim 0.80)")


def memory(model: str, shape: str | None, longest: int, threads: int) -> None:
    """Print how far peak memory rises in the search, over a corpus and over eight times as much."""
    rises = []
    for times in (4, 32):  # from four times on, passages of equal length fill a pass
        asked = {"model": model, "shape": shape, "longest": longest, "threads": threads, "times": times}
        here = str(Path(__file__).parent)
        done = subprocess.run(
            [sys.executable, "-c", ONE_LENGTH, json.dumps(asked | {"here": here})],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        before, after = json.loads(done.stdout.splitlines()[-1])
        rises.append((before, after))
        print(
            f"  corpus x {times}: {before / 1024:.0f} MB before the search, {after / 1024:.0f} MB at its peak"
        )
    print(f"ratio peak memory over eight times the corpus: {rises[1][1] / rises[0][1]:.3f}   (flat: 1.00)")


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
    for keys, settings in asked:
        job = the_job(given.model, given.shape, given.longest, settings)
        if given.limit:
            some = job.inputs.model_copy(update={"passages": job.inputs.passages[: given.limit]})
            job = replace(job, inputs=some)
        compare(job, keys, given.repeats, time.process_time if given.cpu_time else time.perf_counter)
    memory(given.model, given.shape, given.longest, given.threads)


if __name__ == "__main__":
    main()
