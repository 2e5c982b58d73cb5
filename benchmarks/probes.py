"""Syntax probes at all depths and tasks of English EWT: all tasks at once, and by scikit-learn one at a time.

    python benchmarks/probes.py                 a GPT-2-small-shaped model, 20,000 words of EWT's train part
    python benchmarks/probes.py 250000          all of it
    python benchmarks/probes.py 5000 4          fewer words, and a model of 4 layers

The model has the shape and the tokenizer of GPT-2 small and random weights: the time of a fit depends on the shape,
and on how plainly labels can be read, which is less here than in a trained model. Both sides solve the same
problems (part of speech, fine part of speech, relation, of this word and the next), each by its own default rule of
when to end, in float32, on one thread; how much higher our objectives end than scikit-learn's is printed. Reading
states, our fits and scikit-learn's run in processes of their own, so that each has a peak of memory of its own.
scikit-learn is timed at two depths (the middle and the last) and scaled to all.

What fewer words than all tell about all of them is worked out apart for reading (by tokens) and for fitting (by
words), and is marked as an estimate.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

import layerscope
from layerscope.maths.probes import fit_logistic
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.runs.state_cache import StateCache, groups
from layerscope.text.tokenised_words import TokenisedSentence, tokenise_sentence
from layerscope.text.treebanks import load_treebank

SHARED = Path(__file__).parents[2] / "shared" / "data"
EWT = SHARED / "treebanks" / "ewt" / "en_ewt-ud-train.conllu"
VOCABULARY = SHARED / "tokenizers" / "gpt2"
L2, TOLERANCE, MOST_STEPS, FEWEST = 10.0, 1e-4, 1000, 10
FIELDS = ("upos", "xpos", "deprel")


def main(words: int = 20_000, layers: int = 12) -> None:
    if not (EWT.is_file() and VOCABULARY.is_dir()):
        sys.exit("this benchmark reads ../shared/data, which is not here")
    whole = load_treebank(EWT)
    every = sum(len(sentence.spans) for sentence in whole)
    with tempfile.TemporaryDirectory() as folder:
        read, ours, theirs = (_apart(part, words, layers, folder) for part in ("read", "fit", "one by one"))
    depths, tasks = layers + 1, len(ours["classes"])
    share = every / read["words"]
    print(f"{read['words']} of EWT train's {every} words, {read['tokens']} tokens, classes {ours['classes']}")
    print(f"reading all {depths} depths once: {read['seconds']:.1f} s, peak {read['peak'] / 1e6:.0f} MB")
    print(
        f"fitting {depths} depths x {tasks} tasks, all tasks of a depth at once: {ours['seconds']:.1f} s, "
        f"peak {ours['peak'] / 1e6:.0f} MB; {ours['steps']} steps, {ours['open']} fits not converged"
    )
    print(
        f"scikit-learn, one probe at a time: {theirs['seconds']:.1f} s at {theirs['depths']} of {depths} depths, "
        f"peak {theirs['peak'] / 1e6:.0f} MB; {theirs['open']} fits not converged; the same answer about "
        f"{theirs['same']:.1%} of words; our objectives over theirs {theirs['lowest']:.6f} to {theirs['highest']:.6f}"
    )
    scaled = theirs["seconds"] * depths / theirs["depths"]
    print(f"ratio scikit-learn / ours, time of all fits: {scaled / ours['seconds']:.2f}")
    print(f"ratio scikit-learn / ours, peak memory: {theirs['peak'] / ours['peak']:.2f}")
    if share > 1:
        print(
            f"estimate for all of EWT train ({share:.1f} times the words): reading {read['seconds'] * share:.0f} s, "
            f"fits {ours['seconds'] * share:.0f} s, scikit-learn's {scaled * share:.0f} s"
        )


def _apart(part: str, words: int, layers: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, part, str(words), str(layers), folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _part(part: str, words: int, layers: int, folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = _model(layers)
    texts = _texts(model.tokenizer, words)
    cache = StateCache(model, folder=folder, bound=10**12)
    cut = list(groups([len(text.tokens) for text in texts]))
    found: dict[str, Any] = {"words": sum(len(text.sentence.spans) for text in texts)}
    if part == "read":
        started = time.process_time()
        for group in cut:
            cache.states([texts[i].tokens.ids for i in group], 0)
        seconds = time.process_time() - started
        found |= {"tokens": sum(len(text.tokens) for text in texts), "seconds": seconds}
    else:
        labels, classes = _labels(texts)
        found["classes"] = classes
        depths = range(layers + 1) if part == "fit" else sorted({layers // 2, layers})
        states = ((depth, _states(cache, texts, cut, depth)) for depth in depths)
        fits = _all_at_once if part == "fit" else _one_at_a_time
        found |= {"depths": len(depths)} | fits(states, labels, classes, Path(folder))
    return found | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _model(layers: int) -> LayeredModel:
    tokenizer = GPT2Tokenizer(vocab=str(VOCABULARY / "vocab.json"), merges=str(VOCABULARY / "merges.txt"))
    torch.manual_seed(0)
    return load_model(GPT2LMHeadModel(GPT2Config(n_layer=layers)), tokenizer=tokenizer)


def _texts(tokenizer: object, words: int) -> list[TokenisedSentence]:
    texts, held = [], 0
    for sentence in load_treebank(EWT):
        texts.append(tokenise_sentence(tokenizer, sentence, longest=256))
        held += len(sentence.spans)
        if held >= words:
            break
    return texts


def _labels(texts: list[TokenisedSentence]) -> tuple[np.ndarray, list[int]]:
    """Number of each word's label [task word], −1 for a rare one, and the classes of each task."""
    rows, classes = [], []
    for field in FIELDS:
        for shift in (0, 1):
            column = [
                label
                for text in texts
                for label, last in zip(
                    (*getattr(text.sentence, field)[shift:], *[""] * shift), text.last, strict=True
                )
                if last >= 0
            ]
            names, counts = np.unique([label for label in column if label], return_counts=True)
            place = {name: i for i, name in enumerate(names[counts >= FEWEST])}
            rows.append([place.get(label, -1) for label in column])
            classes.append(len(place))
    return np.array(rows), classes


