"""Llama 2 and 3 (Touvron et al. 2023, arXiv:2307.09288; arXiv:2407.21783), SmolLM2, R1-Distill-Llama."""

from __future__ import annotations

from realrl.models.families.keys import Family, LlamaKeys, llama_like

LLAMA = Family(
    keys=LlamaKeys,
    decoder=llama_like,
    classifier="LlamaForSequenceClassification",
)
