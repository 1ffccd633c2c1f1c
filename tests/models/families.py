"""A tiny random model of every family, with each of its traits at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from realrl.api.batch import cu_seqlens_of
from realrl.models.decoder import Decoder
from realrl.ops.attention import packed_attention
from realrl.ops.segments import Segments
from tests.tiny import VOCAB, tiny_tokenizer

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
GPT2_SIZES = {
    "vocab_size": VOCAB,
    "n_embd": 64,
    "n_inner": 48,
    "n_layer": 4,
    "n_head": 8,
    "n_positions": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e3,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e3,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}

LATE_WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
CAPPED = {"sliding_window": 6, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 5.0}

ROWS = {
    "llama": ("Llama", SIZES | {"tie_word_embeddings": True}),
    "llama-untied": ("Llama", SIZES | {"tie_word_embeddings": False}),
    "llama-biased": ("Llama", SIZES | {"attention_bias": True, "mlp_bias": True}),
    "llama-llama3": ("Llama", SIZES | {"rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", SIZES | {"rope_parameters": LINEAR}),
    "qwen2": ("Qwen2", SIZES | {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen2-window": ("Qwen2", SIZES | LATE_WINDOW),
    "qwen2-yarn": ("Qwen2", SIZES | {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", SIZES),
    "mistral": ("Mistral", SIZES | {"sliding_window": 6}),
    "gemma": ("Gemma", SIZES | {"num_key_value_heads": 1}),
    "gemma2": ("Gemma2", SIZES | CAPPED),
    "gpt2": ("GPT2", GPT2_SIZES),
}  # fmt: skip
"""A row's transformers classes, and the keys of its config."""

ONE_EACH = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gpt2")
"""A row for each family."""


def tiny_model(directory: Path, row: str, *, seed: int = 0) -> Path:
    """Write a row's model, in float32, the same for the same arguments.

    Weights are wide enough that greedy choices have no near ties; norms differ from one, biases from zero.
    """
    prefix, keys = ROWS[row]
    config = getattr(transformers, f"{prefix}Config")(
        **keys, initializer_range=0.2, bos_token_id=None, eos_token_id=1, pad_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        causal_lm = f"{prefix}LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM"
        model = getattr(transformers, causal_lm)(config).float()
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                centre = 1.0 if name.endswith("weight") and "Gemma" not in prefix else 0.0
                torch.nn.init.normal_(weight, mean=centre, std=0.2)
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def reference_model(directory: Path) -> transformers.PreTrainedModel:
    """transformers' model of a directory, in float32, on an attention that knows soft caps and windows."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )


def packed_logits(decoder: Decoder, sequences: Sequence[Tensor]) -> Tensor:
    """Logits of sequences packed end to end: `[T, V]`."""
    segments = Segments.of_sequences(cu_seqlens_of(map(len, sequences)))

    def attend(layer: int, qkv: Tensor) -> Tensor:
        return packed_attention(qkv, decoder.num_kv_heads, segments, **decoder.attention_rule(layer))

    hidden = decoder.forward(torch.cat(list(sequences)), None, segments.positions(), attend)
    return decoder.logits(decoder.logits_part(hidden))
