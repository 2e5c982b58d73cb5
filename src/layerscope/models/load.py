"""Load a model: a folder, a hub name, `bundled`, or an object that the caller already has."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from layerscope.bundled import bundled_model
from layerscope.errors import LayerscopeError
from layerscope.models.check import check_model
from layerscope.models.facts import ModelFacts
from layerscope.models.layered import LayeredModel
from layerscope.models.structure import Structure, find_blocks

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load_model(
    source: Any = "bundled",
    *,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LayeredModel:
    """A model, loaded by transformers and tried by the load check.

    Args:
        source: a folder with a config and .safetensors weights; a hub name (the only case that touches
            the network); "bundled"; or a transformers model that is already loaded.
        tokenizer: needed beside a model object; otherwise the one that comes with the weights.
        device: "cpu", "cuda", "cuda:1", "mps"; by default a GPU where there is one. A model object stays
            where it is.
        dtype: "float32", "bfloat16", "float16"; by default float32 on CPU, the checkpoint's own on a GPU.
        revision: commit, branch or tag of a hub repository.
        trust_remote_code: run Python code that comes with the weights. Never done unless asked.

    Raises:
        LayerscopeError: unknown model, no weights, pickled weights only, missing tensors, encoder-only,
            NaN weights, or anything else that the load check refuses.
    """
    if isinstance(source, LayeredModel):
        return source
    if not isinstance(source, str | Path):
        return _wrapped(source, tokenizer)
    place = _resolve(str(source))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_choice(dtype, device)
    with _quiet():
        module = _loaded(place, device, dtype, revision, trust_remote_code)
        tokenizer = tokenizer or _tokenizer(place, revision, trust_remote_code)
    facts = _facts(
        module,
        source=str(source),
        loadable=True,
        revision=revision,
        trust_remote_code=trust_remote_code,
        place=place,
    )
    return _layered(module, tokenizer, facts)


def _wrapped(module: Any, tokenizer: Any) -> LayeredModel:
    if not hasattr(module, "get_output_embeddings") or not hasattr(module, "config"):
        raise LayerscopeError(
            "this is not a model",
            found=type(module).__name__,
            expected="a name, a folder, or a transformers model with a language-model head",
            hint='load_model("gpt2")',
        )
    if tokenizer is None:
        raise LayerscopeError(
            "a model object needs its tokenizer beside it",
            found="no tokenizer",
            expected="a transformers tokenizer",
            hint="load_model(model, tokenizer=AutoTokenizer.from_pretrained(...))",
        )
    name = str(getattr(module.config, "_name_or_path", "") or type(module).__name__)
    facts = _facts(module, source=name, loadable=False, revision=None, trust_remote_code=False, place=name)
    return _layered(module, tokenizer, facts)


def _layered(module: Any, tokenizer: Any, facts: ModelFacts) -> LayeredModel:
    module.eval()
    _refuse_absent(module, facts)
    path, blocks = find_blocks(module, facts.n_layers)
    model = LayeredModel(module, tokenizer, facts, Structure(path, tuple(blocks), (), ()))
    with _quiet():
        check_model(model)
    return model


def _refuse_absent(module: Any, facts: ModelFacts) -> None:
    absent = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if absent:
        raise LayerscopeError(
            "some weights of this model are not in memory",
            found=f"{facts.name}: {absent[0]} is on the meta device",
            expected="weights on a processor or a GPU",
            hint="load the model whole, without offloading",
        )


def _resolve(source: str) -> str:
    """What transformers is given: a folder known to hold weights, or a hub name."""
    if source == "bundled":
        return str(bundled_model())
    try:
        folder = Path(source).expanduser()
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, NUL
        raise _unknown("", f"a name that no folder can have: {error}") from error
    if is_folder:
        _look_into(folder)
        return str(folder)
    if exists or not _HUB_NAME.fullmatch(source) or source.count("/") > 1:
        raise _unknown(source, f"{source} is {'a file' if exists else 'neither a folder nor a hub name'}")
    return source


def _look_into(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise _unknown(str(folder), f"{folder} holds no config.json", hint=_models_inside(folder))
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(
        path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    )
    raise LayerscopeError(
        "this folder holds no weights that can be loaded",
        found=f"{folder}: "
        + (f"{pickled[0]} (a pickle, which can run code)" if pickled else "no .safetensors file"),
        expected="one or more .safetensors files beside config.json",
        hint="model.save_pretrained(folder, safe_serialization=True)"
        if pickled
        else "download the weights again",
    )


def _models_inside(folder: Path) -> str:
    inside = sorted(str(path.parent) for path in folder.glob("*/config.json"))
    return inside[0] if inside else "a folder that save_pretrained wrote"


def _unknown(source: str, found: str, hint: str = "") -> LayerscopeError:
    neighbours = [str(path) for path in Path(source).expanduser().parent.glob("*") if path.is_dir()]
    near = difflib.get_close_matches(source, neighbours, n=1)
    return LayerscopeError(
        "there is no such model",
        found=found,
        expected="a folder with a model, a hub name such as EleutherAI/pythia-160m, or bundled",
        hint=hint or (near[0] if near else "layerscope list models"),
    )


def _check_choice(dtype: str | None, device: str) -> None:
    if dtype is not None and dtype not in _DTYPES:
        raise LayerscopeError(
            "there is no such dtype", found=dtype, expected=", ".join(_DTYPES), hint="--dtype float32"
        )
    try:
        with _quiet():
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


def _loaded(place: str, device: str, dtype: str | None, revision: str | None, trust: bool) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    wanted: Any = _DTYPES[dtype] if dtype else (torch.float32 if device == "cpu" else "auto")
    try:
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=trust)
        _refuse_encoders(place, config)
        module, report = AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            revision=revision,
            trust_remote_code=trust,
            dtype=wanted,
            use_safetensors=True,
            output_loading_info=True,
        )
    except LayerscopeError:
        raise
    except Exception as error:
        # transformers answers bad names, broken configs and damaged weights with many kinds of exception.
        raise _cannot_load(place, error) from error
    _refuse_missing(place, report)
    return module.to(device)


def _refuse_encoders(place: str, config: Any) -> None:
    architectures = list(getattr(config, "architectures", None) or [])
    masked = [name for name in architectures if "MaskedLM" in name or "ForPreTraining" in name]
    if getattr(config, "is_encoder_decoder", False) or masked:
        raise LayerscopeError(
            "this is not a decoder-only model",
            found=f"{place}: {', '.join(architectures) or config.model_type}",
            expected="a decoder-only language model (…ForCausalLM)",
            hint="gpt2, EleutherAI/pythia-160m, or another decoder",
        )


def _refuse_missing(place: str, report: dict[str, Any]) -> None:
    missing = sorted(report.get("missing_keys") or [])
    mismatched = sorted(str(entry) for entry in report.get("mismatched_keys") or [])
    if missing or mismatched:
        raise LayerscopeError(
            "these weights do not fill the model",
            found=f"{place} lacks {', '.join((missing or mismatched)[:3])}{' ...' if len(missing) > 3 else ''}",
            expected="every tensor of the architecture (transformers would fill the gap with random numbers)",
            hint="download or convert the checkpoint again",
        )


def _cannot_load(place: str, error: Exception) -> LayerscopeError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return LayerscopeError(
        "this model cannot be loaded",
        found=f"{place}: {type(error).__name__}: {lines[0] if lines else ''}",
        expected="a folder or hub name of a decoder-only model with .safetensors weights",
        hint="check the name and the network; code that comes with weights runs only with --trust-remote-code",
    )


def _tokenizer(place: str, revision: str | None, trust: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=trust)
    except Exception as error:
        raise LayerscopeError(
            "this model has no tokenizer that can be loaded",
            found=f"{place}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="tokenizer.json beside the weights",
            hint="tokenizer.save_pretrained(folder)",
        ) from error


def _facts(
    module: Any, *, source: str, loadable: bool, revision: str | None, trust_remote_code: bool, place: str
) -> ModelFacts:
    config = module.config.get_text_config()
    return ModelFacts(
        name=Path(source).name or source,
        source=source,
        loadable=loadable,
        architecture=type(module).__name__,
        n_layers=config.num_hidden_layers,
        width=config.hidden_size,
        n_heads=getattr(config, "num_attention_heads", None),
        n_kv_heads=getattr(config, "num_key_value_heads", None)
        or getattr(config, "num_attention_heads", None),
        vocabulary=config.vocab_size,
        context=_context(config),
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        dtype=str(next(module.parameters()).dtype).removeprefix("torch."),
        device=str(next(module.parameters()).device),
        revision=getattr(module.config, "_commit_hash", None) or revision or _recorded_commit(place),
        trust_remote_code=trust_remote_code,
    )


def _context(config: Any) -> int | None:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _recorded_commit(place: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return json.loads((Path(place) / "config.json").read_text(encoding="utf-8")).get("_commit_hash")
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers on the user's terminal."""
    from transformers.utils import logging as chatter

    hub = logging.getLogger("huggingface_hub")
    bars, level, hub_level = chatter.is_progress_bar_enabled(), chatter.get_verbosity(), hub.level
    hub.setLevel(logging.CRITICAL)
    chatter.disable_progress_bar()
    chatter.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            chatter.enable_progress_bar()
