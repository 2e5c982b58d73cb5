"""How fast is a causal trace of states, against ROME's loop, the best tuned loop, and the floor?

    python benchmarks/causal_trace.py [--shape small|xl] [--dtype float32|bfloat16] [--threads N]

Twelve tokens, two noised at positions 2 and 3, ten draws. Everything is measured in one run:

- ROME's loop: for every state one forward pass of 1 + 10 rows, logits at every position;
- the best tuned loop: only states that can change anything, ten rows, logits at the last position only;
- branches, and branches at the noised and last rows only;
- the floor: the operations that the trace needs at least (queries, keys, values, outputs and MLPs of the
  positions and blocks where a patched run can differ, and one unembedding for each), at the speed at
  which this machine multiplies matrices of a block's shape, measured before and after: the speed that it
  holds for seconds on end, and that of the best single product. A processor that other guests share, or that
  slows when all of its cores multiply, holds less than its best for as long as a trace takes.

With --transitions it traces the bundled model's prompts in float32 and in the given type, and says by how
much transition layers move. Lines that begin with "ratio" are the answers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.runs.edits import Branch, Put
from layerscope.runs.machine import keep_freed_memory, peak_bytes
from layerscope.runs.patching import run_patched
from layerscope.runs.predictions import Predictions
from layerscope.runs.reading import read_states
from layerscope.runs.recordings import BaseRun

SHAPES = {"small": (12, 768, 12), "xl": (48, 1600, 25)}
TOKENS, NOISED, SAMPLES, ANSWER = 12, (2, 3), 10, 5
_ROME_STATES = {"small": None, "xl": 12}
"""How many states of ROME's loop are run; the rest is extrapolated. None means all."""
_REPEATS = {"small": 4, "xl": 1}
"""How often branches are timed; the least time counts. XL takes minutes."""
_SECONDS_HELD = 4.0


def model_of(shape: str, dtype: torch.dtype) -> LayeredModel:
    """A random GPT-2 of this shape."""
    from tokenizers import Tokenizer, models

    layers, width, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    return load_model(GPT2LMHeadModel(config).eval().to(dtype), tokenizer=tokenizer)


def cells(layers: int, rows_only: bool) -> list[tuple[int, int]]:
    """Tokens and depths at which a restored state can change the last token's prediction."""
    tokens = (*NOISED, TOKENS - 1) if rows_only else range(NOISED[0], TOKENS)
    return [
        (token, depth)
        for token in tokens
        for depth in range(0 if token in NOISED else 1, layers + (token == TOKENS - 1))
    ]


def read(said: Predictions, _: object) -> Tensor:
    """Log-probability of the answer."""
    return said.read(tokens=torch.full(said.shape, ANSWER)).log_probability[:, 0]


def by_branches(model: LayeredModel, ids: list[int], noise: Tensor, rows_only: bool = False) -> Tensor:
    """The trace by branches [cell sample]."""
    wanted = cells(model.n_layers, rows_only)
    branches = [Branch((Put("state", (d,), (t,)),), row) for t, d in wanted for row in range(SAMPLES)]
    base, other = BaseRun.of(ids, noise, NOISED), BaseRun.of(ids)
    values = run_patched(model, branches, base=base, other=other, read=read, tokens_per_pass=2048)
    return values.reshape(len(wanted), SAMPLES)


