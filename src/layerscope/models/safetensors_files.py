"""Weights in .safetensors files: which ones a folder holds, and what their headers say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from layerscope.errors import LayerscopeError
from layerscope.results.files import readable
from layerscope.results.strict_json import parsed

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATING = ("F", "BF")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a header describes it."""

    name: str
    dtype: str
    shard: str
    shape: tuple[int, ...] = ()

    @property
    def floating(self) -> bool:
        """Whether its entries are floating-point numbers, of whatever width."""
        return self.dtype.startswith(_FLOATING)


def weight_files(folder: Path) -> list[str]:
    """Names of the files that transformers reads weights from.

    Raises:
        LayerscopeError: there are none, only pickled ones, or an index that names others.
    """
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / INDEX).is_file():
        return shards_of(folder)
    raise _no_weights(folder)


def shards_of(folder: Path) -> list[str]:
    """Names of the files that the index of a folder names; each lies in that folder and ends in .safetensors.

    Raises:
        LayerscopeError: the index cannot be read, or names a file elsewhere or of another kind.
    """
    try:
        with readable(folder / INDEX):
            mapped = parsed((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = list(mapped.values())
    except LayerscopeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad_index(folder, f"{type(error).__name__}: {error}") from error
    for shard in shards:
        plain = isinstance(shard, str) and PurePosixPath(shard).name == shard and "\\" not in shard
        if not plain or not shard.endswith(".safetensors"):
            raise _bad_index(folder, f"weights in {shard}")
    if not shards:
        raise _bad_index(folder, "no weights")
    return sorted(set(shards))


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Every tensor in the weight files of a folder, from their headers alone.

    Raises:
        LayerscopeError: a file is missing or damaged, or two files hold a tensor of one name.
    """
    found: dict[str, StoredTensor] = {}
    for shard in weight_files(folder):
        for name, dtype, shape in _header(folder / shard):
            if name in found:
                raise LayerscopeError(
                    "two files hold a tensor of the same name",
                    found=f"{name} in {found[name].shard} and {shard} of {folder}",
                    expected="each tensor once",
                    hint="download or convert the checkpoint again",
                )
            found[name] = StoredTensor(name, dtype, shard, shape)
    return list(found.values())


def _header(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with readable(path, missing="download the weights again"):
            path.open("rb").close()
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return [(name, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()]
    except (OSError, SafetensorError) as error:
        raise LayerscopeError(
            "this model cannot be loaded: its weights are damaged or missing",
            found=f"{path}: {str(error) or type(error).__name__}",
            expected="a whole .safetensors file",
            hint="download the weights again",
        ) from error


def _bad_index(folder: Path, found: str) -> LayerscopeError:
    return LayerscopeError(
        "the index of these weights cannot be used",
        found=f"{folder / INDEX}: {found}",
        expected="names of .safetensors files in the same folder (any other file could run code when it is read)",
        hint="download or convert the checkpoint again",
    )


def _no_weights(folder: Path) -> LayerscopeError:
    pickled = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind))
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    found = "no .safetensors file"
    if pickled:
        found = f"{pickled[0]} (a pickle, which can run code)"
    elif others:
        found = f"{others[0]}, but neither {WEIGHTS} nor {INDEX}"
    return LayerscopeError(
        "this folder holds no weights that can be loaded",
        found=f"{folder}: {found}",
        expected="one or more .safetensors files beside config.json",
        hint="model.save_pretrained(folder, safe_serialization=True)"
        if pickled
        else "download the weights again",
    )