def _states(cache: StateCache, texts: list[TokenisedSentence], cut: list[range], depth: int) -> torch.Tensor:
    """States of words' last tokens [word width]."""
    rows = sum(last >= 0 for text in texts for last in text.last)
    found, at = torch.empty(rows, cache.model.facts.width), 0
    for group in cut:
        states, start, picked = cache.states([texts[i].tokens.ids for i in group], depth), 0, []
        for i in group:
            picked += [start + last for last in texts[i].last if last >= 0]
            start += len(texts[i].tokens)
        found[at : at + len(picked)] = states[picked]
        at += len(picked)
    return found


Depths = Iterator[tuple[int, torch.Tensor]]


def _all_at_once(states: Depths, labels: np.ndarray, classes: list[int], folder: Path) -> dict[str, Any]:
    """Seconds of our fits; the answers are left in the folder, for comparison."""
    seconds, steps, still_open = 0.0, 0, 0
    for depth, here in states:
        started = time.process_time()
        probes = fit_logistic(here[None], labels, classes, l2=L2, tolerance=TOLERANCE, most_steps=MOST_STEPS)
        seconds += time.process_time() - started
        steps += probes.steps
        still_open += int((~probes.converged).sum())
        answers = [logs[0].argmax(1).numpy() for logs in probes.log_probabilities(here[None], mixed=False)]
        np.save(folder / f"answers-{depth}.npy", np.stack(answers))
        logs = probes.log_probabilities(here[None], mixed=False)
        losses = [
            -float(of_task[0, row >= 0, row[row >= 0]].sum())
            for of_task, row in zip(logs, labels, strict=True)
        ]
        ends = np.cumsum(classes)[:-1]
        squares = probes.weights[0].square().sum(0).numpy()
        np.save(
            folder / f"objectives-{depth}.npy",
            np.array(losses) + L2 / 2 * np.array([part.sum() for part in np.split(squares, ends)]),
        )
    return {"seconds": seconds, "steps": steps, "open": still_open}


def _one_at_a_time(states: Depths, labels: np.ndarray, classes: list[int], folder: Path) -> dict[str, Any]:
    """Seconds of scikit-learn's fits, and how often they give the answers that ours gave."""
    seconds, still_open, same, ratios = 0.0, 0, [], []
    for depth, here in states:
        ours = np.load(folder / f"answers-{depth}.npy")
        objectives = np.load(folder / f"objectives-{depth}.npy")
        for task, row in enumerate(labels):
            kept = row >= 0
            started = time.process_time()
            inputs = StandardScaler().fit_transform(here.numpy())
            theirs = LogisticRegression(C=1 / L2, tol=TOLERANCE, max_iter=MOST_STEPS)
            theirs.fit(inputs[kept], row[kept])
            seconds += time.process_time() - started
            still_open += int(theirs.n_iter_.max() >= MOST_STEPS)
            same.append(float((ours[task] == theirs.predict(inputs)).mean()))
            logs = theirs.predict_log_proba(inputs[kept])
            loss = -logs[np.arange(len(logs)), row[kept]].sum() + L2 / 2 * (theirs.coef_**2).sum()
            ratios.append(float(objectives[task] / loss))
    found = {"seconds": seconds, "open": still_open, "same": float(np.mean(same))}
    return found | {"lowest": min(ratios), "highest": max(ratios)}


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(_part(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        print(f"layerscope {layerscope.__version__}, torch {torch.__version__}, one thread")
        main(*map(int, sys.argv[1:]))
