"""Syntax probes at all depths and tasks of English EWT: all at once, and by scikit-learn one at a time.

    python benchmarks/probes.py                 a GPT-2-small-shaped model, 20,000 words of EWT's train part
    python benchmarks/probes.py 200000          all of it
    python benchmarks/probes.py 5000 4          fewer words, and a model of 4 layers

The model has the shape of GPT-2 small and random weights: the time of a fit depends on the shape, and on how
plainly labels can be read, which is less here than in a trained model. Both sides solve the same problems to the
same tolerance, on one thread; scikit-learn is timed on two depths and scaled to all (it takes hours).
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import GPT2Config, GPT2LMHeadModel

import layerscope
from layerscope.maths.probes import fit_logistic
from layerscope.models.load import load_model
from layerscope.runs.state_cache import StateCache, groups
from layerscope.text.tokenised_words import TokenisedSentence, tokenise_sentence
from layerscope.text.treebanks import load_treebank

SHARED = Path(__file__).parents[2] / "shared" / "data"
L2, TOLERANCE, FEWEST = 10.0, 1e-3, 10
TIMED_DEPTHS = 2


def main(words: int = 20_000, layers: int = 12) -> None:
    torch.set_num_threads(1)
    ewt = SHARED / "treebanks" / "ewt" / "en_ewt-ud-train.conllu"
    model_folder = SHARED / "models" / "english-12l"
    if not (ewt.is_file() and model_folder.is_dir()):
        sys.exit("this benchmark reads ../shared/data, which is not here")
    tokenizer = load_model(str(model_folder)).tokenizer
    config = GPT2Config(vocab_size=len(tokenizer), n_layer=layers, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    model = load_model(GPT2LMHeadModel(config), tokenizer=tokenizer)
    texts, labels, classes = _rows(tokenizer, ewt, words)
    print(f"{model.facts.n_parameters / 1e6:.0f} M parameters, {labels.shape[1]} words, classes {classes}")
    with tempfile.TemporaryDirectory() as folder:
        cache = StateCache(model, folder=Path(folder), bound=10**12)
        cut = list(groups([len(text.tokens) for text in texts]))
        started = time.process_time()
        for group in cut:
            cache.states([texts[i].tokens.ids for i in group], 0)
        print(f"reading all depths once: {time.process_time() - started:.1f} s")
        ours, theirs = 0.0, 0.0
        for depth in range(layers + 1):
            states = _states(cache, texts, cut, depth)
            started = time.process_time()
            probes = fit_logistic(states[None], labels, classes, l2=L2, tolerance=TOLERANCE, most_steps=300)
            ours += time.process_time() - started
            if depth < TIMED_DEPTHS:
                theirs += _one_at_a_time(states.numpy(), labels, probes)
    theirs *= (layers + 1) / TIMED_DEPTHS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"all {layers + 1} depths x {len(classes)} tasks at once: {ours:.1f} s, peak {peak / 1e6:.0f} MB")
    print(f"scikit-learn, one probe at a time: {theirs:.1f} s")
    print(f"ratio scikit-learn / all at once: {theirs / ours:.2f}")


def _rows(tokenizer: object, ewt: Path, words: int) -> tuple[list[TokenisedSentence], np.ndarray, list[int]]:
    texts, held = [], 0
    for sentence in load_treebank(ewt):
        texts.append(tokenise_sentence(tokenizer, sentence, longest=256))
        held += len(sentence.spans)
        if held >= words:
            break
    rows, classes = [], []
    for field in ("upos", "xpos", "deprel"):
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
    return texts, np.array(rows), classes


def _states(cache: StateCache, texts: list[TokenisedSentence], cut: list[range], depth: int) -> torch.Tensor:
    parts = []
    for group in cut:
        states, start, rows = cache.states([texts[i].tokens.ids for i in group], depth), 0, []
        for i in group:
            rows += [start + last for last in texts[i].last if last >= 0]
            start += len(texts[i].tokens)
        parts.append(states[rows])
    return torch.cat(parts)


def _one_at_a_time(states: np.ndarray, labels: np.ndarray, probes: object) -> float:
    """Seconds of scikit-learn's fits; they must agree with ours."""
    seconds = 0.0
    logs = list(probes.log_probabilities(torch.tensor(states)[None], mixed=False))
    for task, row in enumerate(labels):
        kept = row >= 0
        started = time.process_time()
        inputs = StandardScaler().fit_transform(states)
        theirs = LogisticRegression(C=1 / L2, tol=TOLERANCE, max_iter=300).fit(inputs[kept], row[kept])
        seconds += time.process_time() - started
        agree = (logs[task][0].argmax(1).numpy() == theirs.predict(inputs)).mean()
        print(f"  task {task}: the same answer about {agree:.1%} of words")
    return seconds


if __name__ == "__main__":
    print(f"layerscope {layerscope.__version__}, torch {torch.__version__}, one thread")
    main(*map(int, sys.argv[1:]))
