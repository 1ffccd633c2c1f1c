"""Gemma (Gemma Team 2024, arXiv:2403.08295): scaled embeddings, norms around one, a GELU gate."""

from __future__ import annotations

from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Count, Family, LlamaKeys, activation, llama_like


class GemmaKeys(LlamaKeys, kw_only=True):
    head_dim: Count = 256
    hidden_act: str = "gelu_pytorch_tanh"
    hidden_activation: str | None = None
    """Goes before `hidden_act`, which early files give as `gelu` and mean the same by."""
    tie_word_embeddings: bool | None = True
    use_bidirectional_attention: bool | None = None


def gemma_like(keys: GemmaKeys, **traits) -> DecoderConfig:
    """What Gemma and its successors have in common."""
    if keys.use_bidirectional_attention:
        raise ValueError("use_bidirectional_attention must be false")
    name = keys.hidden_activation or keys.hidden_act
    return llama_like(
        keys,
        norm_offset=1.0,
        embed_scale=keys.hidden_size**0.5,
        activation=activation("hidden_activation", "gelu_pytorch_tanh" if name == "gelu" else name),
        **traits,
    )


GEMMA = Family(
    keys=GemmaKeys,
    decoder=gemma_like,
    classifier="GemmaForSequenceClassification",
)
