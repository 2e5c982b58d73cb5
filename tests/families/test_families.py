"""Every family of causal language models: right by whichever path, or refused by name."""

from __future__ import annotations

import pytest
import torch
import transformers

from families import configurations, page, trials

CASES = configurations.cases()
NAMED = {
    "learned positions": "gpt2",
    "rotary positions, grouped keys": "llama",
    "positions in bands": "llama, banded positions (llama 3)",
    "positions that follow the text's length": "llama, dynamic NTK positions",
    "long and short positions": "phi3, long and short positions",
    "queries scaled by position": "beam",
    "biases by distance in place of positions": "bloom",
    "rotary positions in some layers": "smollm3",
    "windows, soft caps": "gemma2",
    "windows in some layers": "qwen2, windows in some layers",
    "chunks": "llama4_text",
    "learned sinks": "gpt_oss",
    "a mask for each head": "doge, a mask for each head",
    "latent keys and values": "deepseek_v3",
    "a sparse top-k of keys": "deepseek_v32",
    "differences of two attentions": "diffllama",
    "attention of the family's own": "gptj",
    "gated attention, linear attention": "qwen3_next",
    "recurrence": "mamba2",
    "recurrence beside attention": "recurrent_gemma",
    "convolution beside attention": "lfm2",
    "keys and values of earlier layers": "gemma4_text",
    "several residual streams": "gemma3n_text",
    "streams behind the tokens": "deepseek_v4",
    "parallel residual": "gpt_neox",
    "norms behind the sum": "opt, norms behind the sum",
    "experts": "mixtral",
    "an image encoder beside it": "gemma3",
    "an encoder": "bert",
}
"""One model of every kind of attention, mask, position and cache."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _hold(name: str, *leaving_out: str) -> None:
    case = CASES[name]
    assert isinstance(case, configurations.Case)

    outcome = trials.try_case(case, leaving_out=leaving_out)

    assert outcome.wrong == []
    line = page.row(name, case.model, outcome)
    assert line in page.PAGE.read_text(encoding="utf-8").splitlines(), page.__doc__


@pytest.mark.parametrize("name", NAMED.values(), ids=NAMED)
def test_right_or_refused_by_name(name: str) -> None:
    _hold(name, "bfloat16")  # among the slow ones


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not isinstance(case, str)])
def test_every_family_is_right_or_refused_by_name(name: str) -> None:
    _hold(name)


def test_the_page_has_every_family_of_the_installed_transformers() -> None:
    text = page.PAGE.read_text(encoding="utf-8")

    shown = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}

    assert shown - {"family", "---"} == set(CASES), "python tests/families/page.py > docs/families.md"
    assert f"transformers {transformers.__version__}" in text


def test_a_kind_that_is_not_made_is_one_of_transformers_own() -> None:
    assert set(configurations.LEFT_OUT) | set(configurations.EXCEPTIONS) <= set(configurations.kinds())
