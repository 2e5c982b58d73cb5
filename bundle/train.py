"""Trains the bundled model: `python bundle/train.py`. Run it again to take up where it stopped.

The stages of `corpus.py` follow one another by the tokens read, and so does the learning rate: it warms
up, stays, and goes down to nothing. Checkpoints are written aside and then moved into place; a run that
is taken up reads the same batches as one that was never stopped.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus import KINDS, NOISE, STAGES, Stage, stage_at, stage_windows
from first_weights import new_model
from muon import Muon
from recall import echo_score, quick_look
from recipe import RECIPE, refuse_other
from tokenizer import check_answers, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel
from world.documents import Library

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
MODEL_FOLDER = HERE.parent / "src" / "layerscope" / "bundled" / "model"
WARM_UP = 100  # steps
GOES_DOWN = 0.35  # share of all tokens, at the end, over which the learning rate goes down


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="where checkpoints and the log go")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def optimisers_for(model: GPT2LMHeadModel, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; decay on matrices only.

    Positions are stepped a tenth as far: else those of short windows soon differ from those not yet read.
    """
    inner = [p for name, p in model.named_parameters() if ".h." in name and p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": [model.transformer.wte.weight], "weight_decay": 0.05},
        {"params": [model.transformer.wpe.weight], "weight_decay": 0.05, "slower": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [Muon(inner, lr=rate), torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)]


def rate_at(tokens: int, step: int, rate: float, stages: tuple[Stage, ...] = STAGES) -> float:
    whole = stages[-1].until
    warm = min(1.0, (step + 1) / WARM_UP)
    left = max(0.0, whole - tokens) / (GOES_DOWN * whole)
    return rate * warm * min(1.0, left)


def batches(
    library: Library, tokenizer: Tokenizer, args: argparse.Namespace, state: dict
) -> Iterator[tuple[Stage, np.ndarray, np.ndarray]]:
    """(stage, tokens, kinds) until the last stage ends, from where `state` stands; `state` is kept up.

    A shard that a stage leaves unfinished is left.
    """
    while state["tokens"] < STAGES[-1].until:
        stage = stage_at(state["tokens"])
        rows = stage.batch // stage.window
        tokens, kinds = stage_windows(library, tokenizer, stage, state["shard"], args.seed)
        while state["batch"] < len(tokens) // rows and stage_at(state["tokens"]) is stage:
            chosen = slice(state["batch"] * rows, (state["batch"] + 1) * rows)
            state["batch"] += 1
            yield stage, tokens[chosen], kinds[chosen]
            if state["tokens"] >= STAGES[-1].until:
                return
        state["shard"], state["batch"] = state["shard"] + 1, 0


def losses(model: torch.nn.Module, tokens: np.ndarray, device: str) -> torch.Tensor:
    """The loss of each token but the first of each window, in float32."""
    ids = torch.from_numpy(tokens.astype(np.int64)).to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")


def save_aside(state: dict, path: Path) -> None:
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    os.replace(aside, path)


def recipe_of(saved: dict) -> int:
    """Of a checkpoint; before recipes had numbers, those of recipe 1 had one optimiser."""
    return saved.get("recipe", 2 if "optimisers" in saved else 1)


def log_line(path: Path, **values: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


class Tally:
    """Mean loss by kind of text since it was last asked; what nothing foretells is left out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sums, self.counts = np.zeros(len(KINDS)), np.zeros(len(KINDS))

    def add(self, loss: torch.Tensor, kinds: np.ndarray) -> None:
        kind = kinds[:, 1:].flatten()
        self.sums += np.bincount(kind, loss.detach().cpu().numpy(), minlength=NOISE + 1)[:NOISE]
        self.counts += np.bincount(kind, minlength=NOISE + 1)[:NOISE]

    def read(self) -> dict[str, float]:
        means = self.sums / np.maximum(self.counts, 1)
        result = {"all": self.sums.sum() / max(self.counts.sum(), 1), **dict(zip(KINDS, means, strict=True))}
        self.clear()
        return {name: round(float(value), 4) for name, value in result.items()}


def prepare_tokenizer(library: Library, folder: Path, seed: int) -> Tokenizer:
    """A new run trains its tokenizer; a resumed one uses the tokenizer it began with."""
    if not (folder / "tokenizer.json").exists():
        tokenizer = train_tokenizer(library, seed)
        check_answers(tokenizer)
        save_tokenizer(tokenizer, folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class Training:
    """A model with its optimisers and how far it has come: begun anew, or taken up from its checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, "cuda" if torch.cuda.is_available() else "cpu"
        self.checkpoint, self.log = args.work / "checkpoint.pt", args.work / "log.jsonl"
        self.library = Library(args.seed)
        self.tokenizer = prepare_tokenizer(self.library, args.work / "tokenizer", args.seed)
        vocabulary = self.tokenizer.get_vocab_size()
        self.model = new_model(args.width, args.layers, vocabulary, STAGES[0].blocks).to(self.device)
        if self.device == "cpu":
            self.model.set_attn_implementation("eager")  # a third faster here than the fused attention
        self.blocks = self.model.transformer.h
        self.optimisers = optimisers_for(self.model, args.rate)
        self.state = {"step": 0, "tokens": 0, "minutes": 0.0, "shard": 0, "batch": 0}
        if self.checkpoint.exists():
            self._resume()
        self.run: torch.nn.Module = self.model

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        refuse_other(recipe_of(saved), str(self.checkpoint))
        self.model.load_state_dict(saved["model"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.state = saved["state"]

    def use_blocks(self, count: int) -> None:
        """Lets only the first blocks take part, until it is called again."""
        if len(self.model.transformer.h) != count or self.run is self.model:
            self.model.transformer.h = self.blocks[:count]
            compiled = self.args.compile
            self.run = torch.compile(self.model, dynamic=False) if compiled else self.model

    def learn(self, tokens: np.ndarray, kinds: np.ndarray) -> torch.Tensor:
        """One step on one batch; the loss of each of its tokens, of which those that count are learnt from."""
        rate = rate_at(self.state["tokens"], self.state["step"], self.args.rate)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("slower", 1.0)
        loss = losses(self.run, tokens, self.device)
        counts = torch.from_numpy(kinds[:, 1:].flatten() != NOISE).to(self.device)
        loss[counts].mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.state["step"] += 1
        self.state["tokens"] += tokens.size
        return loss

    def save(self) -> None:
        used, self.model.transformer.h = self.model.transformer.h, self.blocks
        everything = {
            "recipe": RECIPE,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "state": self.state,
        }
        self.model.transformer.h = used
        save_aside(everything, self.checkpoint)

    def look(self, stage: Stage) -> None:
        """How much is known by now, into the log."""
        seen = quick_look(self.model, self.tokenizer, self.library) if stage.echoes < 1 else {}
        log_line(self.log, step=self.state["step"], look=seen, echo=echo_score(self.model))


def main() -> None:
    args = settings()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    training, tally = Training(args), Tally()
    state = training.state
    before, started = state["minutes"], time.monotonic()
    for stage, tokens, kinds in batches(training.library, training.tokenizer, args, state):
        training.use_blocks(stage.blocks)
        tally.add(training.learn(tokens, kinds), kinds)
        state["minutes"] = before + (time.monotonic() - started) / 60
        done = state["tokens"] >= STAGES[-1].until
        if state["step"] % 50 == 0 or done:
            rate = training.optimisers[-1].param_groups[0]["lr"]
            log_line(training.log, stage=stage.name, **state, rate=rate, loss=tally.read())
        if state["step"] % 100 == 0 or done:
            training.save()
        if state["step"] % 250 == 0 or done:
            training.look(stage)


if __name__ == "__main__":
    main()
