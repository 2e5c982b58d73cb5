"""Data that ships with Layerscope: a model, prompts, passages, treebanks, words, known sets of tokens."""

from __future__ import annotations

from pathlib import Path

from layerscope.errors import LayerscopeError

_HERE = Path(__file__).parent


def bundled_folder(kind: str) -> Path:
    """The folder of one kind of bundled data: "prompts", "passages", "treebanks", "words", "token_sets" or "model"."""
    return _HERE / kind


def example_folder() -> Path:
    """The package of one experiment that new ones are made from: bundled when installed, else where it is written."""
    bundled = bundled_folder("example")
    return bundled if bundled.is_dir() else _HERE.parents[2] / "examples" / "layerscope-state-growth"


def bundled_names(kind: str) -> list[str]:
    """Names of the bundled sets of one kind."""
    return sorted(path.stem for path in bundled_folder(kind).glob("*.*") if path.suffix != ".md")


def bundled_model() -> Path:
    """The folder of the bundled model.

    Raises:
        LayerscopeError: this copy of Layerscope brings none.
    """
    folder = bundled_folder("model")
    if not (folder / "config.json").is_file():
        raise LayerscopeError(
            "this copy of Layerscope brings no model",
            found=f"no config.json in {folder.name}/",
            expected="the bundled model",
            hint="name a model: --model gpt2, or --model FOLDER",
        )
    return folder
