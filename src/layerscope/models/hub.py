"""The files of a hub repository: configuration, tokenizer and .safetensors weights, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from layerscope.errors import LayerscopeError
from layerscope.models.safetensors_files import INDEX, WEIGHTS, shards_of
from layerscope.results.trust import from_a_record

_SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def from_hub(name: str, revision: str | None, *, code: bool, known: bool) -> tuple[Path, str | None]:
    """The folder of a repository's files in the cache, and its commit.

    While names come from a record, only what lies in the cache is used, and only where the record tells its digest.

    Args:
        name: of the repository.
        revision: commit, branch or tag; None for the main branch.
        code: fetch Python files too.
        known: whether the digest of the files is known, and will be compared.

    Raises:
        LayerscopeError: a record names it and tells no digest; no such repository or revision, no way to it, or
            no .safetensors weights in it.
    """
    if from_a_record() and not known:
        raise LayerscopeError(
            "a record names another model on the hub, and not the sha256 of its files",
            found=name,
            expected="a folder on this machine",
            hint="ask anew with layerscope run, naming that model yourself",
        )
    folder = _fetched(name, revision, [*_SMALL, *(["*.py"] if code else [])])
    if not _there(folder / WEIGHTS):
        _fetched(name, revision, [WEIGHTS])
    if not _there(folder / WEIGHTS) and _there(folder / INDEX):
        missing = [shard for shard in shards_of(folder) if not _there(folder / shard)]
        if missing:
            _fetched(name, revision, missing)
    return folder, folder.name if _COMMIT.fullmatch(folder.name) else revision


def _there(path: Path) -> bool:
    return path.is_file()


def _fetched(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    cached_only = from_a_record()
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                local_files_only=cached_only,
            )
        )
    except Exception as error:  # the hub and the network answer with many kinds of exception
        if cached_only:
            raise _not_in_cache(name, revision) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise LayerscopeError(
            "this model cannot be fetched from the hub",
            found=f"{name}: {type(error).__name__}: {lines[0] if lines else ''}",
            expected="a folder, a .gguf file, or the name of a repository that can be reached",
            hint="check the name and the network",
        ) from error


def _not_in_cache(name: str, revision: str | None) -> LayerscopeError:
    return LayerscopeError(
        "a name in a record is not fetched from the hub",
        found=f"{name} at {revision or 'its main branch'}, which is not in the cache of this machine",
        expected="a model that lies in the cache, or one that you name",
        hint=f"the same command with --model {name}",
    )
