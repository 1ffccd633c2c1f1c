"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671), R1-Distill-Qwen: Llama with biases on q, k, v."""

from __future__ import annotations

from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Count, Family, LlamaKeys, llama_like, windows


class Qwen2Keys(LlamaKeys, kw_only=True):
    use_sliding_window: bool = False
    sliding_window: Count | None = 4096
    max_window_layers: int = 28


def qwen2(keys: Qwen2Keys) -> DecoderConfig:
    """Return the decoder that Qwen2's keys describe."""
    return llama_like(
        keys,
        qkv_bias=True,
        attn_out_bias=False,
        mlp_bias=False,
        windows=windows(keys),
    )


QWEN2 = Family(
    keys=Qwen2Keys,
    decoder=qwen2,
    classifier="Qwen2ForSequenceClassification",
)
