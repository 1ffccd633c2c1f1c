"""Gemma 2 (Gemma Team 2024, arXiv:2408.00118): norms after each part too, soft caps, local layers."""

from __future__ import annotations

from realrl.models.config import DecoderConfig, Names
from realrl.models.families.gemma import GemmaKeys, gemma_like
from realrl.models.families.keys import Count, Family, Positive, windows


class Gemma2Keys(GemmaKeys, kw_only=True):
    sliding_window: Count | None = 4096
    query_pre_attn_scalar: Positive = 256
    attn_logit_softcapping: Positive | None = 50.0
    final_logit_softcapping: Positive | None = 30.0


def gemma2(keys: Gemma2Keys) -> DecoderConfig:
    """Return the decoder that Gemma 2's keys describe."""
    return gemma_like(
        keys,
        post_norms=True,
        attention_scale=keys.query_pre_attn_scalar**-0.5,
        attention_softcap=keys.attn_logit_softcapping,
        logit_softcap=keys.final_logit_softcapping,
        windows=windows(keys, sliding=lambda layer: layer % 2 == 0),
    )


GEMMA2 = Family(
    keys=Gemma2Keys,
    decoder=gemma2,
    classifier="Gemma2ForSequenceClassification",
    names=Names(mlp_norm="pre_feedforward_layernorm"),
)
