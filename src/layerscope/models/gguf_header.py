"""What the header of a GGUF file says: of the whole, and of each tensor in it.

transformers reads the file itself; its own account of the header refuses types of numbers that it can read, and
the one of the package gguf takes seconds over a large vocabulary.

Source: the GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as the header describes it.

    Attributes:
        name: as the file calls it.
        entries: how many numbers it holds.
        kind: name of their type.
        end: where it ends, in bytes from the beginning of the tensors.
    """

    name: str
    entries: int
    kind: str
    end: int


@dataclass(frozen=True)
class GgufHeader:
    """A GGUF file but for its tensors.

    Attributes:
        architecture: as the file calls it.
        shards: how many files hold the whole model.
        tensors: in the file's order.
        size: bytes that the whole file must have.
    """

    architecture: str
    shards: int
    tensors: tuple[GgufTensor, ...]
    size: int


def read_header(path: Path) -> GgufHeader:
    """The header of a file.

    Raises:
        ValueError, struct.error, UnicodeDecodeError, KeyError: no GGUF file, or a damaged one.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Reader(content).header()


class _Reader:
    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.place = content, 0

    def header(self) -> GgufHeader:
        if self.content[:4] != b"GGUF":
            raise ValueError(f"it begins with {self.content[:4]!r}, not with b'GGUF'")
        self.place = 4
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} of the format")
        n_tensors, n_values = self._numbers("QQ")
        values = dict(self._named_value() for _ in range(n_values))
        tensors = tuple(self._tensor() for _ in range(n_tensors))
        step = int(values.get("general.alignment", 32))
        begin = -(-self.place // step) * step
        size = begin + max((tensor.end for tensor in tensors), default=0)
        shards = int(values.get("split.count", 1))
        return GgufHeader(str(values["general.architecture"]), shards, tensors, size)

    def _tensor(self) -> GgufTensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string()
        (n_sides,) = self._numbers("I")
        entries = prod(self._numbers(f"{n_sides}Q"))
        number, offset = self._numbers("IQ")
        kind = GGMLQuantizationType(number)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        return GgufTensor(name, entries, kind.name, offset + entries // per_block * block_bytes)

    def _named_value(self) -> tuple[str, Any]:
        name = self._string()
        (kind,) = self._numbers("I")
        return name, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._numbers(_FIXED[kind])[0]
        inner, length = self._numbers("IQ")
        if inner in _FIXED:  # long lists of numbers are passed over
            self._skip(length * struct.calcsize("<" + _FIXED[inner]))
        else:
            for _ in range(length):
                self._value(inner)
        return None

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        start = self.place
        self._skip(length)
        return self.content[start : self.place].decode()

    def _skip(self, n_bytes: int) -> None:
        self.place += n_bytes
        if self.place > len(self.content):
            raise ValueError(f"the file ends within its header, after {len(self.content):,} bytes")

    def _numbers(self, kinds: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + kinds, self.content, self.place)
        self.place += struct.calcsize("<" + kinds)
        return found
