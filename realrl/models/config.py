"""What a Hugging Face `config.json` says of a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

ROPE_THETA = 10000.0
"""Default base of rotary position embeddings (Su et al. 2021, arXiv:2104.09864)."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and constants of one decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rope_theta: float
    norm_eps: float
    tied: bool
    """The output head is the embedding."""
    eos_token_ids: tuple[int, ...]


Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
TokenId = Annotated[int, Meta(ge=0)]
TokenIds = TokenId | list[TokenId] | None
File = TypeVar("File")


class _Rope(msgspec.Struct):
    rope_theta: Positive | None = None
    rope_type: str | None = None
    type: str | None = None


class _Architecture(msgspec.Struct):
    """The keys of `config.json` that say what kind of model it is."""

    model_type: str | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    hidden_act: str | None = None
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None

    @property
    def rope(self) -> _Rope:
        return self.rope_parameters or self.rope_scaling or _Rope()


class _Llama(_Architecture, kw_only=True):
    """Those that give a Llama's sizes and constants."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    max_position_embeddings: Count
    rope_theta: Positive | None = None
    rms_norm_eps: Positive
    tie_word_embeddings: bool | None = None
    eos_token_id: TokenIds = None


class _Generation(msgspec.Struct):
    """The keys of `generation_config.json` that are read here."""

    eos_token_id: TokenIds | UnsetType = UNSET


def read_decoder_config(directory: Path | str) -> DecoderConfig:
    """The decoder that a Hugging Face model directory holds.

    Raises:
        ValueError: no `config.json` there, a key of it that does not fit, or a model that is not of the Llama
            architecture.
    """
    file = Path(directory) / "config.json"
    if not file.is_file():
        raise ValueError(f"no config.json in {directory}: give a Hugging Face model directory")
    _check_architecture(_decode(file, _Architecture), file)
    raw = _decode(file, _Llama)
    heads = raw.num_attention_heads
    return DecoderConfig(
        vocab_size=raw.vocab_size,
        hidden_size=raw.hidden_size,
        intermediate_size=raw.intermediate_size,
        num_layers=raw.num_hidden_layers,
        num_heads=heads,
        num_kv_heads=_num_kv_heads(raw, file),
        head_dim=_head_dim(raw, file),
        max_position=raw.max_position_embeddings,
        rope_theta=raw.rope.rope_theta or raw.rope_theta or ROPE_THETA,
        norm_eps=raw.rms_norm_eps,
        tied=bool(raw.tie_word_embeddings),
        eos_token_ids=_eos_token_ids(raw, file),
    )


def _decode(file: Path, file_type: type[File]) -> File:
    try:
        return msgspec.json.decode(file.read_text(encoding="utf-8"), type=file_type)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _check_architecture(raw: _Architecture, file: Path) -> None:
    if raw.model_type != "llama":
        raise ValueError(f"{file}: model_type must be 'llama', got {raw.model_type!r}")
    if raw.attention_bias or raw.mlp_bias:
        raise ValueError(f"{file}: attention_bias and mlp_bias must be false")
    if raw.hidden_act not in (None, "silu"):
        raise ValueError(f"{file}: hidden_act must be 'silu', got {raw.hidden_act!r}")
    kind = raw.rope.rope_type or raw.rope.type or "default"
    if kind != "default":
        raise ValueError(f"{file}: rope scaling must be 'default', got {kind!r}")


def _num_kv_heads(raw: _Llama, file: Path) -> int:
    heads, kv_heads = raw.num_attention_heads, raw.num_key_value_heads or raw.num_attention_heads
    if heads % kv_heads:
        raise ValueError(
            f"{file}: num_key_value_heads must divide the {heads} attention heads, got {kv_heads}"
        )
    return kv_heads


def _head_dim(raw: _Llama, file: Path) -> int:
    """Rotary embeddings turn pairs, so it is even."""
    heads, size = raw.num_attention_heads, raw.hidden_size
    if raw.head_dim is None and size % heads:
        raise ValueError(f"{file}: num_attention_heads must divide hidden_size {size}, got {heads}")
    head_dim = raw.head_dim or size // heads
    if head_dim % 2:
        raise ValueError(
            f"{file}: head_dim (or hidden_size / num_attention_heads) must be even, got {head_dim}"
        )
    return head_dim


def _eos_token_ids(raw: _Llama, file: Path) -> tuple[int, ...]:
    """Those of `generation_config.json`, where it has the key, go first."""
    generation, eos = file.with_name("generation_config.json"), raw.eos_token_id
    if generation.is_file() and (given := _decode(generation, _Generation).eos_token_id) is not UNSET:
        file, eos = generation, given
    ids = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    if any(token >= raw.vocab_size for token in ids):
        raise ValueError(f"{file}: eos_token_id must be below vocab_size {raw.vocab_size}, got {eos}")
    return ids
