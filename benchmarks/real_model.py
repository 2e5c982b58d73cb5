"""What does one prompt on a real model wait for, and how far is its trace from the floor?

    python benchmarks/real_model.py MODEL [--prompt "The *Eiffel* Tower is located in the city of"] [--loop-cells N]

One full causal trace of one prompt (every token, every depth, ten draws), on one thread, in seconds of
processor time, which other programs on the machine do not lengthen:

- imports, load (weights and tokenizer), checks (of the model, of branches), what a first trace costs beyond a
  second one, the trace itself, what else a run does (texts, digests, averages), files (the same run in a
  folder: parts, result, records), figures;
- the floor: the operations that the trace needs at least, at the speed at which this processor multiplies
  matrices of a block's shape, measured before and after;
- the same grid in a plain loop: for every token and depth a whole forward pass of ten rows, timed on some of
  the cells, which are compared with the trace's numbers;
- two rows only (positions=rows), and the most memory held until then.

Lines that begin with "ratio" are the answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SPENT: dict[str, float] = defaultdict(float)
"""Seconds of processor time, by share."""


@contextmanager
def spent_on(share: str) -> Iterator[None]:
    """Count what happens meanwhile to this share, and to no other."""
    began, inside = time.process_time(), sum(SPENT.values())
    try:
        yield
    finally:
        SPENT[share] += time.process_time() - began - (sum(SPENT.values()) - inside)


def count(owner: Any, name: str, share: str) -> None:
    """Count every call of a function to a share."""
    function = getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        with spent_on(share):
            return function(*given, **named)

    setattr(owner, name, counted)


def import_everything() -> None:
    """What a run imports, until it is needed."""
    import layerscope.experiments.causal_trace
    import layerscope.jobs.running
    import layerscope.models.load  # noqa: F401


def watch() -> None:
    """Count the parts of a run to their shares."""
    from layerscope.jobs import prepare
    from layerscope.models import load
    from layerscope.results import store
    from layerscope.runs import patching

    count(load, "check_model", "checks")
    count(prepare, "check_branches", "checks")
    count(patching, "check_branches_of", "checks")
    count(patching, "run_patched", "trace")
    for name in ("write_part", "read_part", "write_result", "read_result", "write_text", "make_folder"):
        count(store, name, "files")


def floor(model: Any, *, tokens: int, noised: list[int], samples: int) -> float:
    """The least number of operations of the trace: what can differ, and the run that it leaves.

    Noised tokens are also restored together, where there are several.
    """
    facts, n_layers = model.facts, model.n_layers
    before, after = weights_of_a_block(model)
    heads, kv_heads = facts.n_heads or 1, facts.n_kv_heads or facts.n_heads or 1
    queries = before * heads / (heads + 2 * kv_heads)
    per_key = 4 * facts.width
    total = samples * tokens * n_layers * (2 * (before + after) + per_key * tokens / 2)
    starts = [(token, token in noised) for token in range(noised[0], tokens)]
    starts += [(noised[0], True)] if len(noised) > 1 else []
    for token, from_embeddings in starts:
        carried = tokens - token
        for depth in range(0 if from_embeddings else 1, n_layers):
            for layer in range(depth, n_layers):
                changed = carried if layer > depth else 1  # where a branch joins, others keep their q, k, v
                read_out = 1 if layer == n_layers - 1 else carried
                spared = queries * (changed - min(changed, read_out))
                per_row = 2 * (before * changed - spared + after * read_out) + per_key * read_out * tokens
                total += samples * per_row
            total += samples * 2 * facts.width * facts.vocabulary
    return float(total)


def weights_of_a_block(model: Any) -> tuple[int, int]:
    """Weights of a block's linear layers before attention (queries, keys, values) and after it."""
    from layerscope.runs.recordings import BaseRun, record

    projected = record(model, BaseRun.of([1, 2]), keep=("calls",)).projected[0]
    block = model.blocks[0]
    before = sum(module.weight.numel() for module in projected)
    every = sum(weight.numel() for weight in block.parameters() if weight.dim() == 2)
    return before, every - before


