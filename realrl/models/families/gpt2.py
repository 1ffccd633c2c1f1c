"""GPT-2 (Radford et al. 2019): layer norms, learned positions, biases, matrices stored [in, out]."""

from __future__ import annotations

import msgspec

from realrl.models.config import DecoderConfig, Names
from realrl.models.families.keys import Count, Family, Layers, Positive, TokenIds, activation, token_ids


class GPT2Keys(msgspec.Struct, kw_only=True):
    vocab_size: Count
    n_embd: Count
    n_layer: Layers
    n_head: Count
    n_positions: Count
    n_inner: Count | None = None
    layer_norm_epsilon: Positive = 1e-5
    activation_function: str = "gelu_new"
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool | None = True
    eos_token_id: TokenIds = None


def gpt2(keys: GPT2Keys) -> DecoderConfig:
    """Return the decoder that GPT-2's keys describe."""
    if keys.n_embd % keys.n_head:
        raise ValueError(f"n_head must divide n_embd {keys.n_embd}, got {keys.n_head}")
    if keys.scale_attn_by_inverse_layer_idx or keys.add_cross_attention:
        raise ValueError("scale_attn_by_inverse_layer_idx and add_cross_attention must be false")
    return DecoderConfig(
        vocab_size=keys.vocab_size,
        hidden_size=keys.n_embd,
        intermediate_size=keys.n_inner or 4 * keys.n_embd,
        num_layers=keys.n_layer,
        num_heads=keys.n_head,
        num_kv_heads=keys.n_head,
        head_dim=keys.n_embd // keys.n_head,
        max_position=keys.n_positions,
        norm_eps=keys.layer_norm_epsilon,
        tied=keys.tie_word_embeddings is not False,
        eos_token_ids=token_ids(keys.eos_token_id),
        rope=None,
        norm="layer",
        activation=activation("activation_function", keys.activation_function),
        gated=False,
        qkv_bias=True,
        attn_out_bias=True,
        mlp_bias=True,
        attention_scale=None if keys.scale_attn_weights else 1.0,
    )


GPT2 = Family(
    keys=GPT2Keys,
    decoder=gpt2,
    classifier="GPT2ForSequenceClassification",
    names=Names(
        base="transformer.",
        embed="transformer.wte",
        positions="transformer.wpe",
        layer="transformer.h.*.",
        attn_norm="ln_1",
        qkv=("attn.c_attn",),
        attn_out="attn.c_proj",
        mlp_norm="ln_2",
        gate_up=("mlp.c_fc",),
        mlp_down="mlp.c_proj",
        norm="transformer.ln_f",
        transposed=True,
    ),
)
