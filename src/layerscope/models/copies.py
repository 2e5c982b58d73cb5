"""Float32 weights kept in the user's cache, so that all processes on a machine hold one copy of them.

Float32 weights in a .safetensors file are mapped: processes share its pages. Weights in half precision, or in a
GGUF file, are turned into float32 when they are loaded, and each process would hold its own (and read a GGUF
file's quantised numbers and vocabulary for half a minute). So the first to load them writes them down once, as a
checkpoint like any other, and loads that; whoever comes later finds it.

A copy is used only where it was tried: the model that transformers builds from it has the same configuration, the
same tensors bit for bit, and (of a GGUF file) the same tokenizer, as the one that it builds from the original. A
copy is kept for what decides it: the digest of the original's files, and the versions of what reads them. It is
read back by its checksum, and one that is damaged is made anew. Where none can be kept, all is as without.

Environment: LAYERSCOPE_COPIES is the folder, or `off`; LAYERSCOPE_COPIES_GB is its bound (16).
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from layerscope.errors import LayerscopeError
from layerscope.models.alike import Built, difference
from layerscope.models.memory import own_bytes, weight_bytes
from layerscope.models.places import Place
from layerscope.models.safetensors_files import WEIGHTS, stored_tensors
from layerscope.results import remembered
from layerscope.results.bounded import allowed_bytes, cache_folder, make_room, remove
from layerscope.results.record import digest

_FORMAT = 1
_FOLDER, _BOUND, _DEFAULT_GB = "LAYERSCOPE_COPIES", "LAYERSCOPE_COPIES_GB", 16.0
_LEAST_BYTES = 64_000_000
"""Less is not worth a file: a process holds ten times as much without any model."""

_SEAL, _ALIGNED, _CHUNK = "copy.json", 64, 2**22


Build = Callable[[Place, Place], Built]
"""Builds a model from the place of its weights and the place of its tokenizer."""


def built_once(place: Place, files: str, build: Build) -> tuple[Built, str]:
    """A model in float32 whose weights are shared with other processes, where that can be.

    Args:
        place: the original.
        files: digest of its files.
        build: builds it.

    Returns:
        The model, and why its weights are not shared; empty where they are, or where nothing would be gained.
    """
    copy = _copy_of(place, files)
    if copy is None or not _gains(place):
        return build(place, place), ""
    found = copy.read(build)
    if found is not None:
        return found, ""
    original = build(place, place)
    if not copy.worthwhile(original):
        return original, ""
    try:
        copy.write(original)
    except OSError as error:
        return original, f"{copy.folder.parent}: {error.strerror or error}"
    shared = copy.read(build)
    unlike = "it cannot be read back" if shared is None else difference(original, shared)
    if shared is not None and not unlike and not place.gguf and own_bytes(shared.module):
        unlike = "its weights are put together as they are loaded"
    if shared is None or unlike:
        copy.give_up(unlike)
        return original, ""
    return shared, ""


def _gains(place: Place) -> bool:
    """Whether loading turns numbers into others: float32 in .safetensors files is mapped as it is."""
    return place.gguf is not None or any(
        tensor.floating and tensor.dtype != "F32" for tensor in stored_tensors(place.folder)
    )


def _copy_of(place: Place, files: str) -> _Copy | None:
    folder = cache_folder("copies", _FOLDER)
    about = [
        _FORMAT,
        files,
        *map(_version, ("transformers", "tokenizers", "gguf" if place.gguf else "torch")),
    ]
    if folder is None or remembered.recalled("uncopied", about) is not None:
        return None
    return _Copy(place, folder / digest(about)[:32], about)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class _Copy:
    """The copy of one original, which may not exist yet.

    Attributes:
        original: what it is of.
        folder: where it lies.
        about: what decides it.
    """

    original: Place
    folder: Path
    about: list[Any]

    def read(self, build: Build) -> Built | None:
        """The model of the copy; None where there is none. A damaged one is removed."""
        if not self.folder.is_dir():
            return None
        try:
            seal = json.loads((self.folder / _SEAL).read_text(encoding="utf-8"))
            whole = _checksum(self.folder / WEIGHTS) == seal["checksum"]
            dequantised = seal["dequantised"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            self._remove()
            return None
        with suppress(OSError):
            os.utime(self.folder)
        here = Place(self.original.source, self.folder, revision=self.original.revision)
        try:
            built = build(here, here if self.original.gguf else self.original)
        except LayerscopeError:  # another process has just removed it, or it cannot be read back
            self._remove()
            return None
        built.module.config._name_or_path = str(self.original.folder)
        return replace(built, dequantised=dequantised)

    def worthwhile(self, built: Built) -> bool:
        """Whether these are plain float32 weights, and many enough."""
        module = built.module
        plain = all(tensor.dtype == torch.float32 for tensor in module.parameters())
        quantised = getattr(module, "hf_quantizer", None) is not None
        return plain and not quantised and weight_bytes(module) >= _LEAST_BYTES

    def write(self, built: Built) -> None:
        """Write a model down as a checkpoint; it appears whole or not at all.

        Raises:
            OSError: there is no room, or nothing can be written there.
        """
        size, cache = weight_bytes(built.module), self.folder.parent
        bound = allowed_bytes(_BOUND, _DEFAULT_GB)
        if size > bound:
            raise OSError(f"{size / 1e9:.2g} GB, and no more than {bound / 1e9:g} are allowed ({_BOUND})")
        if not make_room(cache, size, bound, "[!.]*"):
            raise OSError("nothing can be written there")
        if shutil.disk_usage(cache).free < 2 * size:
            raise OSError(f"the disk has less than {2 * size / 1e9:.2g} GB left")
        temporary = cache / f".{self.folder.name}.{os.getpid()}.tmp"
        try:
            temporary.mkdir(exist_ok=True)
            built.module.save_pretrained(temporary, max_shard_size="1000000GB")
            if self.original.gguf:
                built.tokenizer.save_pretrained(temporary)
            _align(temporary / WEIGHTS)
            seal = {"checksum": _checksum(temporary / WEIGHTS), "dequantised": built.dequantised}
            (temporary / _SEAL).write_text(json.dumps(seal), encoding="utf-8")
            with suppress(OSError):  # another process was first
                temporary.rename(self.folder)
        except OSError:
            raise
        except Exception as error:  # safetensors tells a full disk by an exception of its own
            raise OSError(str(error)) from error
        finally:
            with suppress(OSError):
                remove(temporary)

    def give_up(self, why: str) -> None:
        """Remove the copy, and do not try again."""
        self._remove()
        remembered.keep("uncopied", self.about, why)

    def _remove(self) -> None:
        with suppress(OSError):
            remove(self.folder)


# -- the file --------------------------------------------------------------------------------------


def _align(path: Path) -> None:
    """Let the numbers in a .safetensors file begin where torch would put them in memory, at a multiple of 64 bytes.

    Products may differ in their last bit by where a matrix begins, unless MKL is told otherwise.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        missing = -(8 + length) % _ALIGNED
        if not missing:
            return
        aligned = path.with_suffix(".aligned")
        with aligned.open("wb") as out:
            out.write((length + missing).to_bytes(8, "little") + file.read(length) + b" " * missing)
            shutil.copyfileobj(file, out, _CHUNK)
    aligned.replace(path)


def _checksum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
        return [file.tell(), found]
