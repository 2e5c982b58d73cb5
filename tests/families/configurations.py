"""Small random models of every causal-LM configuration class of the installed transformers: by rule, not by list.

`kinds()` asks transformers which there are. A small configuration takes the class's own defaults and sets sizes by
what an entry is called, in the configuration and in those inside it; a kind that needs something else stands in
`EXCEPTIONS`, with the reason. Layer types are kept, each once in turn. Windows, top-k and original lengths of scaled
positions are smaller than the texts, so that what only acts beyond them acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import zoo

VOCABULARY, WIDTH, LAYERS, HEADS = 320, 64, 4, 4
LARGEST = 16_000_000

_NAMES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (VOCABULARY, ("vocab_size", "vocab_size_per_layer_input")),
    (
        WIDTH,
        (
            *(
                "hidden_size",
                "n_embd",
                "d_model",
                "word_embed_proj_dim",
                "attention_hidden_size",
                "lru_width",
                "dim",
            ),
            *("embedding_dim", "embedding_size", "input_hidden_size"),
        ),
    ),
    (LAYERS, ("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_layers")),
    (HEADS, ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads")),
    (
        96,
        (
            *("intermediate_size", "ffn_dim", "decoder_ffn_dim", "block_ff_dim", "intermediate_size_mlp"),
            *("ffn_hidden_size", "mlp_hidden_size"),
        ),
    ),
    (64, ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")),
    (
        16,
        (
            "head_dim",
            "v_head_dim",
            "kv_channels",
            "mamba_d_head",
            "mamba_head_dim",
            "global_head_dim",
            "kv_lora_rank",
        ),
    ),
    (
        32,
        (
            *(
                "moe_intermediate_size",
                "shared_expert_intermediate_size",
                "moe_shared_expert_intermediate_size",
            ),
            *("shared_intermediate_size", "expert_ffn_hidden_size"),
        ),
    ),
    (
        4,
        (
            *(
                "num_experts",
                "num_local_experts",
                "n_routed_experts",
                "moe_num_experts",
                "linear_num_value_heads",
            ),
            *("laurel_rank", "adapter_rank", "attention_chunk_size"),
        ),
    ),
    (
        2,
        (
            *(
                "num_experts_per_tok",
                "moe_topk",
                "moe_k",
                "moe_top_k",
                "num_key_value_heads",
                "index_n_heads",
            ),
            *(
                "mamba_expand",
                "altup_num_inputs",
                "attn_layer_period",
                "expert_layer_period",
                "linear_num_key_heads",
            ),
            *("swa_num_key_value_heads", "num_kv_heads"),
        ),
    ),
    (
        1,
        (
            *(
                "n_group",
                "topk_group",
                "n_shared_experts",
                "first_k_dense_replace",
                "mamba_n_groups",
                "n_mamba_heads",
            ),
            *("num_mem_blocks", "attn_layer_offset", "expert_layer_offset", "pad_token_id"),
        ),
    ),
    (
        8,
        (
            *(
                "qk_rope_head_dim",
                "qk_nope_head_dim",
                "index_head_dim",
                "linear_key_head_dim",
                "linear_value_head_dim",
            ),
            *(
                "mamba_d_state",
                "ssm_state_size",
                "state_size",
                "chunk_size",
                "mamba_chunk_size",
                "rotary_dim",
            ),
            *("mamba_n_heads", "mamba_num_heads", "hidden_size_per_layer_input", "attention_window_size"),
        ),
    ),
    (6, ("sliding_window",)),
    (20, ("index_topk",)),
    (0, ("rescale_every", "num_kv_shared_layers", "bos_token_id", "eos_token_id")),
    (24, ("q_lora_rank",)),
    (128, ("mamba_d_ssm",)),
)
SIZES: dict[str, Any] = {name: value for value, names in _NAMES for name in names} | {"use_cache": False}
"""What an entry of a configuration becomes, by its name."""


def kinds() -> list[str]:
    """Model types that transformers builds a causal language model for."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


