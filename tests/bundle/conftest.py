"""The code that makes the bundled model lives outside the package; these tests reach it by its folder."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUNDLED = ROOT / "src" / "layerscope" / "bundled"
sys.path[:0] = [str(ROOT / "bundle"), str(HERE)]


@pytest.fixture(scope="session")
def library():
    from world.documents import Library

    return Library(0)


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(BUNDLED / "model" / "tokenizer.json"))


@pytest.fixture(scope="session")
def trained_tokenizer(library):
    """The tokenizer of this code's recipe, which the one that ships may not be."""
    from tokenizer import train_tokenizer

    return train_tokenizer(library)


@pytest.fixture(scope="session")
def training_text(library, trained_tokenizer):
    """A piece of what this code's recipe trains on, with few subjects and with all."""
    from corpus import shard_documents

    shards = (
        shard_documents(library.favouring(favour), trained_tokenizer, number, seed=0, size=100_000)
        for number, favour in ((7, 0.8), (40, 0.0))
    )
    return "\n\n".join(text for documents in shards for _, text, _ in documents)


@pytest.fixture(scope="session")
def shipped():
    """The model as shipped, in float32."""
    from evaluate import load_shipped

    return load_shipped()[0]


@pytest.fixture(scope="session")
def bundled():
    return BUNDLED


@pytest.fixture(scope="session")
def prompt_rows():
    from shipped_files import rows_of

    return rows_of("prompts/world.jsonl")


@pytest.fixture(scope="session")
def pair_rows():
    from shipped_files import rows_of

    return rows_of("prompts/world-pairs.jsonl")
