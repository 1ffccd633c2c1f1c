"""What a Hugging Face `config.json` says of a decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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


def read_decoder_config(directory: Path | str) -> DecoderConfig:
    """The decoder that a Hugging Face model directory holds.

    Raises:
        ValueError: no `config.json` there, or a model that is not of the Llama architecture.
    """
    file = Path(directory) / "config.json"
    if not file.is_file():
        raise ValueError(f"no config.json in {directory}: give a Hugging Face model directory")
    raw = json.loads(file.read_text())
    _check_architecture(raw, file)
    heads = raw["num_attention_heads"]
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        max_position=raw["max_position_embeddings"],
        rope_theta=float(_rope(raw).get("rope_theta") or raw.get("rope_theta") or ROPE_THETA),
        norm_eps=raw["rms_norm_eps"],
        tied=raw.get("tie_word_embeddings", False),
        eos_token_ids=_eos_token_ids(raw, file.with_name("generation_config.json")),
    )


def _check_architecture(raw: dict, file: Path) -> None:
    if raw.get("model_type") != "llama":
        raise ValueError(f"{file}: model_type must be 'llama', got {raw.get('model_type')!r}")
    if raw.get("attention_bias") or raw.get("mlp_bias"):
        raise ValueError(f"{file}: attention_bias and mlp_bias must be false")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{file}: hidden_act must be 'silu', got {raw['hidden_act']!r}")
    kind = _rope(raw).get("rope_type") or _rope(raw).get("type") or "default"
    if kind != "default":
        raise ValueError(f"{file}: rope scaling must be 'default', got {kind!r}")


def _rope(raw: dict) -> dict:
    return raw.get("rope_parameters") or raw.get("rope_scaling") or {}


def _eos_token_ids(raw: dict, generation_file: Path) -> tuple[int, ...]:
    eos = raw.get("eos_token_id")
    if generation_file.is_file():
        eos = json.loads(generation_file.read_text()).get("eos_token_id", eos)
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, list) else (eos,)
