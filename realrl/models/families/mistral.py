"""Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama whose tokens may see only a window back."""

from __future__ import annotations

from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Count, Family, LlamaKeys, llama_like, windows


class MistralKeys(LlamaKeys, kw_only=True):
    sliding_window: Count | None = 4096


def mistral(keys: MistralKeys) -> DecoderConfig:
    """Return the decoder that Mistral's keys describe."""
    return llama_like(keys, windows=windows(keys))


MISTRAL = Family(
    keys=MistralKeys,
    decoder=mistral,
    classifier="MistralForSequenceClassification",
)
