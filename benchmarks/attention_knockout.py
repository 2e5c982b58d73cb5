"""How fast is attention knock-out of all layers and seven ranges of distance, against whole forward passes?

    python benchmarks/attention_knockout.py [--tokens N] [--targets N] [--threads N]

A random model of GPT-2 small's shape reads one text; at some targets the attention to one range of distance
is cut in one block, and the divergence of the next-token distribution is read. Measured in one run:

- the loop: for every target, block and range one whole forward pass in which a hook gives that block a mask
  of its own, logits at the target only; run for some cells, and scaled to all;
- branches: one recording, then one token for each cell, from its block on;
- the floor: the recording's operations, each cell's own blocks and unembedding, at the speed at which this
  machine multiplies matrices of a block's shape.

Operations of a cell at block l of L, width d, vocabulary V: (L - l) * 24 d^2 less the queries, keys and values
of block l (6 d^2), attention over at most T keys (4 T d a block), and 2 d V. Lines that begin with "ratio" are
the answers.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from causal_trace import SHAPES, matrix_speed, model_of, timed
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.runs.edits import Branch, Cut
from layerscope.runs.machine import keep_freed_memory, peak_bytes
from layerscope.runs.patching import record_base, run_patched
from layerscope.runs.recordings import BaseRun

RANGES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 50), (51, 100), (101, 10_000))
LOOP_CELLS = 24


def keys_of(target: int, span: tuple[int, int]) -> tuple[int, ...]:
    """Tokens at these distances before the target, the first token left out."""
    return tuple(key for key in range(1, target) if span[0] <= target - key <= span[1])


def cells(targets: list[int], layers: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Target, block and keys of every cut."""
    return [
        (target, layer, keys_of(target, span))
        for target in targets
        for layer in range(layers)
        for span in RANGES
    ]


def moved(logits: Tensor, own: Tensor) -> Tensor:
    """KL(own ‖ cut) of the last position's distributions."""
    before, after = own.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1)


def by_branches(
    model: LayeredModel, ids: list[int], wanted: list[tuple[int, int, tuple[int, ...]]]
) -> Tensor:
    """Every cut as a branch of one token, over one recording of the text up to its target."""
    recording = record_base(model, BaseRun.of(ids))
    values = torch.empty(len(wanted))
    for target in dict.fromkeys(cell[0] for cell in wanted):
        here = [place for place, cell in enumerate(wanted) if cell[0] == target]
        branches = [Branch((Cut((wanted[p][1],), (target,), wanted[p][2]),), 0) for p in here]
        upto = recording.until(target + 1)
        own = run_patched(model, [Branch((), 0)], base=upto, read=lambda said, _: said.logits()[:, -1])
        values[here] = run_patched(
            model,
            branches,
            base=upto,
            read=lambda said, _, own=own: moved(said.logits()[:, -1], own),
            tokens_per_pass=2048,
        )
    return values


@torch.no_grad()
def by_whole_forward(model: LayeredModel, ids: list[int], cell: tuple[int, int, tuple[int, ...]]) -> Tensor:
    """One cut by a mask of its own in one block, transformers' own forward pass, and its own clean one."""
    target, layer, keys = cell
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    mask[target, list(keys)] = float("-inf")

    def masked(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"attention_mask": mask[None, None]}

    decoder: Any = model.module
    handle = decoder.transformer.h[layer].attn.register_forward_pre_hook(masked, with_kwargs=True)
    try:
        states = decoder.transformer(torch.tensor([ids]), use_cache=False).last_hidden_state
        return decoder.lm_head(states[0, target])
    finally:
        handle.remove()


def operations(layers: int, width: int, vocabulary: int, ids: int, wanted: list[Any]) -> float:
    """The least that all cuts need, with the run that they leave."""
    total = ids * layers * (24 * width**2 + 2 * ids * width)
    for target, layer, _ in wanted:
        total += (
            (layers - layer) * (24 * width**2 + 4 * target * width) - 6 * width**2 + 2 * width * vocabulary
        )
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    layers, width, _ = SHAPES["small"]
    model = model_of("small", torch.float32)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.facts.vocabulary, (asked.tokens,), generator=generator).tolist()
    targets = torch.linspace(asked.tokens // 2, asked.tokens - 1, asked.targets).long().tolist()
    wanted = cells(targets, layers)
    print(
        f"GPT-2 small's shape, {asked.tokens} tokens, {asked.targets} targets, {layers} blocks x {len(RANGES)} "
        f"ranges = {len(wanted)} cuts, {asked.threads} threads"
    )
    by_branches(model, ids, wanted[:84])  # warm
    branch_seconds = timed(lambda: by_branches(model, ids, wanted), 2)
    speed = matrix_speed(width, torch.float32).held
    some = wanted[:: max(1, len(wanted) // LOOP_CELLS)]
    by_whole_forward(model, ids, some[0])
    loop_seconds = (
        timed(lambda: [by_whole_forward(model, ids, cell) for cell in some]) / len(some) * len(wanted)
    )

    ours = by_branches(model, ids, some)
    clean = {cell[0]: by_whole_forward(model, ids, (cell[0], 0, ())) for cell in some}
    theirs = torch.stack([moved(by_whole_forward(model, ids, cell), clean[cell[0]]) for cell in some])
    least = operations(layers, width, model.facts.vocabulary, asked.tokens, wanted) / speed
    print(f"whole forward passes   {loop_seconds:8.2f} s   (from {len(some)} of {len(wanted)} cuts)")
    print(f"branches               {branch_seconds:8.2f} s")
    print(f"matrix speed           {speed / 1e9:8.0f} GF/s   floor {least:.2f} s")
    print(
        f"largest difference     {float((ours - theirs).abs().max()):8.1e} nats, of at most {float(theirs.max()):.1e}"
    )
    print(f"peak memory            {peak_bytes(model.device) / 2**30:8.2f} GiB")
    print(f"ratio whole forward passes to branches   {loop_seconds / branch_seconds:8.1f}")
    print(f"ratio branches to the floor              {branch_seconds / least:8.2f}")


if __name__ == "__main__":
    main()
