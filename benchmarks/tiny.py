"""A random model of a few thousand weights, and problems for it, where what is measured is all else."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_CHARACTERS = "0123456789+-*/=^()."
_END = "<eos>"


def write_tokenizer(directory: Path) -> LlamaConfig:
    """One token a character; and the config of a model for it."""
    tokens = [_END, *_CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END).save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokens.index(_END),
    )
    config.save_pretrained(directory)
    return config


def write_model(directory: Path) -> None:
    """The tokenizer, and weights, the same every time."""
    config = write_tokenizer(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).float().save_pretrained(directory)


def write_problems(path: Path, number: int) -> None:
    """Any even digit will do, which only the processes that compare answers can tell."""
    even = [rf"\frac{{{2 * digit}}}{{2}}" for digit in range(0, 10, 2)]
    problems = [{"query_id": f"{i}", "prompt": f"{i}+{i}=", "solutions": even} for i in range(number)]
    path.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
