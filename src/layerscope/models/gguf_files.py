"""A model in one GGUF file: read and dequantised by transformers, never by us."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.models.gguf_header import GgufHeader, read_header
from layerscope.models.places import Place

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_NEEDS = ("gguf", "accelerate")


def look_into_gguf(path: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises:
        LayerscopeError: packages are missing, or this is no whole GGUF file of a whole model.
    """
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise LayerscopeError(
            "GGUF files need packages that are not installed",
            found=f"no {' and no '.join(missing)}",
            expected=" and ".join(_NEEDS),
            hint="pip install 'layerscope[gguf]'",
        )
    try:
        header = read_header(path)
    except Exception as error:  # a damaged header is misread in many ways
        raise _broken(
            path, f"{type(error).__name__}: {error}", "a whole GGUF file with a model in it"
        ) from error
    shards = max(header.shards, int((_SHARD.search(path.name) or [0, 1])[1]))
    if shards > 1:
        raise LayerscopeError(
            "this GGUF file is one shard of several",
            found=f"{path.name}, of {shards} files",
            expected="one file that holds the whole model",
            hint="llama-gguf-split --merge FIRST-SHARD.gguf WHOLE.gguf",
        )
    if path.stat().st_size < header.size or not header.tensors:
        raise _broken(path, f"{path.stat().st_size:,} bytes", f"{header.size:,} bytes, by its own header")
    return header


@contextmanager
def read_once() -> Iterator[None]:
    """Let transformers parse a file once while it loads config, weights and tokenizer, instead of each time anew.

    One parse takes ten seconds over a vocabulary of 262,144. A bar that it shows whatever it is told is left out.
    """
    if find_spec("gguf") is None:
        yield
        return
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    reader, bar = gguf.GGUFReader, reading.tqdm
    gguf.GGUFReader, reading.tqdm = cache(reader), lambda tensors, **_: tensors
    try:
        yield
    finally:
        gguf.GGUFReader, reading.tqdm = reader, bar


def types_of(header: GgufHeader) -> str | None:
    """The types of numbers in a file with the number of tensors of each; None where all are floats."""
    counts = Counter(tensor.kind for tensor in header.tensors)
    if set(counts) <= {"F64", "F32", "F16", "BF16"}:
        return None
    return f"{len(header.tensors)} GGUF tensors: " + ", ".join(
        f"{n} {name}" for name, n in counts.most_common()
    )


def build_from_gguf(place: Place, config: Any, dtype: Any) -> tuple[Any, dict[str, Any]]:
    """The model of a file with plain dequantised weights, and transformers' report on loading it."""
    from transformers import AutoModelForCausalLM, GgufConfig

    module, report = AutoModelForCausalLM.from_pretrained(
        place.folder,
        gguf_file=place.gguf,
        config=config,
        dtype=dtype,
        # Without this, packed weights would be computed on by a kernel that is fetched.
        quantization_config=GgufConfig(gguf_file=str(place), dequantize=True),
        output_loading_info=True,
    )
    module.hf_quantizer, module.is_quantized = None, False  # so that it can be saved like any other
    for owner, name in ((module.config, "quantization_config"), (module, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    return module, report


def unused_in_gguf(header: GgufHeader, module: Any) -> list[str]:
    """Names of tensors in a file that the model does not use; transformers leaves them out in silence.

    Told by counting numbers: conversions merge, split and rename tensors, but lose none.
    """
    stored = sum(tensor.entries for tensor in header.tensors)
    built = {tensor.data_ptr(): tensor.numel() for tensor in module.state_dict().values()}
    if stored <= sum(built.values()):
        return []
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config={})
    known = get_gguf_hf_weights_map(module, processor)
    surplus = f"{stored - sum(built.values()):,} numbers more than the model has"
    return [tensor.name for tensor in header.tensors if tensor.name not in known] or [surplus]


def _broken(path: Path, found: str, expected: str) -> LayerscopeError:
    return LayerscopeError(
        "this GGUF file cannot be read",
        found=f"{path}: {found}",
        expected=expected,
        hint="download the file again",
    )
