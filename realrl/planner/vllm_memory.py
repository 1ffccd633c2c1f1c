"""Predicts, from configs alone, the memory that a vLLM process takes on its worker's device.

on CUDA   starts ──── wakes: weights, cache ──── releases ──── wakes ...
          the CUDA context, from the start on
on a CPU  weights, cache, and the buffer in which weights arrive, from the start on
"""

from __future__ import annotations

from realrl.api.config import GenerationConfig
from realrl.planner.engine_memory import CONTEXT_BYTES, MemoryUse
from realrl.planner.model_memory import Stage

_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 16_384}
"""Default of `max_num_batched_tokens` of vLLM's `LLM`, on a GPU of 70 GB or more."""


def standing(stage: Stage, config: GenerationConfig, *, is_present: bool) -> MemoryUse:
    """Return what vLLM takes between calls.

    `is_present` says whether weights have arrived and were not released since.
    """
    weights = _weights_bytes(stage)
    if stage.device == "cpu":
        return MemoryUse(
            weights_bytes=2 * weights,
            cache_bytes=_cache_bytes(config),
        )
    return MemoryUse(
        weights_bytes=weights if is_present else 0,
        context_bytes=CONTEXT_BYTES,
    )


def generating(stage: Stage, config: GenerationConfig, *, num_tokens: int) -> MemoryUse:
    """Return what a call takes in addition to what vLLM takes between calls.

    The peak is at one of two moments: when weights are handed over, as vLLM is awake then and the weights
    are there twice, or when tokens are drawn. `num_tokens` counts the tokens of the whole call.
    """
    computed = min(num_tokens, _TOKENS_AT_ONCE[stage.device])
    work = max(
        stage.forward_bytes(computed),
        stage.drawing_bytes(config.max_sequences, config),
    )
    if stage.device == "cpu":
        return MemoryUse(activations_bytes=work)
    cache = _cache_bytes(config)
    weights = _weights_bytes(stage)
    if weights > work:
        return MemoryUse(weights_bytes=weights, cache_bytes=cache)
    return MemoryUse(activations_bytes=work, cache_bytes=cache)


def _cache_bytes(config: GenerationConfig) -> int:
    """Return the bytes of the keys and values, which the config gives in MiB."""
    return config.cache_mib << 20


def _weights_bytes(stage: Stage) -> int:
    """Return the bytes of this rank's weights."""
    return stage.num_elements * stage.itemsize
