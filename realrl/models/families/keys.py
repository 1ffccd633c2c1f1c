"""The keys of `config.json` that families share, and the decoder that they describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from realrl.models.config import DecoderConfig, Names
from realrl.models.rope import Rope, RopeKind, yarn_attention_factor
from realrl.ops.gated import Activation

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Layers = Annotated[int, Meta(ge=1, le=10_000)]
"""The bound keeps plans small: no model has a tenth as many layers."""
Positive = Annotated[float, Meta(gt=0)]
TokenId = Annotated[int, Meta(ge=0)]
TokenIds = TokenId | list[TokenId] | None

BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Suffixes of tensors in the layers of old checkpoints that are no weights."""

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_ROPE_KINDS: dict[str, RopeKind] = {kind: kind for kind in get_args(RopeKind)}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one architecture: how to read their `config.json`, and the names of their tensors."""

    keys: type[msgspec.Struct]
    """The keys that are read; their types are checked."""
    decoder: Callable[[Any], DecoderConfig]
    """Returns the decoder that keys of that type describe.

    Raises:
        ValueError: a value is not supported; the message begins with the key.
    """
    classifier: str
    """transformers' class with a scalar head."""
    names: Names = field(default_factory=Names)


class RopeKeys(msgspec.Struct):
    """The keys of `rope_parameters`."""

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
    """Parameters of layers of one type, instead of all layers."""


class LlamaKeys(msgspec.Struct, kw_only=True):
    """The keys of Llama and of families that are derived from it."""

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
    """Overrides the key of `rope_parameters`."""
    partial_rotary_factor: float | None = None
    tie_word_embeddings: bool | None = None
    eos_token_id: TokenIds = None
    sliding_window: Count | None = None
    """The number of tokens that a token sees in layers with a window."""
    use_sliding_window: bool = True
    max_window_layers: int = 0
    """Layers before this one see everything."""
    layer_types: list[str] | None = None


def llama_like(keys: LlamaKeys, **traits: Any) -> DecoderConfig:
    """Return the decoder that Llama's keys describe, with a family's own `traits`."""
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
    """Return each layer's window; empty if no layer has one.

    Without `layer_types`, layers for which `sliding` holds have a window, or all from `max_window_layers` on.
    """
    if keys.sliding_window is None or not keys.use_sliding_window:
        return ()
    num_layers = keys.num_hidden_layers
    if keys.layer_types is not None:
        if len(keys.layer_types) != num_layers:
            raise ValueError(f"layer_types must name {num_layers} layers, got {len(keys.layer_types)}")
        slides = [kind == "sliding_attention" for kind in keys.layer_types]
    elif sliding is not None:
        slides = [sliding(layer) for layer in range(num_layers)]
    else:
        slides = [layer >= keys.max_window_layers for layer in range(num_layers)]

    if not any(slides):
        return ()
    return tuple(keys.sliding_window if slide else None for slide in slides)


def activation(key: str, name: str) -> Activation:
    """Return our name of an activation; `key` is the one that gives it."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"{key} must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]


def token_ids(ids: TokenIds) -> tuple[int, ...]:
    """Return the tokens of a key that has one, several or none."""
    if ids is None:
        return ()
    if isinstance(ids, list):
        return tuple(ids)
    return (ids,)


def _num_kv_heads(keys: LlamaKeys) -> int:
    heads = keys.num_attention_heads
    kv_heads = keys.num_key_value_heads or heads
    if heads % kv_heads:
        raise ValueError(f"num_key_value_heads must divide the {heads} attention heads, got {kv_heads}")
    return kv_heads


def _head_dim(keys: LlamaKeys) -> int:
    """Return the head size, which is even: rotary embeddings turn pairs."""
    heads = keys.num_attention_heads
    size = keys.hidden_size
    if keys.head_dim is None and size % heads:
        raise ValueError(f"num_attention_heads must divide hidden_size {size}, got {heads}")
    head_dim = keys.head_dim or size // heads
    if head_dim % 2:
        raise ValueError(f"head_dim (or hidden_size / num_attention_heads) must be even, got {head_dim}")
    return head_dim


def _rope(keys: LlamaKeys) -> Rope:
    """Return what `rope_parameters` describes, or `rope_scaling`, its name before transformers 5."""
    given = [raw for raw in (keys.rope_parameters, keys.rope_scaling) if raw is not None]
    if not given:
        given = [RopeKeys()]
    ropes = {_rope_of(keys, raw) for raw in given}
    if len(ropes) > 1:
        raise ValueError(
            "rope_scaling: it does not say the same as rope_parameters; put all of it into rope_parameters,"
            " and leave rope_scaling out"
        )
    return ropes.pop()


def _original_max_position(keys: LlamaKeys, raw: RopeKeys) -> int:
    return (
        keys.original_max_position_embeddings
        or raw.original_max_position_embeddings
        or keys.max_position_embeddings
    )


def _rope_of(keys: LlamaKeys, raw: RopeKeys) -> Rope:
    kind = raw.rope_type or raw.type or "default"
    if kind not in _ROPE_KINDS:
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
        kind=_ROPE_KINDS[kind],
        factor=factor,
        original_max_position=_original_max_position(keys, raw),
        low_freq_factor=raw.low_freq_factor,
        high_freq_factor=raw.high_freq_factor,
        beta_fast=raw.beta_fast or Rope.beta_fast,
        beta_slow=raw.beta_slow or Rope.beta_slow,
        truncate=raw.truncate,
        attention_factor=usual if raw.attention_factor is None else raw.attention_factor,
    )
