"""What a vLLM process takes of its worker's memory, predicted from configs alone.

on CUDA   it starts ──── wakes: weights, cache ──── releases ──── wakes ...
          context, from then on
on a CPU  weights, cache, and the memory in which weights arrive, from the start on
"""

from __future__ import annotations

from realrl.api.config import GenerationConfig
from realrl.planner.engine_memory import CONTEXT_BYTES, MemoryUse
from realrl.planner.model_memory import Stage

_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 16_384}
"""`max_num_batched_tokens` of vLLM's `LLM`, where it is not given: on a GPU of 70 GB or more."""


def standing(stage: Stage, config: GenerationConfig, *, is_present: bool) -> MemoryUse:
    """All the time; `is_present`: weights have arrived, and were not released."""
    weights = _weights_bytes(stage)
    if stage.device == "cpu":
        return MemoryUse(weights_bytes=2 * weights, cache_bytes=config.cache_mib << 20)
    return MemoryUse(weights_bytes=weights if is_present else 0, context_bytes=CONTEXT_BYTES)


def generating(stage: Stage, config: GenerationConfig, *, num_tokens: int) -> MemoryUse:
    """Beyond what stands, at the fullest of two moments: weights are handed over, or tokens are drawn.

    At the hand-over vLLM has awoken, and the weights are there twice. `num_tokens`: of the whole call.
    """
    computed = min(num_tokens, _TOKENS_AT_ONCE[stage.device])
    work = max(stage.forward_bytes(computed), stage.drawing_bytes(config.max_sequences, config))
    if stage.device == "cpu":
        return MemoryUse(activations_bytes=work)
    weights, cache = _weights_bytes(stage), config.cache_mib << 20
    if weights > work:
        return MemoryUse(weights_bytes=weights, cache_bytes=cache)
    return MemoryUse(activations_bytes=work, cache_bytes=cache)


def _weights_bytes(stage: Stage) -> int:
    return stage.num_elements * stage.itemsize