_ROPE = {"rope_type": "default", "rope_theta": 100.0}
_QWEN4 = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "hc_lowrank": 8,
}
EXCEPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "cohere_compass_text": (
        {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
        "its default has no rotary parameters, which it needs for each layer type",
    ),
    "dbrx": (
        {
            "attn_config": {"rope_theta": 100.0, "kv_n_heads": 2, "clip_qkv": 5.0},
            "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
        "sizes of attention and experts lie in dictionaries that have no defaults for all of them",
    ),
    "gpt_neo": (
        {"attention_types": [[["global", "local"], 2]], "window_size": 6},
        "it counts layers by types",
    ),
    "lfm2_moe": (
        {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
        "its default names no layer types",
    ),
    "mamba2": ({"num_heads": 8}, "heads times their width are the expanded width"),
    "moshi": ({"audio_vocab_size": 32}, "its default names no audio vocabulary"),
    "qwen4_exp": ({"text_config": _QWEN4}, "as its text part"),
    "qwen4_exp_text": (_QWEN4, "its default leaves the sizes of its indexed attention open"),
    "reformer": (
        {"is_decoder": True, "axial_pos_shape": (8, 8), "axial_pos_embds_dim": (32, 32)},
        "a decoder is asked for, and axial positions of 64 tokens",
    ),
    "xmod": ({"default_language": "en_XX"}, "its adapters are per language"),
    "zamba": (
        {
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "attention_hidden_size": 2 * WIDTH,
            "attention_head_dim": 32,
        },
        "its attention reads the embeddings beside the state, and is twice as wide",
    ),
    "zaya": ({"num_experts_per_tok": 1}, "it sends each token to one expert only"),
}
"""What a kind's small configuration needs beyond the rule, and why."""

LEFT_OUT: dict[str, str] = {
    "blt": "byte patches: three transformers in one, of which none is the decoder of the others",
    "dots3_note": "its smallest shape is too large to sweep",
    "dots3_note_text": "its smallest shape is too large to sweep",
    "gemma3n": "its image encoder needs another package (timm); its text part is swept as gemma3n_text",
    "gemma4_assistant": "drafts for another model, whose keys and values it is handed",
    "gemma4_unified_assistant": "drafts for another model, whose keys and values it is handed",
    "kimi_linear": "its linear attention is too slow on a processor to be swept",
    "musicgen": "a text encoder, an audio codec and a decoder, put together from three models",
    "musicgen_melody": "a text encoder, an audio codec and a decoder, put together from three models",
    "zamba2": "its shared blocks want a shape of their own",
}
"""Kinds of which no small model is made, and why. Whatever else cannot be built makes the sweep fail."""


@dataclass(frozen=True)
class Case:
    """One model that is swept: a kind, and what its configuration has besides the rule."""

    kind: str
    over: tuple[tuple[str, Any], ...] = ()

    @property
    def model(self) -> str:
        """The model class."""
        return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[self.kind])


def _scaled(kind: str, rope_type: str, **parameters: Any) -> Case:
    return Case(kind, (("rope_parameters", {"rope_type": rope_type, "rope_theta": 100.0, **parameters}),))


_BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS: dict[str, Case] = {
    "llama, dynamic NTK positions": Case(
        "llama",
        (
            ("rope_parameters", {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}),
            ("max_position_embeddings", 16),
        ),
    ),
    "llama, YaRN positions": _scaled("llama", "yarn", factor=4.0, original_max_position_embeddings=16),
    "llama, banded positions (llama 3)": _scaled(
        "llama", "llama3", factor=4.0, original_max_position_embeddings=16, **_BANDS
    ),
    "llama, linear positions": _scaled("llama", "linear", factor=4.0),
    "phi3, long and short positions": Case(
        "phi3",
        (
            ("sliding_window", None),
            ("original_max_position_embeddings", 16),
            (
                "rope_parameters",
                {
                    "rope_type": "longrope",
                    "rope_theta": 100.0,
                    "short_factor": [1.0] * 8,
                    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0],
                    "original_max_position_embeddings": 16,
                },
            ),
        ),
    ),
    "doge, a mask for each head": Case("doge", (("num_key_value_heads", HEADS), ("keep_window_size", 8))),
    "opt, norms behind the sum": Case(
        "opt", (("do_layer_norm_before", False), ("word_embed_proj_dim", WIDTH // 2))
    ),
    "qwen2, windows in some layers": Case(
        "qwen2", (("use_sliding_window", True), ("layer_types", ["full_attention", "sliding_attention"] * 2))
    ),
}
"""Shapes beside each class's default that change what a text's length or a mask means."""


def cases() -> dict[str, Case | str]:
    """Everything that is swept, by name; in the place of a kind of which no model is made, the reason."""
    every = {kind: LEFT_OUT.get(kind, Case(kind)) for kind in kinds()}
    return dict(sorted((every | VARIANTS).items()))


def configuration(kind: str, **over: Any) -> Any:
    """The small configuration of a kind; `over` changes further entries of its text part."""
    config_class = CONFIG_MAPPING[kind]
    special, _ = EXCEPTIONS.get(kind, ({}, ""))
    return config_class(**_sizes(config_class, special | over))


def _sizes(config_class: Any, special: dict[str, Any]) -> dict[str, Any]:
    special = dict(special)
    default = config_class()
    entries = default.to_dict()
    known = {*entries, *getattr(config_class, "attribute_map", {})}
    values = {name: value for name, value in SIZES.items() if name in known}
    values |= {
        name: None
        for name in values
        if name in entries and entries[name] is None and name.startswith("q_lora")
    }
    if "kv_lora_rank" in values and entries.get("num_key_value_heads") == entries.get("num_attention_heads"):
        values["num_key_value_heads"] = HEADS  # latent attention: every head has keys of its own
    for name in ("layer_types", "mlp_layer_types"):
        if entries.get(name):
            each = list(dict.fromkeys(entries[name]))
            values[name] = [each[layer % len(each)] for layer in range(LAYERS)]
    if "qk_rope_head_dim" in values and "head_dim" in values:
        values["head_dim"] = values["qk_rope_head_dim"]  # the part that turns is what the word means there
    for name in getattr(config_class, "sub_configs", None) or {}:
        inside = getattr(default, name, None)
        if isinstance(inside, PreTrainedConfig):
            values[name] = _sizes(type(inside), dict(special.pop(name, {})))
    return values | special


def build(kind: str, **over: Any) -> Any:
    """A random model of a kind in float32, with at most `LARGEST` parameters.

    Raises:
        ValueError: it would be larger.
        Exception: whatever the configuration or the model says against these values.
    """
    config = configuration(kind, **over)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{kind} stays too large: {size:,} parameters")
    torch.manual_seed(0)
    return zoo.spread_out(AutoModelForCausalLM.from_config(config).eval().float())
