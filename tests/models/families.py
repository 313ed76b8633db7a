"""A tiny model of each family that transformers maps to a causal language model, from its configuration alone."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = {
    **dict.fromkeys(("vocab_size",), 64),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_layers", "n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_ff", "n_inner"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_key_value_heads"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank", "state_size", "sliding_window"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "conv_kernel", "time_step_rank", "rotary_dim"), 4),
    "encoder_attention_heads": 4,
    "partial_rotary_factor": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
LATENT = {"head_dim": 4, "num_key_value_heads": 4}


def _each(kinds: str, settings: dict[str, object]) -> dict[str, dict[str, object]]:
    return dict.fromkeys(kinds.split(), settings)


SETTINGS = {
    **_each("bamba granitemoehybrid", MAMBA),
    **_each("axk1 deepseek_v3 youtu", LATENT),
    **_each("bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart",
            {"num_hidden_layers": 1}),
    **_each("bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta "
            "roberta-prelayernorm roformer xlm-roberta xlm-roberta-xl", {"is_decoder": True}),
    **_each("axk2 deepseek_v32 glm_moe_dsa", {**LATENT, "index_head_dim": 8, "index_n_heads": 2}),
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8,
                     "laurel_rank": 4, "activation_sparsity_pattern": [0.0, 0.0]},
    "gemma4_text": {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "reformer": {"is_decoder": True, "attention_head_size": 8, "attn_layers": ["local", "local"],
                 "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "feed_forward_size": 48,
                 "local_attn_chunk_length": 8},
    "xmod": {"is_decoder": True, "languages": ["en_XX"], "default_language": "en_XX"},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "roc_bert": {"is_decoder": True, "pronunciation_vocab_size": 64, "shape_vocab_size": 64},
    "xlm": {"emb_dim": 32, "n_words": 64},
}  # fmt: skip


def configuration(kind: str) -> object:
    """The family's configuration with small sizes."""
    plain = AutoConfig.for_model(kind)
    names = set(plain.to_dict())
    chosen = {name: value for name, value in SMALL.items() if name in names}
    return type(plain)(**{**chosen, **SETTINGS.get(kind, {})})


def build(kind: str, seed: int = 0) -> torch.nn.Module:
    """The model, in eval mode, with random weights."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(configuration(kind)).eval()
