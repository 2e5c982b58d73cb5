"""Small tokenizers of the four kinds that differ in blanks, bytes and BOS, trained on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

SENTENCES = [
    "The Eiffel Tower is located in the city of Paris.",
    "The Colosseum is located in the city of Rome.",
    "Elon Musk was born in South Africa, and the Eiffel Tower was not.",
    "From Wikipedia, the free encyclopedia: Paris is the capital of France.",
] * 4
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def train(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def byte_level(*, trim_offsets: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return train(tokenizer, ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet())


def with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Llama's byte tokens, <0x00> to <0xFF>, put behind the trained vocabulary."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(content))


def llama_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")],
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # Trained word by word, or whole sentences would become tokens; used without, as Llama's is.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer = with_bytes(train(tokenizer, ["<unk>", "<s>", "</s>"], ["▁"]))
    content = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def puts_first(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """The tokenizer, which from now on puts its token 0 before every text by itself."""
    template = processors.TemplateProcessing(f"{token} $A", special_tokens=[(token, 0)])
    tokenizer.post_processor = processors.Sequence([tokenizer.post_processor, template])
    return tokenizer


GPT2 = PreTrainedTokenizerFast(
    tokenizer_object=puts_first(byte_level(trim_offsets=False), "<|endoftext|>"),
    bos_token="<|endoftext|>",
    eos_token="<|endoftext|>",
    unk_token="<|endoftext|>",
)
NEOX = PreTrainedTokenizerFast(tokenizer_object=byte_level(trim_offsets=True))
LLAMA = PreTrainedTokenizerFast(
    tokenizer_object=llama_like(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
)
SMALL = {"gpt2": GPT2, "neox": NEOX, "llama": LLAMA}


@pytest.fixture
def gpt2() -> PreTrainedTokenizerFast:
    """Offsets with the leading blank; puts <|endoftext|> first by itself."""
    return GPT2


@pytest.fixture
def silent() -> PreTrainedTokenizerFast:
    """Defines BOS and never adds it, as the real GPT-2's."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(trim_offsets=False),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


@pytest.fixture
def neox() -> PreTrainedTokenizerFast:
    """Offsets without the leading blank; defines no BOS."""
    return NEOX


@pytest.fixture
def llama() -> PreTrainedTokenizerFast:
    """A blank put before every text, bytes for what is unknown, BOS added by its template."""
    return LLAMA


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Each of the three."""
    return SMALL[request.param]


@pytest.fixture
def python_only() -> ByT5Tokenizer:
    """A tokenizer without offsets."""
    return ByT5Tokenizer()


@pytest.fixture
def compatibility() -> PreTrainedTokenizerFast:
    """A tokenizer that rewrites ½ as 1⁄2 before it splits."""
    tokenizer = byte_level(trim_offsets=False)
    tokenizer.normalizer = normalizers.NFKC()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture
def chatty() -> PreTrainedTokenizerFast:
    """The Llama-like one with a chat template that writes BOS itself."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=llama_like(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = "<s>user: {{ messages[0]['content'] | trim }}</s>{{ '\\nmodel:\\n' }}"
    return tokenizer


@pytest.fixture
def data() -> Path:
    """Real models and tokenizers, which are no part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the real models and tokenizers in ../shared/data are not here")
    return DATA


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Put text or bytes into a file of a temporary folder."""

    def write(content: str | bytes, name: str = "facts.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write
