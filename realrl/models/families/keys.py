"""The keys of `config.json` that families share, and how they become a decoder's sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from realrl.models.config import DecoderConfig, Names
from realrl.models.rope import Rope, yarn_attention_factor

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Layers = Annotated[int, Meta(ge=1, le=10_000)]
"""Every layer is planned for; no model has a tenth as many."""
Positive = Annotated[float, Meta(gt=0)]
TokenId = Annotated[int, Meta(ge=0)]
TokenIds = TokenId | list[TokenId] | None

BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""How tensors end that old checkpoints hold in their layers and that are no weights."""

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one architecture: how to read their `config.json`, and what their tensors are called."""

    keys: type[msgspec.Struct]
    """The keys that are read; their types are checked."""
    decoder: Callable[[Any], DecoderConfig]
    """What keys of that type come to.

    Raises:
        ValueError: they ask for what is not supported; the message begins with the key.
    """
    classifier: str
    """transformers' class with a scalar head."""
    names: Names = field(default_factory=Names)


class RopeKeys(msgspec.Struct):
    rope_theta: Positive | None = None
    rope_type: str | None = None
    type: str | None = None
    factor: Positive | None = None
    original_max_position_embeddings: Count | None = None
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    truncate: bool = True
    attention_factor: Positive | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    partial_rotary_factor: float | None = None
    full_attention: Any = None
    sliding_attention: Any = None
    """Parameters of layers of one type, in place of those of all."""


class LlamaKeys(msgspec.Struct, kw_only=True):
    """Those of Llama and of the families that grew out of it."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    max_position_embeddings: Count
    rms_norm_eps: Positive
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: Positive | None = None
    rope_parameters: RopeKeys | None = None
    rope_scaling: RopeKeys | None = None
    original_max_position_embeddings: Count | None = None
    """Goes before that of `rope_parameters`."""
    partial_rotary_factor: float | None = None
    tie_word_embeddings: bool | None = None
    eos_token_id: TokenIds = None
    sliding_window: Count | None = None
    """How many tokens back a layer may see, in families that have such layers."""
    use_sliding_window: bool = True
    max_window_layers: int = 0
    """Layers before this one see everything."""
    layer_types: list[str] | None = None


def llama_like(keys: LlamaKeys, **traits: Any) -> DecoderConfig:
    """The decoder that Llama's keys describe, with a family's own `traits`."""
    heads = keys.num_attention_heads
    usual = {
        "vocab_size": keys.vocab_size,
        "hidden_size": keys.hidden_size,
        "intermediate_size": keys.intermediate_size,
        "num_layers": keys.num_hidden_layers,
        "num_heads": heads,
        "num_kv_heads": _num_kv_heads(keys),
        "head_dim": _head_dim(keys),
        "max_position": keys.max_position_embeddings,
        "norm_eps": keys.rms_norm_eps,
        "tied": bool(keys.tie_word_embeddings),
        "eos_token_ids": token_ids(keys.eos_token_id),
        "rope": _rope(keys),
        "activation": activation("hidden_act", keys.hidden_act),
        "qkv_bias": keys.attention_bias,
        "attn_out_bias": keys.attention_bias,
        "mlp_bias": keys.mlp_bias,
    }
    return DecoderConfig(**{**usual, **traits})


def windows(keys: LlamaKeys, *, sliding: Callable[[int], bool] | None = None) -> tuple[int | None, ...]:
    """Each layer's window; without `layer_types`, layers for which `sliding` holds have one."""
    if keys.sliding_window is None or not keys.use_sliding_window:
        return ()
    first = keys.max_window_layers
    layers = range(keys.num_hidden_layers)
    if keys.layer_types is None:
        slides = [sliding(i) if sliding else i >= first for i in layers]
    else:
        if len(keys.layer_types) != len(layers):
            raise ValueError(f"layer_types must name {len(layers)} layers, got {len(keys.layer_types)}")
        slides = [kind == "sliding_attention" for kind in keys.layer_types]
    return tuple(keys.sliding_window if slide else None for slide in slides) if any(slides) else ()


def activation(key: str, name: str) -> str:
    if name not in _ACTIVATIONS:
        raise ValueError(f"{key} must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]


def token_ids(ids: TokenIds) -> tuple[int, ...]:
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


def _num_kv_heads(keys: LlamaKeys) -> int:
    heads, kv_heads = keys.num_attention_heads, keys.num_key_value_heads or keys.num_attention_heads
    if heads % kv_heads:
        raise ValueError(f"num_key_value_heads must divide the {heads} attention heads, got {kv_heads}")
    return kv_heads


def _head_dim(keys: LlamaKeys) -> int:
    """Rotary embeddings turn pairs, so it is even."""
    heads, size = keys.num_attention_heads, keys.hidden_size
    if keys.head_dim is None and size % heads:
        raise ValueError(f"num_attention_heads must divide hidden_size {size}, got {heads}")
    head_dim = keys.head_dim or size // heads
    if head_dim % 2:
        raise ValueError(f"head_dim (or hidden_size / num_attention_heads) must be even, got {head_dim}")
    return head_dim


def _rope(keys: LlamaKeys) -> Rope:
    """What `rope_parameters` say, or `rope_scaling`, as they were called before transformers 5."""
    given = [raw for raw in (keys.rope_parameters, keys.rope_scaling) if raw is not None]
    ropes = {_rope_of(keys, raw) for raw in given or [RopeKeys()]}
    if len(ropes) > 1:
        raise ValueError(
            "rope_scaling: it does not say the same as rope_parameters; put all of it into rope_parameters,"
            " and leave rope_scaling out"
        )
    return ropes.pop()


def _rope_of(keys: LlamaKeys, raw: RopeKeys) -> Rope:
    kind = raw.rope_type or raw.type or "default"
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise ValueError(f"rope_type must be default, linear, llama3 or yarn, got {kind!r}")
    if kind != "default" and raw.factor is None:
        raise ValueError(f"rope_parameters: {kind} needs a factor")
    if raw.full_attention is not None or raw.sliding_attention is not None:
        raise ValueError("rope_parameters: parameters of some types of layers alone are not supported")
    partial = raw.partial_rotary_factor
    if partial is None:
        partial = keys.partial_rotary_factor
    if raw.mscale is not None or raw.mscale_all_dim is not None or partial not in (None, 1):
        raise ValueError("rope_parameters: mscale and partial rotary embeddings are not supported")
    theta = raw.rope_theta or keys.rope_theta or Rope.theta
    if theta <= 1:
        raise ValueError(f"rope_theta must be more than 1, got {theta:g}")
    factor = raw.factor or 1.0
    usual = yarn_attention_factor(factor) if kind == "yarn" else 1.0
    return Rope(
        theta=theta,
        kind=kind,
        factor=factor,
        original_max_position=keys.original_max_position_embeddings
        or raw.original_max_position_embeddings
        or keys.max_position_embeddings,
        low_freq_factor=raw.low_freq_factor,
        high_freq_factor=raw.high_freq_factor,
        beta_fast=raw.beta_fast or Rope.beta_fast,
        beta_slow=raw.beta_slow or Rope.beta_slow,
        truncate=raw.truncate,
        attention_factor=usual if raw.attention_factor is None else raw.attention_factor,
    )
