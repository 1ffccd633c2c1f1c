"""Gemma (Gemma Team 2024, arXiv:2403.08295): scaled embeddings, norms around one, a GELU gate."""

from __future__ import annotations

from typing import Any

from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Count, Family, LlamaKeys, activation, llama_like


class GemmaKeys(LlamaKeys, kw_only=True):
    head_dim: Count = 256
    hidden_act: str = "gelu_pytorch_tanh"
    hidden_activation: str | None = None
    """Overrides `hidden_act`; early files write `gelu` there, and mean the same."""
    tie_word_embeddings: bool | None = True
    use_bidirectional_attention: bool | None = None


def gemma_like(keys: GemmaKeys, **traits: Any) -> DecoderConfig:
    """Return the decoder of Gemma or a successor, with the latter's own `traits`."""
    if keys.use_bidirectional_attention:
        raise ValueError("use_bidirectional_attention must be false")
    name = keys.hidden_activation or keys.hidden_act
    if name == "gelu":
        name = "gelu_pytorch_tanh"
    return llama_like(
        keys,
        norm_offset=1.0,
        embed_scale=keys.hidden_size**0.5,
        activation=activation("hidden_activation", name),
        **traits,
    )


GEMMA = Family(
    keys=GemmaKeys,
    decoder=gemma_like,
    classifier="GemmaForSequenceClassification",
)
