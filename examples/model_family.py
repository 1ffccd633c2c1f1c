"""A model family of your own: Phi-3 and Phi-4 (Abdin et al. 2024, arXiv:2404.14219 and arXiv:2412.08905).

    actor:
      model: {path: microsoft/phi-4, family: examples/model_family.py:PHI3}

Phi-3 is Llama whose queries, keys and values are one tensor in the checkpoint; so are the gate and the input
of the MLP. A family is data: the keys of `config.json`, the traits that they give a decoder, and what
the checkpoint calls each tensor. The decoder, its layouts, generation and every recipe work unchanged.
"""

from __future__ import annotations

from realrl.models.config import DecoderConfig, Names
from realrl.models.families.keys import Family, LlamaKeys, llama_like, windows


class Phi3Keys(LlamaKeys, kw_only=True):
    """The keys of Phi-3's `config.json` that are not Llama's, or have another default."""

    tie_word_embeddings: bool | None = False


def phi3(keys: Phi3Keys) -> DecoderConfig:
    """Return the decoder that the keys describe.

    Raises:
        ValueError: `llama_like` refuses LongRoPE and partial rotary embeddings (Phi-3 with 128K, Phi-4-mini).
    """
    return llama_like(keys, windows=windows(keys))


PHI3 = Family(
    keys=Phi3Keys,
    decoder=phi3,
    classifier="Phi3ForSequenceClassification",
    # One name for several parts is one tensor that holds them all, in this order.
    names=Names(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",)),
)
