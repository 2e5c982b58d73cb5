"""Small random models of many families, each in its default shape and with every switch flipped.

`families/configurations.py` makes one of every family by rule; the shapes here are written out, because tests name
what is in them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto import CONFIG_MAPPING

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model

VOCABULARY = 320
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_LLAMA, "num_key_value_heads": 2, "head_dim": 16}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 48,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_ROPE = {"rope_type": "default", "rope_theta": 100.0}

# family: (model type, default shape, what the flipped one changes)
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": (
        "gpt2",
        _GPT2,
        {
            "tie_word_embeddings": False,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
        },
    ),
    "gpt_neox": (
        "gpt_neox",
        _LLAMA,
        {
            "use_parallel_residual": False,
            "rotary_pct": 0.5,
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
    ),
    "llama": (
        "llama",
        _GROUPED,
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "mistral": (
        "mistral",
        {**_GROUPED, "sliding_window": None},
        {"sliding_window": 4, "tie_word_embeddings": True},
    ),
    "gemma2": (
        "gemma2",
        {**_GROUPED, "sliding_window": 4096},
        {
            "sliding_window": 4,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 7,
            "attention_bias": True,
        },
    ),
    "opt": (
        "opt",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "ffn_dim": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 48,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
        {
            "word_embed_proj_dim": 24,
            "enable_bias": False,
            "layer_norm_elementwise_affine": False,
            "do_layer_norm_before": False,
        },
    ),
    "gptj": (
        "gptj",
        {**_GPT2, "rotary_dim": 12},
        {"rotary_dim": 4, "tie_word_embeddings": True, "activation_function": "relu"},
    ),
    "bloom": (
        "bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "n_layer": 4,
            "n_head": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
        {
            "apply_residual_connection_post_layernorm": True,
            "tie_word_embeddings": False,
            "slow_but_exact": False,
        },
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            **_GROUPED,
            "lru_width": 64,
            "attention_window_size": 64,
            "conv1d_width": 4,
            "block_types": ["recurrent", "recurrent", "attention"],
        },
        {
            "attention_window_size": 4,
            "block_types": ["recurrent", "attention"],
            "logits_soft_cap": 3.0,
            "lru_width": 24,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3": (
        "qwen3",
        _GROUPED,
        {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 2,
            "tie_word_embeddings": True,
        },
    ),
    "granite": (
        "granite",
        _GROUPED,
        {
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
            "logits_scaling": 3.0,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "stablelm": (
        "stablelm",
        {k: v for k, v in _GROUPED.items() if k != "head_dim"},
        {
            "partial_rotary_factor": 0.5,
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "use_qkv_bias": True,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
        {"sliding_window": 4, "attention_bias": False},
    ),
    "cohere": (
        "cohere",
        {k: v for k, v in {**_GROUPED, "pad_token_id": 1, "logit_scale": 1.0}.items() if k != "head_dim"},
        {"logit_scale": 2.5, "use_qk_norm": True, "attention_bias": True},
    ),
}
MORE_FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mixtral": (
        "mixtral",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        {"sliding_window": 4, "num_experts_per_tok": 1, "tie_word_embeddings": True},
    ),
    "qwen2": (
        "qwen2",
        {k: v for k, v in _GROUPED.items() if k != "head_dim"},
        {
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 2,
            "tie_word_embeddings": True,
        },
    ),
    "gemma": ("gemma", {**_GROUPED, "head_dim": 32}, {"attention_bias": True, "num_key_value_heads": 1}),
    "gemma3_text": (
        "gemma3_text",
        {**_GROUPED, "sliding_window": 64},
        {
            "sliding_window": 4,
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 7,
            "attention_bias": True,
        },
    ),
    "phi": (
        "phi",
        _LLAMA,
        {"partial_rotary_factor": 0.25, "qk_layernorm": True, "tie_word_embeddings": True},
    ),
    "phi3": (
        "phi3",
        {**{k: v for k, v in _GROUPED.items() if k != "head_dim"}, "pad_token_id": 1},
        {"sliding_window": 4, "partial_rotary_factor": 0.5, "tie_word_embeddings": True},
    ),
    "olmo": (
        "olmo",
        {k: v for k, v in _GROUPED.items() if k != "head_dim"},
        {"clip_qkv": 0.5, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "olmo2": (
        "olmo2",
        {k: v for k, v in _GROUPED.items() if k != "head_dim"},
        {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "starcoder2": (
        "starcoder2",
        {**{k: v for k, v in _GROUPED.items() if k != "head_dim"}, "sliding_window": None},
        {"sliding_window": 4, "use_bias": False, "tie_word_embeddings": False},
    ),
    "smollm3": (
        "smollm3",
        {**{k: v for k, v in _GROUPED.items() if k != "head_dim"}, "pad_token_id": 1},
        {
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 4,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
}
"""Further families that branches must serve; they break no assumption that the others leave whole."""
_LIKE_LLAMA = {k: v for k, v in _GROUPED.items() if k != "head_dim"}
UNLIKE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # A mask made from values, for each key-value head its own; flipped, one for each query head.
    "doge": ("doge", {**_LIKE_LLAMA, "keep_window_size": 6}, {"num_key_value_heads": 4}),
    # Keys chosen by an indexer beyond 16 tokens.
    "deepseek_v32": (
        "deepseek_v32",
        {
            **_LLAMA,
            "num_key_value_heads": 4,
            "pad_token_id": 1,
            "index_topk": 16,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
        {},
    ),
    # Queries scaled by position, [1 1 token 1].
    "beam": (
        "beam",
        {
            **_GROUPED,
            "sliding_window": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
        {},
    ),
    # Several streams in the place of one residual stream.
    "gemma3n_text": (
        "gemma3n_text",
        {
            **_GROUPED,
            "pad_token_id": 1,
            "vocab_size_per_layer_input": VOCABULARY,
            "sliding_window": 4,
            "altup_num_inputs": 2,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "intermediate_size": 96,
            "hidden_size_per_layer_input": 8,
        },
        {},
    ),
    # Other frequencies from 16 tokens on, for all tokens of the text.
    "phi3_longrope": (
        "phi3",
        {
            **_LIKE_LLAMA,
            "pad_token_id": 1,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "original_max_position_embeddings": 16,
                "short_factor": [1.0] * 8,
                "long_factor": [float(2 + i) for i in range(8)],
            },
        },
        {},
    ),
}
"""Families that break what the others have in common."""
REQUIRED = ("gpt2", "gpt_neox", "llama", "mistral", "gemma2", "opt", "gptj", "bloom", "recurrent_gemma")
"""The families that the first issue names; the rest are here because they break assumptions."""


def make(family: str, *, flipped: bool = False, seed: int = 0, over: dict[str, Any] | None = None) -> Any:
    """A transformers model with spread-out weights, some values of its configuration changed if need be."""
    kind, shape, switches = (FAMILIES | MORE_FAMILIES | UNLIKE)[family]
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[kind](**(shape | (switches if flipped else {}) | (over or {})))
    return spread_out(AutoModelForCausalLM.from_config(config).eval())


def spread_out(model: Any) -> Any:
    """The model with weights that are large enough for probabilities to spread, so that a wrong number shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


class _PutsBosFirst(PreTrainedTokenizerFast):
    """Puts BOS before every text when it is called; `encode` gives the bare ids, which tests put it before."""

    def encode(self, text: str, **options: Any) -> list[int]:  # type: ignore[override]
        return super().encode(text, **{"add_special_tokens": False} | options)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 320 entries: BOS, which it puts first by itself, all bytes, and a few pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    corpus = [
        "the red fox met the old dog in the town of stone",
        "a small bird sang and the dog ran to the red town",
    ] * 4
    inner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<bos>", "<pad>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    inner.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    return _PutsBosFirst(tokenizer_object=inner, bos_token="<bos>", eos_token="<bos>")


def layered(family: str, *, flipped: bool = False, seed: int = 0) -> LayeredModel:
    """A checked model of a family, with the small tokenizer."""
    return load_model(make(family, flipped=flipped, seed=seed), tokenizer=tokenizer())
