"""Load a model: a folder, a GGUF file, a hub name, `bundled`, or an object that the caller already has."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from layerscope.calls import NOTHING, SOMETHING, SWITCH, TEXT, checked, having
from layerscope.errors import LayerscopeError, LayerscopeWarning
from layerscope.models.alike import Built
from layerscope.models.check import check_model
from layerscope.models.checkpoint import (
    files_digest,
    look_into,
    refuse_gaps,
    refuse_unused,
)
from layerscope.models.copies import built_once
from layerscope.models.facts import facts_of
from layerscope.models.gguf_files import build_from_gguf, look_into_gguf, read_once, types_of, unused_in_gguf
from layerscope.models.layered import LayeredModel
from layerscope.models.memory import lacking, ran_out
from layerscope.models.objects import unwrapped
from layerscope.models.places import Place, find_model
from layerscope.models.quiet import quiet
from layerscope.models.sizes import refuse_far_larger, refuse_other_sizes, shapes_of
from layerscope.models.structure import Structure, find_blocks
from layerscope.models.use import in_use, ordinary_tensors
from layerscope.models.verdicts import know_weights
from layerscope.results.files import unreadable

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_NOT_SHARED = (
    "each process holds the model's float32 weights for itself, since no copy of them can be kept: {}"
)


@checked(
    source=SOMETHING,
    device=TEXT | NOTHING,
    dtype=TEXT | NOTHING,
    revision=TEXT | NOTHING,
    trust_remote_code=SWITCH,
    tokenizer=NOTHING | having("a transformers tokenizer", "None", "convert_ids_to_tokens", "encode"),
)
def load_model(
    source: Any = "bundled",
    *,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    files: str | None = None,
) -> LayeredModel:
    """A model, loaded by transformers and tried by the load check.

    Args:
        source: a folder with a config and .safetensors weights; a .gguf file; a hub name (the only case that
            touches the network); "bundled"; or a transformers model that is already loaded, also compiled or
            within PEFT.
        tokenizer: needed beside a model object; otherwise the one that comes with the weights.
        device: "cpu", "cuda", "cuda:1", "mps"; by default a GPU where there is one. A model object stays
            where it is.
        dtype: "float32", "bfloat16", "float16"; by default float32 on CPU, the checkpoint's own on a GPU.
        revision: commit, branch or tag of a hub repository.
        trust_remote_code: run Python code that comes with the weights. Never done unless asked.
        files: sha256 that the checkpoint's files must have (a record's); compared before anything is built.

    Raises:
        LayerscopeError: unknown model, no weights, pickled weights only, tensors that are missing or unused,
            encoder-only, NaN weights, or anything else that the load check refuses.
    """
    if isinstance(source, LayeredModel):
        return source
    with ordinary_tensors():
        if not isinstance(source, str | Path):
            return _of_object(source, tokenizer)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with quiet():
            place = find_model(
                str(source), revision=revision, code=trust_remote_code, known=files is not None
            )
            _check_choice(dtype, device)
            if not place.gguf:
                look_into(place.folder)
            digest = _compared(place, files)

            def build(weights: Place, tokens: Place) -> Built:
                with read_once() if weights.gguf else contextlib.nullcontext():
                    module, dequantised = _built(weights, device, dtype, trust_remote_code)
                    return Built(module, tokenizer or _tokenizer(tokens, trust_remote_code), dequantised)

            plain = (
                torch.device(device).type == "cpu" and dtype in (None, "float32") and not trust_remote_code
            )
            built, unshared = built_once(place, digest, build) if plain else (build(place, place), "")
        if unshared:
            warnings.warn(_NOT_SHARED.format(unshared), LayerscopeWarning, stacklevel=2)
        return _layered(
            built.module,
            built.tokenizer,
            name=str(source),
            loadable=True,
            revision=place.revision or revision,
            trust_remote_code=trust_remote_code,
            files=digest,
            dequantised=built.dequantised,
        )


def _of_object(given: Any, tokenizer: Any) -> LayeredModel:
    module = unwrapped(given)
    if tokenizer is None:
        raise LayerscopeError(
            "a model object needs its tokenizer beside it",
            found="no tokenizer",
            expected="a transformers tokenizer",
            hint="load_model(model, tokenizer=AutoTokenizer.from_pretrained(...))",
        )
    name = str(getattr(module.config, "_name_or_path", "") or type(module).__name__)
    return _layered(module, tokenizer, name=name, loadable=False)


def _layered(module: Any, tokenizer: Any, *, name: str, **about: Any) -> LayeredModel:
    """The model with its parts found and tried; whatever it raises meanwhile refuses it by name."""
    with in_use(module), quiet(), refusing(name):
        module.eval()
        facts = facts_of(module, source=name, **about)
        path, blocks = find_blocks(module, facts.n_layers)
        model = LayeredModel(module, tokenizer, facts, Structure(path, tuple(blocks), (), ()))
        know_weights(model)
        check_model(model)
        return model


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
    """Whatever is raised while a model is tried becomes a refusal of that model, by name."""
    try:
        yield
    except LayerscopeError:
        raise
    except Exception as error:
        if ran_out(error):
            raise lacking(error, f"trying {name}") from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise LayerscopeError(
            f"{name} fails while it is checked, and nothing can be measured on it",
            found=f"{type(error).__name__}: {lines[0] if lines else ''}",
            expected="a decoder that runs on token ids alone, with an attention mask of ones",
            hint="another model, or the same one without custom code, adapters or quantisation",
        ) from error


def _check_choice(dtype: str | None, device: str) -> None:
    if dtype is not None and dtype not in _DTYPES:
        raise LayerscopeError(
            "there is no such dtype", found=dtype, expected=", ".join(_DTYPES), hint="--dtype float32"
        )
    try:
        usable = torch.empty(1, device=device).add(1).cpu().item() is not None
        found = ""
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable, found = False, (str(error).splitlines() or [""])[0][:100]
    if not usable:
        raise LayerscopeError(
            "this device cannot be used",
            found=f"{device}: {found}",
            expected="cpu, or a device that torch finds",
            hint="--device cpu",
        )


def _compared(place: Place, recorded: str | None) -> str:
    """The digest of a checkpoint's files; another one than a record tells is refused before anything is built."""
    digest = files_digest(place)
    if recorded is not None and digest != recorded:
        raise LayerscopeError(
            "the model has changed since this run began",
            found=f"files with sha256 {digest[:12]} in {place}",
            expected=f"sha256 {recorded[:12]}" if recorded else "a recorded sha256 of its files",
            hint="the same checkpoint, or a new run",
        )
    return digest


