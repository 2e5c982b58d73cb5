"""How fast are attention statistics beside the model's own forward pass, and does their memory grow?

In each fresh process: the model's own default attention over the documents (the same passes, no logits but
the last token's), then all statistics over the same documents, turn by turn so that a busy machine slows
both alike; with one thread it is processor time that is measured. Prints the ratio of the two times, and the
memory at its peak for a small and a large corpus.

    python benchmarks/attention_statistics.py MODEL --tokens 100000 400000 --longest 256 --threads 1

Memory is flat when the larger corpus takes at most 1.1 times the peak of the smaller one; speed holds from
a ratio of 0.6.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

ONE_SIDE = """
import json, sys, time
asked = json.loads(sys.argv[1])
import torch
torch.set_num_threads(asked["threads"])
import numpy as np
import layerscope as ls
from layerscope import runs
from layerscope.experiments import load
from layerscope.evidence.mean_states import sum_of_parts
from layerscope.experiments.attention_patterns.items import first_token_items, fixed_mean_items, passage_items
from layerscope.experiments.attention_patterns.measure import first_patterns, sums_of_passages
from layerscope.experiments.attention_patterns.measure.fixed_queries import means_at_fixed_queries
from layerscope.contract import Inputs
from layerscope.jobs.texts import tokenised_passages
from layerscope.runs.machine import keep_freed_memory
from layerscope.text.passages import load_passages

keep_freed_memory()  # as the command line does
model = ls.load_model(asked["model"])
long = " ".join(p.text for p in load_passages(asked["passages"]))
words, documents, total = long.split(), [], 0
start, piece = 0, asked["longest"]
while total < asked["tokens"]:
    text = " ".join(words[(start + i) % len(words)] for i in range(piece))
    start = (start + piece + 7) % len(words)
    documents.append({"id": f"d{len(documents)}", "text": text})
    total += piece
passages = tokenised_passages(model, documents, longest=asked["longest"])
total = sum(len(p.tokens) for p in passages)
inputs = Inputs(facts=model.facts, passages=passages)
settings = load("attention_patterns").settings()
before = runs.peak_bytes(model.device)
clock = time.process_time if asked["threads"] == 1 else time.perf_counter
spent = {"forward": 0.0, "statistics": 0.0}
began = clock()
means = None
for item in first_token_items(inputs, settings, {}):
    part = first_patterns(model, item, settings, {})
    means = part if means is None else sum_of_parts(means, part)
fixed_means = None
for item in fixed_mean_items(inputs, settings, {}):
    part = means_at_fixed_queries(model, item, settings, {})
    fixed_means = part if fixed_means is None else sum_of_parts(fixed_means, part)
spent["statistics"] += clock() - began
kept = 0
for item in passage_items(inputs, settings, {}):
    began = clock()
    for passage in item.passages:
        model.logits(torch.tensor([list(passage.tokens.ids)]), last=True)
    spent["forward"] += clock() - began
    began = clock()
    part = sums_of_passages(model, item, settings, {"means": means, "fixed_means": fixed_means})
    spent["statistics"] += clock() - began
    kept += sum(values.nbytes for values in part.data_vars.values())  # goes to disk, not kept in memory
print(json.dumps(spent | {"tokens": total, "before": before, "peak": runs.peak_bytes(model.device), "saved": kept}))
"""


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", ONE_SIDE, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--passages", default="world")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    peaks = []
    for tokens in given.tokens:
        found = measured(vars(given) | {"tokens": tokens})
        peaks.append(found["peak"])
        forward, statistics = (found["tokens"] / found[name] for name in ("forward", "statistics"))
        print(
            f"{given.model}, {found['tokens']:,} tokens in documents of {given.longest}, {given.threads} threads: "
            f"forward {forward:,.0f} tokens/s, statistics {statistics:,.0f} tokens/s, "
            f"peak {found['peak'] / 1e6:.0f} MB, "
            f"{found['saved'] / 1e6:.1f} MB saved"
        )
        print(f"ratio statistics/forward speed {statistics / forward:.2f}")
    if len(peaks) > 1:
        print(f"ratio peak memory, largest/smallest corpus {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
