"""What the blocks of a model are given beside the residual stream, found by trying.

A packed row of branches holds other positions than a whole run, so of every argument one must know whether it
follows the positions, and along which axis. That is seen by running a text and its beginning: the axis whose
length changes with the text's follows the positions; the mask is what the attention function was seen to add to
its scores. What fits neither (a bias on pairs of positions, an object that remembers, something made from what
earlier blocks wrote) is told by name, and branches are refused: dropped or kept whole, it would give wrong
numbers without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from layerscope.models.attention import without_repeats

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of one call of a block, by place and by name."""
Path = tuple[str | int, ...]
"""Where an argument stands: its place or its name, then places and names inside of it."""
Axes = Mapping[Path, int | None]
"""Per tensor that does not stay as it is: the axis that follows positions, or None for the mask."""

_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.Size)


class NotUnderstoodError(Exception):
    """An argument of a block that a packed row cannot be given."""


def leaves(call: Call) -> Iterator[tuple[Path, Any]]:
    """Everything that a block is given beside the residual stream, by path."""
    args, kwargs = call
    beside: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    beside.pop(0 if args else "hidden_states")
    yield from _inside(beside, ())


def _inside(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if type(value) in (tuple, list):
        value = dict(enumerate(value))
    if type(value) is dict:
        for key, entry in value.items():
            yield from _inside(entry, (*path, key))
    elif value is not None:
        yield path, value


def axes_of(whole: Call, beginning: Call, mask: Tensor | None, *, tokens: tuple[int, int]) -> Axes:
    """The axis along which each argument of one block follows the positions.

    Args:
        whole: the block's call for a text.
        beginning: its call for the beginning of the same text.
        mask: what its attention was seen to add to its scores in the first call.
        tokens: lengths of the two texts.

    Raises:
        NotUnderstoodError: an argument that cannot be cut to other positions, or a mask that is none of them.
    """
    found: dict[Path, int | None] = {}
    others = dict(leaves(beginning))
    if mask is not None:
        found = dict.fromkeys(path for path, value in leaves(whole) if is_mask(value, mask))
        if not found:
            raise NotUnderstoodError("attention adds a mask of the layer's own making to its scores")
    for path, value in leaves(whole):
        if path in found:
            continue
        if isinstance(value, Tensor):
            axis = _axis(path, value, others.get(path), tokens)
            if axis is not None:
                found[path] = axis
        elif not (isinstance(value, _PLAIN) and value == others.get(path)):
            raise NotUnderstoodError(f"{_named(path)}, a {type(value).__name__}, is not understood")
    return found


def is_mask(value: Any, mask: Tensor) -> bool:
    """Whether an argument is the mask that attention added, up to keys that are not there yet."""
    if not isinstance(value, Tensor) or value.dim() != 4 or value.dtype != mask.dtype:
        return False
    if value.shape[-1] < mask.shape[-1]:
        return False
    value = without_repeats(value[..., : mask.shape[-1]])
    return value.shape == mask.shape and torch.equal(value, mask)


def _axis(path: Path, value: Tensor, other: Any, tokens: tuple[int, int]) -> int | None:
    if not isinstance(other, Tensor) or other.dim() != value.dim():
        raise NotUnderstoodError(f"{_named(path)} is there for some lengths of text only")
    different = [axis for axis in range(value.dim()) if value.shape[axis] != other.shape[axis]]
    if not different and torch.equal(value, other):
        return None
    if len(different) == 1 and (value.shape[different[0]], other.shape[different[0]]) == tokens:
        return different[0]
    shape = ", ".join(map(str, value.shape))
    raise NotUnderstoodError(f"{_named(path)}, a tensor ({shape}) for {tokens[0]} tokens, is not understood")


def refuse_differences(before: Call, after: Call) -> None:
    """Refuse a block whose arguments change with what earlier blocks wrote.

    Raises:
        NotUnderstoodError: with the first of them.
    """
    others = dict(leaves(after))
    for path, value in leaves(before):
        if isinstance(value, Tensor) and not torch.equal(value, others.get(path, value.new_empty(0))):
            raise NotUnderstoodError(f"{_named(path)} is made from what earlier layers wrote")


def at_positions(call: Call, axes: Axes, pick: Callable[[Tensor, int], Tensor]) -> Call:
    """A block's arguments at other positions: the mask left out, what follows positions picked.

    Args:
        call: the arguments.
        axes: of `axes_of`.
        pick: takes a tensor and its axis, and gives it at the other positions.
    """

    def at(value: Any, path: Path) -> Any:
        if type(value) in (tuple, list):
            return type(value)(at(entry, (*path, place)) for place, entry in enumerate(value))
        if type(value) is dict:
            return {key: at(entry, (*path, key)) for key, entry in value.items()}
        if path not in axes:
            return value
        axis = axes[path]
        return None if axis is None else pick(value, axis)

    args, kwargs = call
    return tuple(at(value, (place,)) for place, value in enumerate(args)), {
        name: at(value, (name,)) for name, value in kwargs.items()
    }


def along(positions: Tensor, rows: Tensor | None = None) -> Callable[[Tensor, int], Tensor]:
    """Picks positions [token] of every row; or, with a row for each of them, one packed row of them all."""

    def pick(value: Tensor, axis: int) -> Tensor:
        at = positions.to(value.device)
        if rows is None or axis == 0:
            return value.index_select(axis, at)
        if len(value) == 1:
            return value.index_select(axis, at)
        # [row ... token ...] to [token ...] at (row, token), then the one packed row in front again.
        picked = value.movedim(axis, 1)[rows.to(value.device), at]
        return picked[None].movedim(1, axis)

    return pick


def _named(path: Path) -> str:
    name, *inside = path
    named = f"argument {name}" if isinstance(name, str) else f"argument number {name}"
    return named + "".join(f"[{key!r}]" for key in inside)


def axes_of_blocks(
    whole: Sequence[Call],
    beginning: Sequence[Call],
    masks: Sequence[Tensor | None],
    changed: Sequence[Call],
    tokens: tuple[int, int],
) -> tuple[Axes, ...]:
    """`axes_of` every block, with the block's number in what is refused.

    Args:
        whole, beginning, masks, tokens: see `axes_of`; one for each block.
        changed: calls for the first text when what the first block reads has been changed.
    """
    found = []
    for number, calls in enumerate(zip(whole, beginning, masks, changed, strict=True)):
        call, short, mask, after = calls
        try:
            found.append(axes_of(call, short, mask, tokens=tokens))
            refuse_differences(call, after)
        except NotUnderstoodError as error:
            raise NotUnderstoodError(f"layer {number}: {error}") from error
    return tuple(found)
