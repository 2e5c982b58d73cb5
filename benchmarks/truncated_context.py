"""What do all context lengths cost beside the longest one alone?

Over contiguous targets of one text: the similarity of every target's cut state with its full one, at every
depth, for k = 1 .. LONGEST in one sweep; for k = LONGEST alone; and with one run for each k, where some k
are run and the others taken to cost in proportion to their tokens. All in one process, in turn, the
smallest of the repeats; a line for elapsed and one for processor time, which a busy machine disturbs less.

    python benchmarks/truncated_context.py [MODEL] [--targets 400] [--longest 100] [--threads 1] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from layerscope.maths.similarity import centred_cosine
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.runs.window_passes import Cell, every_length
from layerscope.runs.windows import FullRun, full_run, read_truncated

SAMPLED = 25


def gpt2_of_small_shape(context: int) -> LayeredModel:
    """An untrained GPT-2 of the bundled model's shape, with as much context as is wanted."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from layerscope.bundled import bundled_model

    torch.manual_seed(0)
    shape = {"n_embd": 192, "n_layer": 12, "n_head": 6, "n_positions": context, "vocab_size": 4096}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    return load_model(model, tokenizer=AutoTokenizer.from_pretrained(str(bundled_model())))


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def similarities(model: LayeredModel, text: FullRun, cells: Sequence[Cell]) -> np.ndarray:
    """What an experiment computes of every cell [cell depth]."""
    full, targets = text.states.float(), np.array([target for target, _ in cells])
    centre = full[:, 1:].mean(1)
    found = np.full((len(cells), model.n_layers + 1), np.nan, dtype=np.float32)

    def see(depth: int, which: np.ndarray, states: torch.Tensor) -> None:
        here = full[depth, targets[which]]
        found[which, depth] = centred_cosine(states.float(), here, centre=centre[depth]).numpy()

    read_truncated(model, text, cells, see)
    assert np.isfinite(found).all()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--targets", type=int, default=400)
    parser.add_argument("--longest", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokens = given.targets + given.longest + 10
    model = load_model(given.model) if given.model else gpt2_of_small_shape(tokens + 2)
    ids = [0, *np.random.default_rng(0).integers(5, model.facts.vocabulary, tokens - 1).tolist()]
    text = full_run(model, ids)
    targets = range(tokens - given.targets, tokens)
    print(f"{model}, {given.targets} contiguous targets, k up to {given.longest}, {given.threads} thread(s)")

    every = every_length(targets, given.longest)
    some = sorted({*range(SAMPLED, given.longest + 1, SAMPLED), 1})
    work: dict[str, list[Cell]] = {"every": every, "longest": [(target, given.longest) for target in targets]}
    work |= {f"k = {k}": [(target, k) for target in targets] for k in some if k != given.longest}
    best: dict[str, np.ndarray] = {}
    for name, cells in work.items():
        similarities(model, text, cells[:50])  # warm
        best[name] = np.full(2, np.inf)
    for _ in range(given.repeats):
        for name, cells in work.items():
            if name.startswith("k") and np.isfinite(best[name]).all():
                continue  # only a total is wanted of these
            best[name] = np.minimum(best[name], seconds(lambda cells=cells: similarities(model, text, cells)))  # type: ignore[misc]
    sampled = np.stack([best[name] for name in work if name != "every"])
    run_tokens = sum(k + 1 for k in some)
    one_by_one = sampled.sum(0) * sum(k + 1 for k in range(1, given.longest + 1)) / run_tokens
    for place, clock in enumerate(("elapsed", "processor")):
        alone = best["longest"][place]
        print(f"{clock}: k = {given.longest} alone {alone:.2f} s, every k {best['every'][place]:.2f} s")
        print(f"ratio {clock}: every k over k = {given.longest} alone {best['every'][place] / alone:.2f}")
        print(
            f"ratio {clock}: one run for each k over every k {one_by_one[place] / best['every'][place]:.1f}"
        )


if __name__ == "__main__":
    main()
