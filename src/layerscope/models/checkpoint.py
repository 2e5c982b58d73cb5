"""Is a checkpoint whole and harmless? Asked of its files before a model is built, and of what was built after.

What is loaded is what was saved: every tensor of the files is used, every weight comes from them, and nothing
is read but configuration, tokenizer and .safetensors weights (or one GGUF file).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.models.places import Place
from layerscope.models.safetensors_files import INDEX, stored_tensors, weight_files
from layerscope.models.sizes import refuse_sizes
from layerscope.results.files import readable

_AGAIN = "download or convert the checkpoint again"
_SHARDS_OF_A_PICKLE = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
# What old versions of transformers saved beside the weights, and what follows from the configuration alone:
# causal masks and what they were filled with, rotary frequencies, position numbers.
_HARMLESS = re.compile(
    r"(^|\.)(attn\.(attention\.)?(bias|masked_bias)|attention\.(bias|masked_bias)|rotary_emb\.inv_freq|position_ids)$"
)
_CAUSAL_MASKS = ("BOOL", "U8")
_OWN_ATTENTION = ("eager", "sdpa", "flex_attention")
_OWN_EXPERTS = ("eager", "grouped_mm", "batched_mm")
_OF_FETCHED_CODE = ("mxfp4", "nvfp4", "fp8", "fbgemm_fp8", "eetq", "metal")
"""Quantised weights whose products transformers computes by code that the package `kernels` fetches from the hub."""


def look_into(folder: Path) -> None:
    """Refuse a folder that is no whole checkpoint, or that would make transformers look elsewhere.

    Raises:
        LayerscopeError: no configuration, no or damaged or pickled weights, an adapter, or a configuration that
            names code or weights outside of the folder.
    """
    with readable(folder):
        is_model = (folder / "config.json").is_file()
    if not is_model:
        raise _refused(
            "there is no such model",
            f"{folder} holds no config.json",
            "a folder with a model, a .gguf file, a hub name such as EleutherAI/pythia-160m, or bundled",
            _models_inside(folder),
        )
    if (folder / "adapter_config.json").is_file():
        raise _refused(
            "this folder holds an adapter, which names another model",
            f"{folder / 'adapter_config.json'}",
            "a whole model",
            "merge it (PeftModel.merge_and_unload), or hand over the PEFT model object",
        )
    others = [path.name for path in folder.iterdir() if _SHARDS_OF_A_PICKLE.fullmatch(path.name)]
    if others:
        raise _refused(
            "these weights are read by way of a pickle, which can run code",
            f"{folder / others[0]}, part of a distributed checkpoint",
            "model.safetensors, or its shards with their index",
            "model.save_pretrained(folder)",
        )
    config = _refuse_configuration(folder)
    refuse_sizes(folder, config, len(stored_tensors(folder)))


def _refuse_configuration(folder: Path) -> dict[str, Any]:
    try:
        with readable(folder / "config.json"):
            # Not `parsed`: families with a state-space layer write Infinity.
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except LayerscopeError:
        raise
    except (ValueError, RecursionError) as error:
        raise _refused(
            "this model cannot be loaded: its configuration is damaged",
            f"{folder / 'config.json'}: {error}",
            "config.json as save_pretrained writes it",
            _AGAIN,
        ) from error
    for name, value in _entries(config):
        if name.endswith(("attn_implementation", "attn_implementation_internal")) and not _own(value):
            raise _refused(
                "this model asks for attention code that transformers does not hold, or would fetch",
                f"{name} = {value} in {folder / 'config.json'}",
                f"one of transformers' own: {', '.join(_OWN_ATTENTION)}",
                f"remove {name} from config.json",
            )
        if name.endswith("experts_implementation") and value is not None and value not in _OWN_EXPERTS:
            raise _refused(
                "this model asks for code of its experts that would be fetched",
                f"{name} = {value} in {folder / 'config.json'}",
                f"one of transformers' own: {', '.join(_OWN_EXPERTS)}",
                f"remove {name} from config.json",
            )
        if name == "quant_method" and value in _OF_FETCHED_CODE and find_spec("kernels"):
            raise _refused(
                "these weights would be computed on by code that is fetched",
                f"{name} = {value} in {folder / 'config.json'}, and the package kernels is installed",
                "plain or dequantised weights, or code that is here",
                "pip uninstall kernels",
            )
        if name == "transformers_weights" and value is not None:
            raise _refused(
                "this model names its own weight file",
                f"{name} = {value} in {folder / 'config.json'}",
                "model.safetensors, or its shards with their index",
                f"remove {name} from config.json, and rename the file",
            )
    return dict(config)


def _own(attention: Any) -> bool:
    """Whether a configuration names, for itself and its parts, attention that needs no code from elsewhere.

    Of what is not listed some is fetched where it is not installed: flash_attention_2, from the hub.
    """
    named = attention.values() if isinstance(attention, dict) else [attention]
    return all(name is None or (isinstance(name, str) and name in _OWN_ATTENTION) for name in named)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every named value of a configuration, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _models_inside(folder: Path) -> str:
    inside = sorted(str(path.parent) for path in folder.glob("*/config.json"))
    inside += sorted(str(path) for path in folder.glob("*.gguf"))
    return inside[0] if inside else "a folder that save_pretrained wrote"


# -- what identifies it ---------------------------------------------------------------------------


def files_digest(place: Place) -> str:
    """sha256 over the files that decide what is built: configurations, weights and Python files.

    Of a GGUF file it is the file's own, as sha256sum prints it.
    """
    if place.gguf:
        return _sha256(place.folder / place.gguf)
    folder = place.folder
    weights = [folder / name for name in weight_files(folder)]
    beside = [folder / name for name in ("config.json", "tokenizer_config.json", INDEX)]
    files = {path for path in [*beside, *weights, *folder.rglob("*.py")] if path.is_file()}
    lines = [f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n" for path in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- what was built from it -----------------------------------------------------------------------


def refuse_gaps(place: Place, module: Any, report: dict[str, Any]) -> None:
    """Refuse a model that was not filled from its files, or that leaves some of them unused.

    Args:
        place: where they lie.
        module: the model as transformers built it.
        report: transformers' own account of missing, unexpected and mismatched tensors.

    Raises:
        LayerscopeError: with the first tensors' names.
    """
    missing = sorted(report.get("missing_keys") or [])
    mismatched = sorted(str(entry) for entry in report.get("mismatched_keys") or [])
    if missing or mismatched:
        raise _refused(
            "these weights do not fill the model",
            f"{place} lacks {_some(missing or mismatched)}",
            "every tensor of the architecture (transformers would fill the gap with random numbers)",
            _AGAIN,
        )
    refuse_unused(place, report.get("unexpected_keys") or [])
    if not place.gguf and getattr(module, "hf_quantizer", None) is None:
        _refuse_whole_numbers(place, module)


def refuse_unused(place: Place, names: Iterable[str]) -> None:
    """Refuse tensors of a checkpoint that the model does not use, but for those that hold no weights."""
    dtypes = {} if place.gguf else {tensor.name: tensor.dtype for tensor in stored_tensors(place.folder)}
    unused = sorted(name for name in names if not _harmless(name, dtypes.get(name)))
    if unused:
        raise _refused(
            "this model does not use all of its weights, so another one was saved",
            f"{_some(unused)} in {place}",
            "a configuration that uses every saved tensor (layers, biases, scales of quantised weights)",
            "the configuration that was saved with these weights",
        )


def _harmless(name: str, dtype: str | None) -> bool:
    """Whether a tensor follows from the configuration alone.

    A causal mask was saved under the name that a bias has elsewhere; what tells them apart is its type.
    """
    if not _HARMLESS.search(name):
        return False
    return not name.endswith(".bias") or dtype in _CAUSAL_MASKS


def _refuse_whole_numbers(place: Place, module: Any) -> None:
    """Refuse weights that are stored as whole numbers and would be cast to floats as they are."""
    whole = [tensor for tensor in stored_tensors(place.folder) if not tensor.floating]
    built = module.state_dict() if whole else {}
    suspect = sorted(
        f"{tensor.name} ({tensor.dtype})"
        for tensor in whole
        if not _HARMLESS.search(tensor.name)
        and (tensor.name not in built or built[tensor.name].is_floating_point())
    )
    if suspect:
        raise _refused(
            "these weights are whole numbers, and nothing says how to turn them into floats",
            f"{_some(suspect)} in {place}",
            "floating-point weights, or a quantization_config that transformers knows",
            "the checkpoint before it was quantised",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refused(problem: str, found: str, expected: str, hint: str) -> LayerscopeError:
    return LayerscopeError(problem, found=found, expected=expected, hint=hint)
