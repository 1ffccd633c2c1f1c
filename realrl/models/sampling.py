"""Drawing the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.ops.draw import draw_tokens

_NUCLEUS_TOKENS = 512
"""How many of the likeliest tokens top-p looks at first."""


def draw(
    logits: Tensor,
    uniforms: Tensor,
    config: GenerationConfig,
    *,
    barred: tuple[Tensor, tuple[int, ...]] | None = None,
) -> Tensor:
    """A token, int64 `[B]`, for each row of `logits [B, V]`, by its number in [0, 1) of `uniforms [B]`.

    A row's token depends on its own logits and number alone, not on the batch around it. `barred`: rows, and
    tokens that may not be drawn there.
    """
    if barred is None or not len(barred[0]) or not barred[1]:
        return _chosen(logits, uniforms, config)
    places = barred[0][:, None], torch.tensor(barred[1], device=logits.device)
    hidden = logits[places]
    logits[places] = float("-inf")
    chosen = _chosen(logits, uniforms, config)
    logits[places] = hidden
    return chosen


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """A number in [0, 1) for each sample's token: float64 `[B]` from int64 `[B]` each.

    Source: SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195), which gives the n-th number of a
        seed's stream without those before it.
    """
    state = seeds + (positions + 1) * _signed(0x9E3779B97F4A7C15)
    state = (state ^ _shifted(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shifted(state, 27)) * _signed(0x94D049BB133111EB)
    state = state ^ _shifted(state, 31)
    return _shifted(state, 11).double() * 2.0**-53


def _signed(constant: int) -> int:
    """The int64 with the same bits."""
    return constant - (1 << 64) if constant >> 63 else constant


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _chosen(logits: Tensor, uniforms: Tensor, config: GenerationConfig) -> Tensor:
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    return draw_tokens(_likeliest(logits, config), uniforms, config.temperature)


def _likeliest(logits: Tensor, config: GenerationConfig) -> Tensor:
    """-inf for what top-k and top-p leave out; top-p keeps the token that crosses the bound."""
    if config.top_k in range(1, logits.shape[-1]):
        kept, tokens = logits.topk(config.top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, tokens, kept)
    if config.top_p < 1:
        kept, tokens = _nucleus(logits, config)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, tokens, kept)
    return logits


def _nucleus(logits: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor]:
    """The likeliest logits of each row, -inf from where they make up `top_p`, and their tokens.

    Few of them nearly always do, and to sort those alone takes a fraction of the time.
    """
    total = (logits.float() / config.temperature).logsumexp(dim=-1, keepdim=True)
    count = min(_NUCLEUS_TOKENS, logits.shape[-1])
    while True:
        ordered, tokens = logits.topk(count, dim=-1)
        weights = (ordered.double() / config.temperature - total).exp()
        cumulative = weights.cumsum(dim=-1)
        if count == logits.shape[-1] or bool((cumulative[:, -1] >= config.top_p).all()):
            return ordered.masked_fill(cumulative - weights >= config.top_p, float("-inf")), tokens
        count = min(count * 16, logits.shape[-1])
