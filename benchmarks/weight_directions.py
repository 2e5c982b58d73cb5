"""What do directions of weights cost, over the cost of the decompositions alone?

A model of GPT-2 medium's shape with random weights, in one run on a stated number of threads. The plain way
decomposes the same matrices by torch.linalg.svd: each head's whole width × width product, and the MLP's
matrices as they are; ours goes through QR of thin factors. Times are processor seconds.
What a run cannot do without beside decompositions is the product of its directions (and of rotations and
random ones) with every token: with it the floor of the first ratio is printed. The rest is finding
projections, keeping the strongest tokens, rating, and writing.

    python benchmarks/weight_directions.py --threads 2
    python benchmarks/weight_directions.py --layers 2      (less time; the share of fixed costs is larger)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import layerscope as ls
from layerscope.experiments.weight_directions.measure.matrices import decomposed
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.models.projections import find_projections
from layerscope.planted._writing import word_tokenizer

POST = ("OV writes", "MLP reads", "MLP writes")


def seconds(work: Callable[[], object]) -> float:
    """Processor time of all threads: on a machine that others use, it is steadier than the clock."""
    started = time.process_time()
    work()
    return time.process_time() - started


def model_of(layers: int, vocabulary: int) -> ls.LayeredModel:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(f"word{n}" for n in range(vocabulary - 2))
    config = GPT2Config(
        n_layer=layers, n_embd=1024, n_head=16, vocab_size=vocabulary, bos_token_id=0, eos_token_id=0
    )
    return ls.load_model(GPT2LMHeadModel(config).eval().requires_grad_(False), tokenizer=tokenizer)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--layers", type=int, default=24)
    options.add_argument("--vocabulary", type=int, default=50257)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--plain-heads", type=int, default=1, help="heads whose whole product is decomposed")
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    model = model_of(asked.layers, asked.vocabulary)
    settings = Settings(kinds=POST)
    found = [find_projections(model, layer) for layer in range(asked.layers)]
    finding = seconds(lambda: [find_projections(model, layer) for layer in range(asked.layers)])

    def ours() -> None:
        for projections in found:
            for part in ("attention", "mlp"):
                list(decomposed(model, projections, part, settings))

    def plain_heads() -> None:
        heads = found[0].heads
        assert heads is not None
        for head in range(asked.plain_heads):
            torch.linalg.svd(heads.value[head] @ heads.output[head])

    def plain_mlps() -> None:
        for projections in found:
            (mlp,) = projections.mlps
            torch.linalg.svd(mlp.reads["in"], full_matrices=False)
            torch.linalg.svd(mlp.writes, full_matrices=False)

    def products() -> None:
        """The directions that a run holds against the vocabulary, and nothing but their products with it."""
        rows = model.module.get_output_embeddings().weight.detach()
        leading = [len(side) for part in ("attention", "mlp") for matrix in decomposed(model, found[0], part, settings)
                   for side in matrix.sides.values()]  # fmt: skip
        number = sum(leading) + settings.rotations * len(POST)
        counted.append(number)
        for asked_of in [number] * asked.layers + [2 * settings.random_directions]:
            vectors = torch.randn(asked_of, rows.shape[1])
            for start in range(0, len(rows), 8192):
                vectors @ rows[start : start + 8192].T

    counted: list[int] = []
    alone = seconds(ours)
    vocabulary = seconds(products)
    mlps = seconds(plain_mlps)
    heads = seconds(plain_heads) / asked.plain_heads * 16 * asked.layers
    whole = seconds(
        lambda: ls.run(
            "weight_directions",
            model,
            progress=False,
            kinds=POST,
            corpus="",
            tagged_corpus="",
            untrained_layers=0,
            edits=0,
        )
    )
    print(f"{asked.layers} layers, width 1024, {asked.vocabulary} tokens, {asked.threads} threads")
    print(f"finding projections            {finding:8.1f} s")
    print(f"decompositions, ours           {alone:8.1f} s")
    print(f"decompositions, plain MLPs     {mlps:8.1f} s")
    print(f"decompositions, plain heads    {heads:8.1f} s   (from {asked.plain_heads})")
    print(f"products with the vocabulary   {vocabulary:8.1f} s   ({counted[0]} directions a layer)")
    print(f"the whole run                  {whole:8.1f} s")
    print(
        f"ratio SVD of a GPT-2-medium-shaped model in time over the cost of its decompositions alone  "
        f"{whole / alone:.2f}   (floor, with products: {(alone + vocabulary) / alone:.2f})"
    )
    print(f"ratio whole run over decompositions and products  {whole / (alone + vocabulary):.2f}")
    print(f"ratio whole run over plain decompositions         {whole / (mlps + heads):.3f}")
    print(f"ratio whole run over plain SVD of the MLPs alone  {whole / mlps:.2f}")


if __name__ == "__main__":
    main()
