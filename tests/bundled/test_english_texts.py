"""The bundled English prompts and passages keep every promise made about them.

What can be seen in the text alone is checked always. What depends on tokens is checked with GPT-2's
tokenizer where its files lie beside the repository, and skipped, saying so, where they do not.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "src" / "layerscope" / "bundled"
TOKENIZER = ROOT.parent / "shared" / "data" / "tokenizers" / "gpt2"

NON_ENGLISH = "non-English regurgitation"
PLAIN_ENGLISH = "plain-English regurgitation"
RECALL = "recall"
INVENTED = "invented"
REGURGITATION = {NON_ENGLISH, PLAIN_ENGLISH}

FIELDS = {"id", "category", "prompt", "subject", "answer"}
LONG_TOKENS = 1200
SHORT_TOKENS = (80, 250)


def read(folder: str, name: str) -> list[dict[str, str]]:
    text = (BUNDLED / folder / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


ENGLISH = read("prompts", "english.jsonl")
PAIRS = read("prompts", "english-pairs.jsonl")
MADE_UP = read("prompts", "english-invented.jsonl")
ANSWERED = ENGLISH + PAIRS
PROMPTS = ANSWERED + MADE_UP
PASSAGES = read("passages", "english.jsonl")
LONG = [p for p in PASSAGES if p["id"].startswith("en-long-")]
SHORT = [p for p in PASSAGES if p["id"].startswith("en-short-")]


def by_id(items: list[dict[str, str]]) -> dict[str, object]:
    """Arguments for parametrize: one case an item, named by the item's id."""
    return {"argvalues": items, "ids": [item["id"] for item in items]}


def pairs() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for item in PAIRS:
        found.setdefault(item["pair"], []).append(item)
    return found


