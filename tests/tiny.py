"""A random Llama model with a character tokenizer, small enough for any test."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<unk>"]
CHARACTERS = [*string.digits, *string.ascii_lowercase, *" +-=*/?.,:;!()[]{}\\$^_%'\"\n"]
VOCAB = 67
"""A prime, so that no degree divides it."""


def tiny_llama(
    directory: Path | str,
    *,
    vocab: int = VOCAB,
    hidden: int = 32,
    intermediate: int = 48,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    max_position: int = 256,
    tie: bool = True,
    seed: int = 0,
) -> Path:
    """Write a float32 Hugging Face directory, the same for the same arguments.

    Weights are wide enough that greedy choices have no near ties, and norms differ from one.
    """
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=max_position,
        tie_word_embeddings=tie,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.normal_(weight, mean=1.0, std=0.2)
    model.save_pretrained(directory)
    tiny_tokenizer(vocab).save_pretrained(directory)
    return Path(directory)


def tiny_tokenizer(vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """One token a character, in lower case; no chat template. Spare ids are `<extra_i>`."""
    tokens = SPECIAL + CHARACTERS
    assert vocab >= len(tokens), f"the tokenizer alone has {len(tokens)} tokens"
    tokens += [f"<extra_{i}>" for i in range(vocab - len(tokens))]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
