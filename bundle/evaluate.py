"""Measures the shipped weights in float32 and writes their card: `python bundle/evaluate.py`."""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from corpus import STAGES, make_shard, shard_documents
from corpus import windows as cut
from measures import Finding, agreement, attention_findings, closing_quotes, copying
from recall import fact_pairs, lead_in_of, share, string_hits, top_one
from recipe import RECIPE, recipe_in, refuse_other
from texts import make_passages
from tokenizer import name_lengths
from tokenizers import Tokenizer
from train import MODEL_FOLDER, WORK
from transformers import GPT2LMHeadModel
from world.documents import MIXTURE, Library
from world.strings import Memorised

WEIGHTS_FILE = "model.safetensors"
TEXTS = tuple(MIXTURE)


def load_shipped(folder: Path = MODEL_FOLDER) -> tuple[GPT2LMHeadModel, Tokenizer]:
    """The model as shipped (float16), taken to float32."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def last_log_lines(log: Path) -> tuple[dict, dict]:
    """The last line about losses (with steps and tokens), and the first: what training reached."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if "loss" in line]
    return told[0], told[-1]


def corpus_counts(
    library: Library, tokenizer: Tokenizer, seed: int, sample: int = 200_000
) -> tuple[Counter, Counter]:
    """How often each string was read in training, and each token (by its text), echoes left out.

    Counted in a sample of each stage's text and scaled to the text that the stage reads.
    """
    seen, spelt, before = Counter[str](), Counter[int](), 0
    for number, stage in enumerate(STAGES):
        read = (stage.until - before) * (1 - stage.echoes)
        before = stage.until
        if not read:
            continue
        told = library.favouring(stage.favour)
        rows = list(shard_documents(told, tokenizer, 20_000 + number, seed, sample, stage.mixture))
        scale = read / sum(len(ids) for _, _, ids in rows)
        for _, text, ids in rows:
            for string in library.strings:
                seen[string.text] += text.count(string.text) * scale
            for i in ids:
                spelt[i] += scale
    return seen, Counter({tokenizer.decode([i]): n for i, n in spelt.items()})


def held_out_loss(
    model: GPT2LMHeadModel, library: Library, tokenizer: Tokenizer, seed: int, windows: int = 60
) -> dict[str, float]:
    """Loss by kind of text on a shard that training never reached."""
    tokens, kinds = cut(make_shard(library, tokenizer, 1_000_000, seed, 400_000), 512)
    order = np.random.default_rng(0).permutation(len(tokens))
    tokens, kinds = tokens[order], kinds[order]
    sums, counts = np.zeros(len(TEXTS)), np.zeros(len(TEXTS))
    for ids, kind in zip(tokens[:windows], kinds[:windows], strict=True):
        row = torch.tensor(ids.astype(np.int64))[None]
        with torch.no_grad():
            log_p = model(row).logits[0, :-1].log_softmax(-1)
        loss = -log_p.gather(1, row[0, 1:, None])[:, 0].numpy()
        sums += np.bincount(kind[1:], loss, minlength=len(TEXTS))
        counts += np.bincount(kind[1:], minlength=len(TEXTS))
    return {"all": sums.sum() / counts.sum(), **dict(zip(TEXTS, sums / np.maximum(counts, 1), strict=True))}