class Encoder:
    """GPT-2's tokens, and where in the text each of them starts and ends."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(start, end) for start, end in encoded["offset_mapping"]]

    def span(self, prompt: str, subject: str) -> tuple[int, int, int]:
        """The subject's first and last token, and the prompt's number of tokens.

        Fails unless the subject begins and ends where tokens do; a space that belongs to the
        subject's first token may stay outside of the subject.
        """
        offsets = self.offsets(prompt)
        start = prompt.index(subject)
        end = start + len(subject)
        starts = {start}
        if start > 0 and prompt[start - 1] == " ":
            starts.add(start - 1)
        first = [i for i, (left, _) in enumerate(offsets) if left in starts]
        last = [i for i, (_, right) in enumerate(offsets) if right == end]
        pieces = [prompt[left:right] for left, right in offsets]
        assert len(first) == 1, f"no token starts where {subject!r} starts in {pieces}"
        assert len(last) == 1, f"no token ends where {subject!r} ends in {pieces}"
        return first[0], last[0], len(offsets)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    vocab, merges = TOKENIZER / "vocab.json", TOKENIZER / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        pytest.skip("GPT-2's tokenizer files are not in shared/data/tokenizers/gpt2 beside the repository")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.GPT2Tokenizer(vocab=str(vocab), merges=str(merges))
    # A tokenizer that failed to read its files has an empty vocabulary and says nothing.
    assert len(tokenizer) == 50257
    return Encoder(tokenizer)


# --- the prompts, as text ------------------------------------------------------------------------


def test_enough_prompts_of_each_category():
    counts = Counter(item["category"] for item in ENGLISH)
    assert set(counts) == {NON_ENGLISH, PLAIN_ENGLISH, RECALL}
    assert min(counts.values()) >= 40
    assert len(ENGLISH) >= 120


def test_invented_prompts_ask_for_no_answer():
    assert len(MADE_UP) >= 16
    assert {item["category"] for item in MADE_UP} == {INVENTED}
    assert {item["answer"] for item in MADE_UP} == {""}


def test_invented_subjects_are_all_different():
    assert len({item["subject"] for item in MADE_UP}) == len(MADE_UP)


def test_fields():
    assert all(set(item) == FIELDS for item in ENGLISH + MADE_UP)
    assert all(set(item) == FIELDS | {"pair"} for item in PAIRS)
    assert all(isinstance(value, str) for item in PROMPTS for value in item.values())


def test_ids_are_unique_across_files():
    repeated = [k for k, n in Counter(item["id"] for item in PROMPTS).items() if n > 1]
    assert repeated == []


def test_prompts_are_unique_across_files():
    repeated = [k for k, n in Counter(item["prompt"] for item in PROMPTS).items() if n > 1]
    assert repeated == []


@pytest.mark.parametrize("item", **by_id(PROMPTS))
def test_prompt_as_text(item):
    assert item["prompt"] == item["prompt"].strip()
    assert item["subject"] == item["subject"].strip() != ""
    assert item["prompt"].count(item["subject"]) == 1


@pytest.mark.parametrize("item", **by_id(ANSWERED))
def test_answer_as_text(item):
    assert item["answer"].strip() != ""
    assert item["answer"] == item["answer"].rstrip()


# --- the prompts, as tokens ----------------------------------------------------------------------


@pytest.mark.parametrize("item", **by_id(PROMPTS))
def test_subject_is_whole_tokens_away_from_both_ends(encoder, item):
    first, last, length = encoder.span(item["prompt"], item["subject"])
    assert 0 < first <= last < length - 1


@pytest.mark.parametrize("item", **by_id([p for p in ANSWERED if p["category"] in REGURGITATION]))
def test_regurgitation_noises_exactly_one_token(encoder, item):
    first, last, _ = encoder.span(item["prompt"], item["subject"])
    assert first == last


@pytest.mark.parametrize("item", **by_id(ANSWERED))
def test_answer_is_the_one_token_that_continues_the_prompt(encoder, item):
    answer = encoder.ids(item["answer"])
    assert len(answer) == 1
    assert encoder.ids(item["prompt"] + item["answer"]) == encoder.ids(item["prompt"]) + answer


# --- the matched pairs ---------------------------------------------------------------------------


def test_enough_pairs():
    assert len(pairs()) >= 40


def test_both_kinds_of_regurgitation_are_paired():
    counts = Counter(item["category"] for item in PAIRS)
    assert counts[NON_ENGLISH] >= 10
    assert counts[PLAIN_ENGLISH] >= 10


@pytest.mark.parametrize("name", pairs())
def test_pair_is_one_regurgitation_and_one_recall(name):
    categories = [item["category"] for item in pairs()[name]]
    assert len(categories) == 2
    assert categories.count(RECALL) == 1
    assert len(REGURGITATION & set(categories)) == 1


@pytest.mark.parametrize("name", pairs())
def test_pair_is_matched_in_tokens(encoder, name):
    shapes = []
    for item in pairs()[name]:
        first, last, length = encoder.span(item["prompt"], item["subject"])
        shapes.append({"tokens": length, "subject": last - first + 1, "distance": length - 1 - last})
    assert shapes[0] == shapes[1]


# --- the passages --------------------------------------------------------------------------------


def test_number_of_passages():
    assert len(LONG) == 12
    assert len(SHORT) == 30
    assert len(LONG) + len(SHORT) == len(PASSAGES)


def test_passage_fields():
    assert all(set(item) == {"id", "genre", "text"} for item in PASSAGES)


def test_passage_ids_and_texts_are_unique():
    assert len({item["id"] for item in PASSAGES}) == len(PASSAGES)
    assert len({item["text"] for item in PASSAGES}) == len(PASSAGES)


def test_a_dozen_genres():
    assert len({item["genre"] for item in PASSAGES}) >= 12
    assert len({item["genre"] for item in LONG}) == len(LONG)


@pytest.mark.parametrize("item", **by_id(PASSAGES))
def test_passage_does_not_start_or_end_in_white_space(item):
    assert item["text"] == item["text"].strip() != ""


@pytest.mark.parametrize("item", **by_id([p for p in PASSAGES if p["genre"] != "code with comments"]))
def test_passage_is_not_padded_with_repeated_lines(item):
    # Headers of messages and names of speakers come back; long lines of prose must not.
    lines = [line for line in item["text"].split("\n") if len(line) > 60]
    assert [line for line, n in Counter(lines).items() if n > 1] == []


@pytest.mark.parametrize("item", **by_id(LONG))
def test_long_passage_is_long(encoder, item):
    assert len(encoder.ids(item["text"])) >= LONG_TOKENS


@pytest.mark.parametrize("item", **by_id(SHORT))
def test_short_passage_is_short(encoder, item):
    low, high = SHORT_TOKENS
    assert low <= len(encoder.ids(item["text"])) <= high
