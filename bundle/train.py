"""Trains the bundled model: `python bundle/train.py --minutes 45`. Run it again to take up where it stopped.

The schedule is warm up, stay, go down: measured in minutes of training, so that on a slow machine the
learning rate still reaches zero in time. Checkpoints are written aside and then moved into place.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus import KINDS, make_shard, window_of, windows
from first_weights import new_model
from recall import quick_look
from tokenizer import check_answers, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel
from world.documents import Library

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
MODEL_FOLDER = HERE.parent / "src" / "layerscope" / "bundled" / "model"


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=45, help="training time in all, over every resumption"
    )
    parser.add_argument(
        "--decay-minutes", type=float, default=11, help="how long the learning rate goes down"
    )
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--window", type=int, help="one length for all windows, in place of the schedule")
    parser.add_argument("--rate", type=float, default=1.3e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="where checkpoints and the log go")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def optimiser_for(model: GPT2LMHeadModel, rate: float) -> torch.optim.Optimizer:
    """Decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)


def rate_at(minutes: float, step: int, args: argparse.Namespace) -> float:
    warm = min(1.0, (step + 1) / 200)
    left = max(0.0, args.minutes - minutes) / args.decay_minutes
    return args.rate * warm * min(1.0, left)


def batches(
    library: Library, tokenizer: Tokenizer, args: argparse.Namespace, shard: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(shard number, tokens, kinds), for ever. A resumed run begins with the next whole shard."""
    while True:
        length = args.window or window_of(shard)
        rows = args.batch_tokens // length
        tokens, kinds = windows(make_shard(library, tokenizer, shard, args.seed), length, shard)
        for start in range(0, len(tokens) - rows + 1, rows):
            yield shard, tokens[start : start + rows], kinds[start : start + rows]
        shard += 1


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


def log_line(path: Path, **values: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


class Tally:
    """Mean loss by kind of text since it was last asked."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sums, self.counts = np.zeros(len(KINDS)), np.zeros(len(KINDS))

    def add(self, loss: torch.Tensor, kinds: np.ndarray) -> None:
        kind = kinds[:, 1:].flatten()
        self.sums += np.bincount(kind, loss.detach().cpu().numpy(), minlength=len(KINDS))
        self.counts += np.bincount(kind, minlength=len(KINDS))

    def read(self) -> dict[str, float]:
        means = self.sums / np.maximum(self.counts, 1)
        result = {"all": self.sums.sum() / max(self.counts.sum(), 1), **dict(zip(KINDS, means, strict=True))}
        self.clear()
        return {name: round(float(value), 4) for name, value in result.items()}


def prepare_tokenizer(library: Library, seed: int, is_new: bool) -> Tokenizer:
    """A new run trains its tokenizer; a resumed one uses the tokenizer it began with."""
    if is_new:
        tokenizer = train_tokenizer(library, seed)
        check_answers(tokenizer)
        save_tokenizer(tokenizer, MODEL_FOLDER)
    return Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))


class Training:
    """A model with its optimiser and how far it has come: begun anew, or taken up from its checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, "cuda" if torch.cuda.is_available() else "cpu"
        self.checkpoint, self.log = args.work / "checkpoint.pt", args.work / "log.jsonl"
        self.library = Library(args.seed)
        self.tokenizer = prepare_tokenizer(self.library, args.seed, is_new=not self.checkpoint.exists())
        self.model = new_model(args.width, args.layers, self.tokenizer.get_vocab_size()).to(self.device)
        if self.device == "cpu":
            self.model.set_attn_implementation("eager")  # a third faster here than the fused attention
        self.optimiser = optimiser_for(self.model, args.rate)
        self.state = {"step": 0, "tokens": 0, "minutes": 0.0, "shard": 0}
        if self.checkpoint.exists():
            self._resume()
        self.run = torch.compile(self.model, dynamic=False) if args.compile else self.model

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.state = saved["state"] | {"shard": saved["state"]["shard"] + 1}

    def learn(self, tokens: np.ndarray, minutes: float) -> torch.Tensor:
        """One step on one batch; the loss of each of its tokens."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(minutes, self.state["step"], self.args)
        loss = losses(self.run, tokens, self.device)
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.state["step"] += 1
        self.state["tokens"] += tokens.size
        self.state["minutes"] = minutes
        return loss

    def save(self) -> None:
        """A checkpoint, and how much is known by now."""
        everything = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "state": self.state,
        }
        save_aside(everything, self.checkpoint)
        look = quick_look(self.model, self.tokenizer, self.library)
        log_line(self.log, step=self.state["step"], look=look)


def main() -> None:
    args = settings()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    training, tally = Training(args), Tally()
    before, started = training.state["minutes"], time.monotonic()
    for shard, tokens, kinds in batches(training.library, training.tokenizer, args, training.state["shard"]):
        minutes = before + (time.monotonic() - started) / 60
        tally.add(training.learn(tokens, minutes), kinds)
        training.state["shard"] = shard
        done = minutes >= args.minutes
        if training.state["step"] % 50 == 0 or done:
            rate = training.optimiser.param_groups[0]["lr"]
            log_line(training.log, **training.state, rate=rate, loss=tally.read())
        if training.state["step"] % 250 == 0 or done:
            training.save()
        if done:
            break


if __name__ == "__main__":
    main()