def _right(model: GPT2LMHeadModel, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> float | str:
    return share(top_one(model, tokenizer, pairs)) if pairs else "none"


def recall_rows(model: GPT2LMHeadModel, tokenizer: Tokenizer, library: Library) -> list[tuple]:
    """(relation, facts, top-1 through taught templates, through held-out ones), then all one-hop facts."""
    groups: dict[str, list] = {}
    for fact in library.world.facts:
        two_hop = " (two hops, never stated)" if not fact.taught else " (two hops, stated)"
        groups.setdefault(f"{fact.kind} {fact.relation}{two_hop if fact.hop == 2 else ''}", []).append(fact)
    groups["all of one hop"] = [fact for fact in library.world.facts if fact.hop == 1]
    return [
        (
            name,
            len(facts),
            *(_right(model, tokenizer, fact_pairs(facts, held)) for held in (False, True)),
        )
        for name, facts in groups.items()
    ]


def string_rows(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, strings: list[Memorised], seen: Counter
) -> list[tuple[str, int, float, float, float]]:
    """(sort, strings, top-1 of tokens, share known to the last token, exposures of the mean string)."""
    groups: dict[str, list[Memorised]] = {}
    for string in strings:
        groups.setdefault(string.sort, []).append(string)
        groups.setdefault(f"rank: {string.rank}", []).append(string)
        groups.setdefault("all plain English" if string.is_language else "all others", []).append(string)
    rows = []
    for name, group in groups.items():
        hits = [string_hits(model, tokenizer, string.text, lead_in_of(string)) for string in group]
        exposures = np.mean([seen[string.text] for string in group])
        rows.append(
            (
                name,
                len(group),
                share([hit for each in hits for hit in each]),
                share([all(each) for each in hits]),
                float(exposures),
            )
        )
    return rows


def _table(head: str, rows: list[tuple]) -> str:
    def show(value: object) -> str:
        return (
            f"{value:.3f}"
            if isinstance(value, float) and value <= 1
            else (f"{value:.0f}" if isinstance(value, float) else str(value))
        )

    lines = [f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    return "\n".join(lines + ["| " + " | ".join(show(value) for value in row) + " |" for row in rows])


def findings(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, library: Library, recall_held_out: float
) -> tuple[list[Finding], str]:
    long = [
        [0, *tokenizer.encode(row["text"]).ids]
        for row in make_passages(library, tokenizer)
        if row["id"].startswith("long-story")
    ]
    found = attention_findings(model, tokenizer, long)
    found.append(
        Finding(
            "recall through held-out templates",
            recall_held_out > 0.8,
            f"top-1 {recall_held_out:.3f}",
            "top-1 above .8 over all one-hop facts",
        )
    )
    found.insert(2, copying(model, tokenizer, library))
    near, middle, far = (agreement(model, tokenizer, distance) for distance in (0, 1, 2))
    opened, bare = closing_quotes(model, tokenizer, library)
    grammar = (
        f"- Agreement of verb with subject: {near:.3f} when the verb follows at once, {middle:.3f} over one "
        f"noun of the other number, {far:.3f} over two.\n"
        f"- Closing quotes: at the end of a clause, closing is preferred in {opened:.3f} of open quotations "
        f"and in {bare:.3f} of the same words with no quotation open."
    )
    return found, grammar


def stage_rows() -> list[tuple]:
    return [
        (each.name, f"{each.until:,}", each.window, each.blocks, each.echoes, each.favour) for each in STAGES
    ]


def write_card(folder: Path, work: Path, seed: int) -> None:
    model, tokenizer = load_shipped(folder)
    library = Library(seed)
    first, last = last_log_lines(work / "log.jsonl")
    seen, _ = corpus_counts(library, tokenizer, seed)
    recall = recall_rows(model, tokenizer, library)
    strings = string_rows(model, tokenizer, library.strings, seen)
    found, grammar = findings(model, tokenizer, library, recall[-1][3])
    losses = held_out_loss(model, library, tokenizer, seed)
    names = [name for group in library.world.subjects.values() for name in group]
    config = model.config
    notes = (Path(__file__).parent / "notes.md").read_text()
    card = f"""# The bundled model

A GPT-2 of {config.n_layer} blocks, width {config.n_embd}, {config.n_head} heads, context {
        config.n_positions
    }, \
{sum(p.numel() for p in model.parameters()):,} parameters and {
        config.vocab_size
    } tokens, trained by `bundle/train.py` on a \
small invented world. All weights and all text were made by this repository. Stored in float16; every number
below was measured in float32 from the stored weights by `bundle/evaluate.py`, which wrote this card.
Begin every text with `<|endoftext|>` (id 0): the tokenizer does not add it.

- sha256 of `{WEIGHTS_FILE}`: `{sha256_of(folder / WEIGHTS_FILE)}`
- Recipe: {RECIPE} (the number in `bundle/recipe.py`)
- World, tokenizer, data and weights seed: {seed}
- Trained for {last["step"]} steps, {last["tokens"]:,} tokens, {last["minutes"]:.0f} minutes on a CPU
- Loss (nats per token) when the log began: {first["loss"]["all"]:.2f}; over the last 50 steps: {
        last["loss"]["all"]:.3f}
- Names of subjects, in tokens (tokens: names): {name_lengths(tokenizer, names)}

## How it was trained

One run of `bundle/train.py`, from first weights to last, through these stages. An echo is a window of random
tokens in segments that come again. Where fewer blocks take part, the others are not there yet.

{_table("stage | up to tokens | window | blocks | echoes | kept for a fifth of the subjects", stage_rows())}

## Loss on text of the same world, never trained on

{_table("kind of text | nats per token", [(name, f"{value:.3f}") for name, value in losses.items()])}

## Facts: share right at first choice

For every fact two templates were held out: never read about that subject, though read about others.

{_table("relation | facts | taught templates | held-out templates", recall)}

## Strings known by heart

From the fourth token on, after `<|endoftext|>` and, for plain English, "Saying: ", as in many of the texts
trained on. "Whole": every such token right. Exposures are counted in a sample of each stage of training and
scaled to what the stage read.

{_table("strings | number | tokens right | whole | exposures each", strings)}

## Grammar

{grammar}

## Phenomena

{
        _table(
            "phenomenon | measured | number | criterion",
            [(f.name, "present" if f.present else "absent", f.number, f.criterion) for f in found],
        )
    }

{notes}"""
    (folder / "MODEL_CARD.md").write_text(card)
    print(card)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    refuse_other(recipe_in((MODEL_FOLDER / "MODEL_CARD.md").read_text()), "The model that ships")
    write_card(MODEL_FOLDER, arguments.work, arguments.seed)
