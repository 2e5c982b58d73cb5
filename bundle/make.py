"""Everything that ships, in one command: `python bundle/make.py`.

Trains (or goes on training) unless told `--no-training`, then stores the weights in float16, writes the
texts, chooses the prompts with the stored weights, and writes the model's card. All is built aside and put
into place at the end, so that the files that ship always belong together.
"""

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch
from corpus import STAGES
from evaluate import corpus_counts, load_shipped, write_card
from first_weights import new_model
from prompts import Judge, good_candidates, invented_rows, match_pairs, spread, summary
from recipe import refuse_other
from texts import write_rows, write_texts
from tokenizers import Tokenizer
from train import MODEL_FOLDER, WORK, recipe_of
from transformers import GPT2LMHeadModel
from world.documents import Library

BUNDLED = MODEL_FOLDER.parent
PROMPTS_PER_CATEGORY = 80


def store_weights(work: Path, folder: Path) -> None:
    """The last checkpoint in float16, with the config under GPT-2's own name for its activation."""
    checkpoint = torch.load(work / "checkpoint.pt", map_location="cpu", weights_only=True)
    refuse_other(recipe_of(checkpoint), "The checkpoint")
    read, whole = checkpoint["state"]["tokens"], STAGES[-1].until
    if read < whole:
        raise SystemExit(f"Trained on {read:,} of {whole:,} tokens only: let bundle/train.py go on first.")
    saved = checkpoint["model"]
    vocabulary, width = saved["transformer.wte.weight"].shape
    layers = sum(name.endswith("ln_1.weight") for name in saved)
    model: GPT2LMHeadModel = new_model(width, layers, vocabulary)
    model.load_state_dict(saved)
    model.config.activation_function = "gelu_new"
    model.generation_config.bos_token_id = model.generation_config.eos_token_id = 0
    model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def write_prompts(library: Library, model_folder: Path, folder: Path, seed: int) -> None:
    model, tokenizer = load_shipped(model_folder)
    rng = random.Random(f"prompts {seed}")
    _, frequency = corpus_counts(library, tokenizer, seed)
    good = good_candidates(library, Judge(model, tokenizer, seed), rng)
    rows, counter = [], 0
    for category, candidates in good.items():
        chosen = spread(candidates, PROMPTS_PER_CATEGORY, rng)
        print(summary(category, chosen))
        for candidate in chosen:
            counter += 1
            print(
                f"  {candidate.clean:.3f} {candidate.noised:.3f} {candidate.prompt!r} -> {candidate.answer!r}"
            )
            rows.append(candidate.row(f"world-{counter:03}"))
    write_rows(rows, folder / "world.jsonl")
    pairs = match_pairs(good, frequency)
    for side, name in enumerate(("pairs: regurgitation", "pairs: recall")):
        print(summary(name, [pair[side] for pair in pairs]))
        print(
            f"  times that the median answer was trained on: {median(frequency[p[side].answer] for p in pairs):.0f}"
        )
    write_rows(
        [
            side.row(f"world-pair-{i:02}-{side_name}", pair=f"pair-{i:02}")
            for i, pair in enumerate(pairs, start=1)
            for side, side_name in zip(pair, ("regurgitation", "recall"), strict=True)
        ],
        folder / "world-pairs.jsonl",
    )
    write_rows(invented_rows(library, seed), folder / "world-invented.jsonl")


def train(work: Path, seed: int) -> None:
    script = Path(__file__).with_name("train.py")
    subprocess.run([sys.executable, str(script), "--seed", str(seed), "--work", str(work)], check=True)


def build(work: Path, seed: int) -> Path:
    """Everything that ships, written to a folder inside `work`."""
    library, folder = Library(seed), work / "bundled"
    model_folder = folder / "model"
    shutil.copytree(work / "tokenizer", model_folder, dirs_exist_ok=True)
    store_weights(work, model_folder)
    write_texts(library, Tokenizer.from_file(str(model_folder / "tokenizer.json")), folder, seed)
    write_prompts(library, model_folder, folder / "prompts", seed)
    write_card(model_folder, work, seed)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-training", action="store_true", help="use the checkpoint there is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--into", type=Path, default=BUNDLED, help="where the finished files are put")
    args = parser.parse_args()
    if not args.no_training:
        train(args.work, args.seed)
    shutil.copytree(build(args.work, args.seed), args.into, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
