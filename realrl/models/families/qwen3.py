"""Qwen3 (Yang et al. 2025, arXiv:2505.09388): Llama with a norm on each head's query and key."""

from __future__ import annotations

from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Count, Family, llama_like, windows
from realrl.models.families.qwen2 import Qwen2Keys


class Qwen3Keys(Qwen2Keys, kw_only=True):
    head_dim: Count = 128


def qwen3(keys: Qwen3Keys) -> DecoderConfig:
    """Return the decoder that Qwen3's keys describe."""
    return llama_like(
        keys,
        qk_norm=True,
        mlp_bias=False,
        windows=windows(keys),
    )


QWEN3 = Family(
    keys=Qwen3Keys,
    decoder=qwen3,
    classifier="Qwen3ForSequenceClassification",
)