def _built(place: Place, device: str, dtype: str | None, trust: bool) -> tuple[Any, str | None]:
    """The model of a checkpoint, and what its weights were dequantised from."""
    from transformers import AutoConfig, AutoModelForCausalLM

    wanted: Any = _DTYPES[dtype] if dtype else (torch.float32 if device == "cpu" else "auto")
    header = look_into_gguf(place.folder / place.gguf) if place.gguf else None
    try:
        config = AutoConfig.from_pretrained(
            place.folder, trust_remote_code=trust, **({"gguf_file": place.gguf} if place.gguf else {})
        )
        _refuse_encoders(place, config)
        if header is not None:
            module, report = build_from_gguf(place, config, wanted)
        else:
            if not trust and getattr(config, "quantization_config", None) is None:
                refuse_far_larger(place, shapes_of(config))
            module, report = AutoModelForCausalLM.from_pretrained(
                place.folder,
                config=config,
                trust_remote_code=trust,
                dtype=wanted,
                use_safetensors=True,
                output_loading_info=True,
            )
    except LayerscopeError:
        raise
    except Exception as error:
        # transformers answers broken configs and damaged weights with many kinds of exception.
        if "ignore_mismatched_sizes" in str(error):
            refuse_other_sizes(place, shapes_of(config))
        raise _cannot_load(place, error) from error
    refuse_gaps(place, module, report)
    if header is not None:
        refuse_unused(place, unused_in_gguf(header, module))
    return module.to(device), None if header is None else types_of(header)


def _refuse_encoders(place: Place, config: Any) -> None:
    architectures = list(getattr(config, "architectures", None) or [])
    masked = [name for name in architectures if "MaskedLM" in name or "ForPreTraining" in name]
    if getattr(config, "is_encoder_decoder", False) or masked:
        raise LayerscopeError(
            "this is not a decoder-only model",
            found=f"{place}: {', '.join(architectures) or config.model_type}",
            expected="a decoder-only language model (…ForCausalLM)",
            hint="gpt2, EleutherAI/pythia-160m, or another decoder",
        )


def _cannot_load(place: Place, error: Exception) -> LayerscopeError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError) and error.filename is not None:
        return unreadable(str(error.filename), error)
    code = "trust_remote_code" in str(error)
    return LayerscopeError(
        "this model cannot be loaded",
        found=f"{place}: {type(error).__name__}: {' '.join(lines[:3])}",
        expected="a decoder-only model that transformers can build, with whole weights",
        hint="code that comes with these weights runs only with --trust-remote-code"
        if code
        else f"look at {place.folder / 'config.json'}, or download or convert the checkpoint again",
    )


def _tokenizer(place: Place, trust: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            place.folder, trust_remote_code=trust, **({"gguf_file": place.gguf} if place.gguf else {})
        )
    except Exception as error:
        if isinstance(error, PermissionError) and error.filename is not None:
            raise unreadable(str(error.filename), error) from error
        raise LayerscopeError(
            "this model has no tokenizer that can be loaded",
            found=f"{place}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="tokenizer.json beside the weights",
            hint="tokenizer.save_pretrained(folder)",
        ) from error
