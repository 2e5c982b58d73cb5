"""How near to the model's own forward speed do `hidden_states` and `logit_lens` measure?

For each model: passages are run through the model alone, as these experiments need it (no logits but the
last token's), and through each experiment's own measurement of one passage. For the lens every position is
read, and its floor is the forward pass and the unembedding of every position at every depth:
operations that nothing can save. Both ratios are printed: against that floor and against
the forward pass alone. What is measured is processor time on one thread by default, and the runs of a round
take turns, so that a busy machine slows all of them alike.

    python benchmarks/states_and_lens.py bundled gpt2-shape --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process: with one thread a busy machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def tokens_per_second(
    kinds: dict[str, Callable[[Any], object]], passages: list[Any], rounds: int
) -> dict[str, float]:
    """Median over rounds, in which every kind takes its turn on every passage."""
    tokens = sum(len(passage.tokens) for passage in passages)
    for work in kinds.values():
        work(passages[0])
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        spent = dict.fromkeys(kinds, 0.0)
        for passage in passages:
            for name, work in kinds.items():
                spent[name] += seconds(lambda work=work, passage=passage: work(passage))  # type: ignore[misc]
        for name, time_ in spent.items():
            taken[name].append(tokens / time_)
    return {name: statistics.median(values) for name, values in taken.items()}


def gpt2_shape() -> Any:
    """Random weights in the shape of GPT-2 small, vocabulary included, with the bundled model's tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import layerscope as ls

    return ls.load_model(GPT2LMHeadModel(GPT2Config()), tokenizer=ls.load_model("bundled").tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    import torch

    import layerscope as ls
    from layerscope.runs.machine import keep_freed_memory

    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as the command line does
    for name in given.models:
        model = gpt2_shape() if name == "gpt2-shape" else ls.load_model(name)
        speed = speeds(model, given.passages, given.rounds)
        floor = 1 / (1 / speed["forward"] + 1 / speed["unembeddings"])
        print(f"{model}, {given.threads} threads, tokens per second of processor time:")
        print("  " + ", ".join(f"{kind} {rate:,.0f}" for kind, rate in speed.items()))
        print(f"ratio hidden_states to forward: {speed['hidden_states'] / speed['forward']:.2f}")
        print(f"ratio logit_lens to forward and unembeddings: {speed['logit_lens'] / floor:.2f}")
        print(f"ratio logit_lens to forward alone: {speed['logit_lens'] / speed['forward']:.2f}")


def speeds(model: Any, count: int, rounds: int) -> dict[str, float]:
    """Tokens per second of everything that is compared, on the first passages of the model's own set."""
    from layerscope.experiments import hidden_states, logit_lens
    from layerscope.experiments.hidden_states.items import TextsItem
    from layerscope.experiments.logit_lens.items import LensItem
    from layerscope.jobs.texts import default_source, tokenised_passages
    from layerscope.runs import read_states
    from layerscope.runs.reading import as_batch

    passages = list(tokenised_passages(model, default_source(model, "passages")))[:count]
    states = hidden_states.Settings()
    lens = logit_lens.Settings(positions=10**6, first_position=0)
    measured = {stage.name: stage.measure for stage in hidden_states.STAGES}
    centre = {"centre": measured["centre"](model, _item(TextsItem, passages[0]), states, {})}
    of_lens = {stage.name: stage.measure for stage in logit_lens.STAGES}["passages"]
    kept = {passage.name: read_states(model, passage.tokens.ids) for passage in passages}

    def unembeddings(passage: Any) -> None:
        for state in kept[passage.name]:
            model.unembed(state)

    def states_of(passage: Any) -> None:
        measured["passages"](model, _item(TextsItem, passage), states, centre)

    def lens_of(passage: Any) -> None:
        of_lens(model, _item(LensItem, passage), lens, {})

    kinds: dict[str, Callable[[Any], object]] = {
        "forward": lambda passage: model.logits(as_batch(passage.tokens.ids), last=True),
        "unembeddings": unembeddings,
        "hidden_states": states_of,
        "logit_lens": lens_of,
    }
    return tokens_per_second(kinds, passages, rounds)


def _item(kind: Any, passage: Any) -> Any:
    return kind(name="benchmark", size=1, passages=(passage,))


if __name__ == "__main__":
    main()
