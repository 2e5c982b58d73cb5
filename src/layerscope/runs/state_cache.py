"""Residual states of texts, kept on disk, so that no experiment reads them twice.

Probes need the states of the same texts at every depth, one depth at a time, for many tasks and in several
experiments. All of them in memory would be n_layers + 1 times a corpus; reading the model anew for each
depth would be n_layers + 1 times its forward passes. So a group of texts is read once, all depths go to one
file, and one depth of it is one stretch of that file.

What is kept is exactly what a forward pass gave, in the model's own dtype. A group is keyed by everything
that decides these bytes: weights, configuration, device, dtype, number of threads, and the token ids of the
whole group in order, because rows that are read in another company may differ in their last bit. So a result
has the same bytes whether the cache was full, empty or switched off.

The cache lies in the user's cache folder, outside of any run, as several runs read it; it is bounded (the
files used longest ago go first) and may be deleted at any time. A process that is killed leaves either a
whole file or a temporary one that the next writer removes. A file that is damaged is noticed by its checksums
and read anew. Where the cache cannot be written, states are read from the model whenever they are asked for.

Environment: LAYERSCOPE_STATE_CACHE is the folder, or `off`; LAYERSCOPE_STATE_CACHE_GB is its bound (8);
LAYERSCOPE_CACHE is the folder above it and all others, or `off`.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerscope.models.hooks import at_depth, has_hooks
from layerscope.models.layered import LayeredModel
from layerscope.results.bounded import allowed_bytes, cache_folder, make_room
from layerscope.runs.unit_states import equal_length_batches

_FORMAT = 1
_FOLDER, _BOUND = "LAYERSCOPE_STATE_CACHE", "LAYERSCOPE_STATE_CACHE_GB"
_DEFAULT_GB = 8.0
_CHECKSUM = 4

Texts = Sequence[Sequence[int]]
"""Token ids of each text of a group, in order."""


class StateCache:
    """The states of one model, read through the cache.

    Made anew for each piece of work: it takes the model's weights to be what they are now.

    Attributes:
        folder: where files lie; None where nothing is kept.
        bound: most bytes that the folder may hold.
    """

    def __init__(
        self,
        model: LayeredModel,
        *,
        tokens_per_pass: int = 2048,
        folder: Path | str | None = "default",
        bound: int | None = None,
    ) -> None:
        """The cache of a model.

        Args:
            model: whose states.
            tokens_per_pass: bound on rows times tokens of one forward pass.
            folder: another folder than the environment says; None keeps nothing.
            bound: other most bytes than the environment says.
        """
        self.model, self.tokens_per_pass = model, tokens_per_pass
        if folder == "default":
            folder = cache_folder("states", _FOLDER)
        self.folder = None if folder is None else Path(folder)
        self.bound = allowed_bytes(_BOUND, _DEFAULT_GB) if bound is None else bound
        if has_hooks(model.module):
            self.folder = None  # somebody watches or edits this model: its states are not its weights' alone
        self.dtype, weights = _stream_of(model)
        self._about = _about(model, weights, tokens_per_pass)

    def states(self, texts: Texts, depth: int) -> Float[Tensor, "token width"]:
        """The residual stream of every token of a group of texts at one depth, text after text.

        In the model's dtype, on the CPU. The whole group is read (all depths) where it is not yet kept.

        Args:
            texts: token ids of each text; a group of at most some thousand tokens, see `groups`.
            depth: blocks already applied, 0 .. n_layers.
        """
        if self.folder is None:
            return _read_one_depth(self, texts, depth)
        shape = (self.model.n_layers + 1, _tokens(texts), self.model.facts.width)
        entry = _Entry(self.folder / f"{self._key(texts)}.states", shape, self.dtype)
        found = entry.read(depth)
        if found is None and entry.size <= self.bound and self._has_room(entry.size):
            with suppress(OSError):
                _write(self, texts, entry)
                found = entry.read(depth)
        return _read_one_depth(self, texts, depth) if found is None else found

    def picked(
        self, texts: Texts, depths: Sequence[int], rows: Int[np.ndarray, " row"]
    ) -> Float[Tensor, "depth row width"]:
        """States of some tokens of any number of texts, in float32 or finer, on the CPU.

        Texts are read in their `groups`, one after another, and nothing but the tokens asked for is held.

        Args:
            texts: token ids of each text.
            depths: blocks already applied, each 0 .. n_layers.
            rows: numbers of tokens, all texts laid one after another; in any order.
        """
        wide = torch.promote_types(torch.float32, self.dtype)
        found = torch.empty(len(depths), len(rows), self.model.facts.width, dtype=wide)
        start = 0
        for group in groups([len(ids) for ids in texts]):
            those = [texts[text] for text in group]
            stop = start + _tokens(those)
            here = np.flatnonzero((rows >= start) & (rows < stop))
            inside, here_too = torch.from_numpy(rows[here] - start), torch.from_numpy(here)
            for place, depth in enumerate(depths if len(here) else ()):
                found[place, here_too] = self.states(those, depth)[inside].to(wide)
            start = stop
        return found

    def _key(self, texts: Texts) -> str:
        summary = hashlib.sha256(self._about.encode())
        for ids in texts:
            summary.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
        return summary.hexdigest()[:40]

    def _has_room(self, wanted: int) -> bool:
        assert self.folder is not None
        return make_room(self.folder, wanted, self.bound, "*.states")


def groups(lengths: Sequence[int], *, tokens: int = 4096) -> Iterator[range]:
    """Stretches of texts, in order, of at most `tokens` tokens each (or of one longer text).

    Every experiment that cuts the same texts in this way asks for the same groups, and shares them.
    """
    start, held = 0, 0
    for index, length in enumerate(lengths):
        if index > start and held + length > tokens:
            yield range(start, index)
            start, held = index, 0
        held += length
    if start < len(lengths):
        yield range(start, len(lengths))


# -- one file -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """The file of one group: depth after depth, then a checksum for each depth."""

    path: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def stretch(self) -> int:
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def size(self) -> int:
        return self.shape[0] * (self.stretch + _CHECKSUM)

    def read(self, depth: int) -> Tensor | None:
        """One depth; None where there is no such file, or a damaged one, which is removed."""
        try:
            with self.path.open("rb") as file:
                file.seek(depth * self.stretch)
                content = bytearray(file.read(self.stretch))
                file.seek(self.shape[0] * self.stretch + depth * _CHECKSUM)
                checksum = file.read(_CHECKSUM)
            if len(content) != self.stretch or zlib.crc32(content).to_bytes(_CHECKSUM, "little") != checksum:
                self.path.unlink(missing_ok=True)
                return None
            os.utime(self.path)
        except OSError:
            return None
        return torch.frombuffer(content, dtype=self.dtype).reshape(self.shape[1:])


def _write(cache: StateCache, texts: Texts, entry: _Entry) -> None:
    """Read a group from the model into its file; nothing but one pass is held in memory."""
    temporary = entry.path.with_name(f".{entry.path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w+b") as file:
            file.truncate(entry.size)
        # numpy has no bfloat16: bits are kept as they are.
        bits = np.dtype(f"i{entry.dtype.itemsize}")
        as_bits = getattr(torch, bits.name)
        kept = np.memmap(temporary, dtype=bits, mode="r+", shape=entry.shape)
        for depth, rows, states in _passes(cache, texts, range(entry.shape[0])):
            kept[depth, rows] = states.view(as_bits).numpy()
        kept.flush()
        checksums = b"".join(zlib.crc32(stretch).to_bytes(_CHECKSUM, "little") for stretch in kept)
        del kept
        with temporary.open("r+b") as file:
            file.seek(entry.shape[0] * entry.stretch)
            file.write(checksums)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, entry.path)
    finally:
        temporary.unlink(missing_ok=True)


# -- from the model -----------------------------------------------------------------------------------


def _read_one_depth(cache: StateCache, texts: Texts, depth: int) -> Tensor:
    states = torch.empty(_tokens(texts), cache.model.facts.width, dtype=cache.dtype)
    for _, rows, part in _passes(cache, texts, [depth]):
        states[torch.from_numpy(rows)] = part
    return states


def _passes(
    cache: StateCache, texts: Texts, depths: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, Tensor]]:
    """Depth, rows of the group, and their states, pass by pass: texts of equal length together, never padded."""
    starts = np.cumsum([0, *map(len, texts)])
    for batch in equal_length_batches([len(ids) for ids in texts], cache.tokens_per_pass):
        seen: dict[int, Tensor] = {}
        ids = torch.tensor([list(texts[index]) for index in batch])
        with at_depth(cache.model, {depth: _keeper(seen, depth, cache.dtype) for depth in depths}):
            cache.model.logits(ids, last=True)
        rows = np.concatenate([np.arange(starts[index], starts[index + 1]) for index in batch])
        for depth in depths:
            yield depth, rows, seen[depth]


def _keeper(seen: dict[int, Tensor], depth: int, dtype: torch.dtype) -> Callable[[Tensor], None]:
    def keep(stream: Tensor) -> None:
        seen[depth] = stream.detach().reshape(-1, stream.shape[-1]).to("cpu", dtype, copy=True).contiguous()

    return keep


# -- keys and places ----------------------------------------------------------------------------------


def _tokens(texts: Texts) -> int:
    return sum(map(len, texts))


def _about(model: LayeredModel, weights: str, tokens_per_pass: int) -> str:
    parts = (_FORMAT, weights, model.config_digest(), model.device, model.facts.dtype, tokens_per_pass)
    arithmetic = (torch.get_num_threads(), torch.__version__, os.environ.get("MKL_CBWR", ""))
    return repr([str(part) for part in (*parts, *arithmetic)])


_KNOWN: WeakKeyDictionary[LayeredModel, tuple[str, torch.dtype, str]] = WeakKeyDictionary()


def _stream_of(model: LayeredModel) -> tuple[torch.dtype, str]:
    """The dtype of the residual stream, the finest over depths, and the digest of the weights.

    Known as long as no weight has moved, been edited in place, or changed its sum: the digest of a large
    model takes seconds, and every piece of work asks for it.
    """
    fingerprint = hashlib.sha256(model.fingerprint().encode()).hexdigest()
    known = _KNOWN.get(model)
    if known is None or known[0] != fingerprint:
        known = _KNOWN[model] = (fingerprint, _stream_dtype(model), model.weights_digest())
    return known[1], known[2]


def _stream_dtype(model: LayeredModel) -> torch.dtype:
    found: list[torch.dtype] = []

    def note(stream: Tensor) -> None:
        found.append(stream.dtype)

    with at_depth(model, dict.fromkeys(range(model.n_layers + 1), note)):
        model.logits(torch.zeros((1, 1), dtype=torch.long), last=True)
    return reduce(torch.promote_types, found)
