"""Converts a Llama model with a GPT-2 tokenizer from GGUF to a Hugging Face directory.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3
"""The type of special tokens in `tokenizer.ggml.token_type`."""


def convert(gguf_path: Path, directory: Path) -> Path:
    """Write the config, the bfloat16 weights, the tokenizer and the chat template into a new `directory`."""
    reader = GGUFReader(gguf_path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    # A model without an output matrix uses its embeddings for that.
    is_tied = "output.weight" not in tensors
    config = _config(fields, tied=is_tied)
    directory.mkdir()
    config.save_pretrained(directory)
    _tokenizer(fields).save_pretrained(directory)
    weights = {}
    for name, tensor in tensors.items():
        weights[_hf_name(name)] = _weight(tensor, config)
    weights_path = directory / "model.safetensors"
    save_file(weights, weights_path, metadata={"format": "pt"})
    # safetensors writes a file that only its owner can read.
    config_mode = (directory / "config.json").stat().st_mode
    weights_path.chmod(config_mode)
    return directory


def _config(fields: dict[str, Any], *, tied: bool) -> LlamaConfig:
    """Return the config; `tied`: the output matrix is the embeddings."""
    llama = {}
    for name, value in fields.items():
        if name.startswith("llama."):
            llama[name.removeprefix("llama.")] = value
    # The file has a float32: its shortest decimal form is the number that was meant.
    epsilon = np.float32(llama["attention.layer_norm_rms_epsilon"])
    rms_norm_eps = float(np.format_float_positional(epsilon))
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=llama["embedding_length"],
        intermediate_size=llama["feed_forward_length"],
        num_hidden_layers=llama["block_count"],
        num_attention_heads=llama["attention.head_count"],
        num_key_value_heads=llama["attention.head_count_kv"],
        max_position_embeddings=llama["context_length"],
        rms_norm_eps=rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": llama["rope.freq_base"]},
        tie_word_embeddings=tied,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )


def _hf_name(name: str) -> str:
    """Return the Hugging Face name of a GGUF tensor."""
    if name in _TOP:
        return _TOP[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{_IN_LAYER[part]}.{suffix}"


def _weight(tensor: Any, config: LlamaConfig) -> torch.Tensor:
    """Return a tensor in bfloat16, with the rows of queries and keys in Hugging Face's order."""
    dequantized = dequantize(tensor.data, tensor.tensor_type)
    float32 = np.array(dequantized, dtype=np.float32)
    weight = torch.from_numpy(float32)
    if ".attn_q." in tensor.name:
        weight = _halves(weight, config.num_attention_heads)
    if ".attn_k." in tensor.name:
        weight = _halves(weight, config.num_key_value_heads or config.num_attention_heads)
    return weight.to(torch.bfloat16).contiguous()


def _halves(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Reorder the rows of each head: GGUF interleaves the two parts of a rotation, Hugging Face has halves.

    Shapes: `[H * D, C]`, H = heads, D = features per head; returns the same.
    """
    rows, columns = weight.shape
    half = rows // num_heads // 2
    interleaved = weight.view(num_heads, half, 2, columns)
    return interleaved.transpose(1, 2).reshape(rows, columns)


def _tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return the tokenizer with its chat template.

    It splits off each digit before the byte-level words: GGUF has no field for that.
    """
    tokens = fields["tokenizer.ggml.tokens"]
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens: list[AddedToken] = []
    for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True):
        if kind == _CONTROL_TOKEN:
            special_tokens.append(AddedToken(token, special=True, normalized=False))
    tokenizer.add_special_tokens(special_tokens)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        pad_token=tokens[fields["tokenizer.ggml.padding_token_id"]],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = fields["tokenizer.chat_template"]
    return wrapped