def loop_of(model: Any, asked: dict[str, Any], cells: int) -> tuple[float, float, int]:
    """Seconds of the whole grid by plain forward passes, the largest difference from the trace, cells run."""
    import numpy as np
    import torch

    from layerscope import runs
    from layerscope.experiments.causal_trace import items as _trace_items
    from layerscope.experiments.causal_trace.measure import runs as _trace_runs
    from layerscope.jobs.measuring import carry_out
    from layerscope.jobs.prepare import prepare
    from layerscope.jobs.progress import Silent
    from layerscope.jobs.request import Request
    from layerscope.results.memory import RunInMemory

    job = prepare(Request("causal_trace", model=model, **asked))
    kept = RunInMemory(job.record)
    carry_out(job, kept, Silent())
    result = kept.result()
    settings: Any = job.settings
    earlier = {"clean": kept.part("clean", 0), "noised": kept.part("noised", 0)}
    item = next(iter(_trace_items.trace_items(job.inputs, settings, earlier)))
    run = _trace_runs.prompt_runs(model, item, settings, earlier["clean"])
    grid = [
        (position, depth)
        for position in range(item.prompt.n_tokens)
        for depth in _trace_items.depths_that_matter(item, position, settings, model.n_layers)
    ]
    some = grid[:: max(1, len(grid) // cells)]
    saved = result.restored_log_probability.transpose("token", "depth", "sample").values
    answer, worst, began = item.answer[0], 0.0, time.process_time()
    for position, depth in some:
        edit = (runs.Put("state", (depth,), (position,)),)
        values = runs.run_patched(
            model,
            [runs.Branch(edit, row=row) for row in range(run.samples)],
            base=run.corrupted,
            other=run.clean,
            read=lambda said, _: said.read(tokens=torch.full(said.shape, answer)).log_probability[:, 0],
            plain=True,
        )
        worst = max(worst, float(np.abs(np.exp(values.numpy()) - np.exp(saved[position, depth])).max()))
    return (time.process_time() - began) / len(some) * len(grid), worst, len(some)


def matrix_speed(model: Any) -> float:
    """Operations per second of processor time, held over two seconds, of products like those of a block's MLP."""
    import torch

    width = model.facts.width
    states, weights = torch.randn(2048, width), torch.randn(width, 4 * width)
    out, spent, times = states @ weights, 0.0, 0
    while spent < 2:
        spent += seconds_of(lambda: torch.mm(states, weights, out=out))
        times += 1
    return 2 * 2048 * width * 4 * width * times / spent


def seconds_of(function: Callable[[], Any]) -> float:
    """Seconds of processor time of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a hub name, a folder or a .gguf file")
    parser.add_argument("--prompt", default="The *Eiffel* Tower is located in the city of")
    parser.add_argument("--loop-cells", type=int, default=12, help="cells of the plain loop that are run")
    asked = parser.parse_args()
    with spent_on("imports"):
        import torch

        import layerscope as ls

        torch.set_num_threads(1)
        import_everything()
    from layerscope.runs.machine import keep_freed_memory, peak_bytes

    keep_freed_memory()
    watch()
    with spent_on("load"):
        model = ls.load_model(asked.model)
    speeds = [matrix_speed(model)]

    def trace(**settings: Any) -> Any:
        with spent_on("the rest of a run"):
            return ls.trace(model, asked.prompt, **settings)

    loaded = SPENT.copy()
    trace()
    first = SPENT.copy()
    result = trace()
    second = SPENT.copy()
    with tempfile.TemporaryDirectory() as folder:
        trace(out=Path(folder))
    files = SPENT["files"] - second["files"]
    with spent_on("figures"):
        [figure.to_json() for figure in ls.draw(result).values()]
    rows = seconds_of(lambda: trace(positions="rows"))
    peak = peak_bytes(model.device)
    speeds.append(matrix_speed(model))

    def went(before: dict[str, float], after: dict[str, float], *shares: str) -> float:
        return sum(after.get(share, 0) - before.get(share, 0) for share in shares)

    running = ("trace", "the rest of a run")
    own, rest = (went(first, second, share) for share in running)
    first_calls = went(loaded, first, *running) - own - rest
    shares = {
        "imports": loaded["imports"],
        "load": loaded["load"],
        "checks": first["checks"],
        "first calls": first_calls,
        "trace": own,
        "the rest of a run": rest,
        "files (where asked for)": files,
        "figures": SPENT["figures"],
    }
    tokens, noised = int(result.sizes["token"]), [int(i) for i in result.noised.values.nonzero()[0]]
    samples = int(result.sizes["sample"])
    operations = floor(model, tokens=tokens, noised=noised, samples=samples)
    held = max(speeds)
    least = operations / held
    settings = {"settings": {"smallest_range": 0.01}, "prompts": asked.prompt}
    loop, worst, ran = loop_of(model, settings, asked.loop_cells)

    facts = model.facts
    print(
        f"{facts.name}: {facts.n_layers} layers of width {facts.width}, vocabulary {facts.vocabulary}, one thread"
    )
    print(f"{tokens} tokens, {len(noised)} noised, {samples} draws: {asked.prompt}")
    for name, seconds in shares.items():
        print(f"{name:28s}{seconds:8.2f} s   {seconds / sum(shares.values()):4.0%}")
    print(f"{'together':28s}{sum(shares.values()):8.2f} s")
    print(f"{'positions=rows, warm':28s}{rows:8.2f} s")
    print(f"{'the same grid, plain loop':28s}{loop:8.2f} s   (from {ran} cells)")
    print(f"{'operations at least':28s}{operations / 1e9:8.0f} G")
    print(f"{'matrix speed, held':28s}{held / 1e9:8.0f} GF/s   floor {least:.2f} s")
    print(f"{'largest difference':28s}{worst:8.1e} in probability, trace from loop")
    print(f"{'peak memory':28s}{peak / 2**30:8.2f} GiB")
    everything_else = sum(shares.values()) - own
    print(f"ratio plain loop to trace            {loop / own:6.2f}")
    print(f"ratio trace to its floor             {own / least:6.2f}")
    print(f"ratio whole trace to rows, warm      {(own + rest) / rows:6.2f}")
    print(f"ratio all but trace to 4 s           {everything_else / 4:6.2f}")


if __name__ == "__main__":
    main()
