"""Does the model know what it was taught? Top-1 checks shared by training, choosing prompts and the card."""

import random
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from world.documents import Library
from world.facts import Fact
from world.strings import Memorised


def last_probabilities(
    model: GPT2LMHeadModel, prompts: Sequence[Sequence[int]], size: int = 64
) -> torch.Tensor:
    """Next-token probabilities after each prompt, in float32: [prompt, vocabulary]. Padded on the right."""
    device = model.device
    rows = []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
        for row, prompt in zip(ids, part, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        ends = torch.tensor([len(prompt) - 1 for prompt in part])
        with torch.no_grad():
            hidden = model.transformer(input_ids=ids.to(device), use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[torch.arange(len(part)), ends.to(device)])
        rows.append(logits.float().softmax(-1).cpu())
    return torch.cat(rows)


def top_one(model: GPT2LMHeadModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the first token of each answer is the model's first choice after <|endoftext|> + prompt."""
    if not pairs:
        return []
    prompts = [[0, *tokenizer.encode(prompt).ids] for prompt, _ in pairs]
    wanted = [tokenizer.encode(answer).ids[0] for _, answer in pairs]
    guesses = last_probabilities(model, prompts).argmax(-1).tolist()
    return [guess == want for guess, want in zip(guesses, wanted, strict=True)]


def fact_pairs(facts: Sequence[Fact], held_out: bool) -> list[tuple[str, str]]:
    """(prompt, answer) of each fact through each of its templates, either those held out or those taught."""
    return [
        (fact.prompt(i), " " + fact.answer)
        for fact in facts
        for i in (sorted(fact.held_out) if held_out else fact.taught)
    ]


def share(hits: Sequence[bool]) -> float:
    return round(sum(hits) / max(1, len(hits)), 4)


def lead_in_of(string: Memorised) -> str:
    """Sayings rarely stand alone in the texts; the other strings often do."""
    return "Saying: " if string.is_language else ""


def string_hits(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, text: str, lead_in: str = "", start: int = 3
) -> list[bool]:
    """Top-1 at each token of a string from its fourth on, after <|endoftext|> and a lead-in."""
    ids = [0, *tokenizer.encode(lead_in + text).ids]
    start += len(tokenizer.encode(lead_in.rstrip()).ids)
    with torch.no_grad():
        guesses = model(torch.tensor([ids], device=model.device)).logits[0].argmax(-1).tolist()
    return [guess == want for guess, want in zip(guesses[start:-1], ids[start + 1 :], strict=True)]


def quick_look(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, library: Library, count: int = 200
) -> dict[str, float]:
    """A small sample of everything, for the training log."""
    rng = random.Random("quick look")
    one_hop = [fact for fact in library.world.facts if fact.hop == 1]
    two_hop = [fact for fact in library.world.facts if fact.hop == 2]
    asked = {
        "taught": fact_pairs(one_hop, False),
        "held_out": fact_pairs(one_hop, True),
        "two_hop_held_out": fact_pairs(two_hop, True),
    }
    was_training = model.training
    model.eval()
    look = {
        name: share(top_one(model, tokenizer, rng.sample(pairs, min(count, len(pairs)))))
        for name, pairs in asked.items()
    }
    for plain in (True, False):
        hits = [
            hit
            for string in library.strings
            if string.is_language is plain
            for hit in string_hits(model, tokenizer, string.text, lead_in_of(string))
        ]
        look["plain_strings" if plain else "other_strings"] = share(hits)
    model.train(was_training)
    return look


def echo_score(model: GPT2LMHeadModel, length: int = 30, rows: int = 8) -> dict[str, float]:
    """Loss on random tokens read for the first and for the second time, and the best head's attention to
    what followed last time."""
    generator = torch.Generator().manual_seed(0)
    once = torch.randint(1, model.config.vocab_size, (rows, length), generator=generator)
    ids = torch.cat([torch.zeros(rows, 1, dtype=torch.long), once, once], dim=1).to(model.device)
    with torch.no_grad():
        out = model(ids, output_attentions=True, use_cache=False)
    loss = -out.logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    queries = torch.arange(length + 2, 2 * length)
    best = max(pattern[:, :, queries, queries - length + 1].mean((0, 2)).max() for pattern in out.attentions)
    return {
        "first": round(loss[:, :length].mean().item(), 3),
        "second": round(loss[:, length + 1 :].mean().item(), 3),
        "best_head": round(best.item(), 3),
    }
