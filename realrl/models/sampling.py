"""Drawing the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.base.seeding import derive_seed


def sample(logits: Tensor, uniforms: Tensor, config: GenerationConfig) -> Tensor:
    """One token for each row of `logits [B, V]`, by the row's uniform number in [0, 1) of `uniforms [B]`.

    A row's token depends on its own logits and number alone, not on the batch around it.
    """
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits.double() / config.temperature, dim=-1)
    weights = _keep_likeliest(weights, config)
    cumulative = weights.cumsum(dim=-1)
    threshold = uniforms.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def sampling_logprobs(logits: Tensor, tokens: Tensor, config: GenerationConfig) -> Tensor:
    """Log-probability of `tokens [B]` at the sampling temperature, before top-k and top-p: float32 `[B]`."""
    scaled = logits / config.training_temperature
    return scaled.gather(-1, tokens[:, None])[:, 0] - scaled.logsumexp(dim=-1)


def uniforms_of(seed: int, step: int, sample_ids: list[int], count: int) -> Tensor:
    """`count` numbers in [0, 1) for each sample, by its own seed: float64 `[B, count]`."""
    rows = [
        torch.rand(
            count, dtype=torch.float64, generator=torch.Generator().manual_seed(derive_seed(seed, step, i))
        )
        for i in sample_ids
    ]
    return torch.stack(rows) if rows else torch.empty(0, count, dtype=torch.float64)


def _keep_likeliest(weights: Tensor, config: GenerationConfig) -> Tensor:
    """Zero what top-k and top-p leave out; top-p keeps the token that crosses the bound."""
    if config.top_k in range(1, weights.shape[-1]):
        kept, tokens = weights.topk(config.top_k, dim=-1)
        weights = torch.zeros_like(weights).scatter(-1, tokens, kept)
    if config.top_p < 1:
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.where(before < config.top_p * weights.sum(dim=-1, keepdim=True), 0)
        weights = torch.zeros_like(weights).scatter(-1, order, ordered)
    return weights