@torch.no_grad()
def one_state(
    model: LayeredModel, ids: list[int], noise: Tensor, clean: Tensor, cell: tuple[int, int], rome: bool
) -> Tensor:
    """One state restored in every noised row, by one whole forward pass; ROME keeps the clean row and all logits."""
    token, depth = cell
    extra = int(rome)

    def start(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[extra:, list(NOISED)] += noise.to(stream)
        return put(stream) if depth == 0 else stream

    def put(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[extra:, token] = clean[depth, token]
        return stream

    batch = torch.tensor([ids] * (SAMPLES + extra))
    with at_depth(model, {0: start} | ({depth: put} if depth else {})):
        logits = model.logits(batch, last=not rome)
    return logits[extra:, -1].float().log_softmax(-1)[:, ANSWER]


def timed(function: Callable[[], object], repeats: int = 1) -> float:
    """The least time of several runs, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


@dataclass(frozen=True)
class MatrixSpeed:
    """Operations per second of the products of a block's MLP at 2,048 tokens.

    Attributes:
        held: over all products of some seconds.
        best: of the fastest product.
    """

    held: float
    best: float


def matrix_speed(width: int, dtype: torch.dtype) -> MatrixSpeed:
    """Multiply for some seconds."""
    states, weights, bias = (
        torch.randn(*shape, dtype=dtype) for shape in ((2048, width), (width, 4 * width), (4 * width,))
    )
    out = torch.addmm(bias, states, weights)
    operations, times = 2 * 2048 * width * 4 * width, list[float]()
    while sum(times) < _SECONDS_HELD:
        times.append(timed(lambda: torch.addmm(bias, states, weights, out=out)))
    return MatrixSpeed(operations * len(times) / sum(times), operations / min(times))


def floor(layers: int, width: int, vocabulary: int, wanted: list[tuple[int, int]]) -> float:
    """The least number of operations of the trace: what can differ, and the base run."""
    total = SAMPLES * TOKENS * layers * 24 * width**2
    for token, depth in wanted:
        carried = TOKENS - token
        for layer in range(depth, layers):
            last = layer == layers - 1
            changed = carried if layer > depth else 1  # the joining block: others keep their q, k, v
            read_out = 1 if last else carried
            queries = min(changed, read_out)
            per_row = 2 * width**2 * (2 * changed + queries + 9 * read_out) + 4 * read_out * TOKENS * width
            total += SAMPLES * per_row
        total += SAMPLES * 2 * width * vocabulary
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--transitions", action="store_true", help="by how much --dtype moves transition layers"
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    dtype = getattr(torch, asked.dtype)
    if asked.transitions:
        transitions(asked.dtype)
        return
    layers, width, _ = SHAPES[asked.shape]
    print(f"{asked.shape}: {layers} blocks of width {width}, {asked.dtype}, {asked.threads} threads")
    model = model_of(asked.shape, dtype)
    ids = torch.randint(
        0, model.facts.vocabulary, (TOKENS,), generator=torch.Generator().manual_seed(1)
    ).tolist()
    noise = torch.randn(SAMPLES, len(NOISED), width, generator=torch.Generator().manual_seed(2)) * 0.1
    clean = read_states(model, ids)
    everything = cells(layers, False)

    values = torch.empty(0)

    def trace() -> None:
        nonlocal values
        values = by_branches(model, ids, noise)

    repeats = _REPEATS[asked.shape]
    speeds = [matrix_speed(width, dtype)]
    if repeats > 1:
        by_branches(model, ids, noise, rows_only=True)  # warm
    branch_seconds = timed(trace, repeats)
    speeds.append(matrix_speed(width, dtype))
    rows_seconds = timed(lambda: by_branches(model, ids, noise, rows_only=True), repeats)
    rome_seconds, states = loop_seconds(model, ids, noise, clean, asked.shape, rome=True)
    tuned_seconds, _ = loop_seconds(model, ids, noise, clean, asked.shape, rome=False)
    speeds.append(matrix_speed(width, dtype))

    some = everything[:: max(1, len(everything) // 25)]
    reference = torch.stack([one_state(model, ids, noise, clean, cell, rome=False) for cell in some])
    ours = torch.stack([values[everything.index(cell)] for cell in some])
    operations = floor(layers, width, model.facts.vocabulary, everything)
    held, best = (max(getattr(speed, kind) for speed in speeds) for kind in ("held", "best"))
    print(f"ROME's loop            {rome_seconds:8.2f} s   (from {states} of {TOKENS * layers} states)")
    print(f"best tuned loop        {tuned_seconds:8.2f} s")
    print(f"branches               {branch_seconds:8.2f} s")
    print(f"branches, rows only    {rows_seconds:8.2f} s")
    print(f"operations at least    {operations / 1e9:8.0f} G")
    print(f"matrix speed, held     {held / 1e9:8.0f} GF/s   floor {operations / held:.2f} s")
    print(f"matrix speed, best     {best / 1e9:8.0f} GF/s   floor {operations / best:.2f} s")
    print(f"largest difference     {float((ours.exp() - reference.exp()).abs().max()):8.1e} in probability")
    print(f"peak memory            {peak_bytes(model.device) / 2**30:8.2f} GiB")
    print(f"ratio ROME's loop to branches       {rome_seconds / branch_seconds:6.2f}")
    print(f"ratio best tuned loop to branches   {tuned_seconds / branch_seconds:6.2f}")
    print(f"ratio ROME's loop to rows only      {rome_seconds / rows_seconds:6.2f}")
    print(
        f"ratio branches to the floor         {branch_seconds / operations * held:6.2f}   (at the speed held)"
    )
    print(
        f"ratio branches to the floor, best   {branch_seconds / operations * best:6.2f}   (at the best product's speed)"
    )


def loop_seconds(
    model: LayeredModel, ids: list[int], noise: Tensor, clean: Tensor, shape: str, *, rome: bool
) -> tuple[float, int]:
    """Seconds of a whole loop, and how many states were run for it."""
    layers = model.n_layers
    # ROME restores the output of every block at every token.
    wanted = [(t, d + 1) for t in range(TOKENS) for d in range(layers)] if rome else cells(layers, False)
    most = _ROME_STATES[shape]
    some = wanted if most is None else wanted[:: len(wanted) // most][:most]
    one_state(model, ids, noise, clean, some[0], rome)
    seconds = timed(lambda: [one_state(model, ids, noise, clean, cell, rome) for cell in some])
    return seconds / len(some) * len(wanted), len(some)


def transitions(dtype: str) -> None:
    """How far this type moves transition layers of the bundled model's prompts."""
    import numpy as np

    import layerscope as ls

    layers = {
        name: ls.run(
            "causal_trace", load_model("bundled", dtype=name), positions="rows", samples=4, progress=False
        ).transition_layer.values
        for name in ("float32", dtype)
    }
    moved = np.abs(layers[dtype] - layers["float32"])
    known = np.isfinite(moved)
    print(
        f"{known.sum()} prompts: transition layers move by {np.median(moved[known]):.3f} (median), "
        f"{moved[known].max():.3f} (most); more than a quarter of a block in {(moved[known] > 0.25).sum()}"
    )


if __name__ == "__main__":
    main()
