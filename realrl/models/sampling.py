"""Drawing the next token, and its log-probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.models.decoder import Decoder
from realrl.ops.draw import draw_tokens


class Drawn(NamedTuple):
    """One token a sequence, int64 `[B]`, and two log-probabilities of each, float32 `[B]`."""

    tokens: Tensor
    logprobs: Tensor
    """At the sampling temperature, before top-k and top-p."""
    raw_logprobs: Tensor
    """At temperature 1."""


class Sampler:
    """Draws from hidden states as a config says. A CUDA graph can hold it."""

    def __init__(self, decoder: Decoder, config: GenerationConfig, device: torch.device) -> None:
        self._decoder, self._config = decoder, config
        enders = dict.fromkeys((*decoder.config.eos_token_ids, *config.stop_token_ids))
        real = [token for token in enders if token < decoder.config.vocab_size]
        # Made here, as a graph could not hold a copy from the host.
        self._enders = torch.tensor(real, dtype=torch.int64, device=device)
        self._bars = config.min_new_tokens > 0 and len(real) > 0

    def __call__(self, hidden: Tensor, seeds: Tensor, counts: Tensor) -> Drawn:
        """From the last hidden states `[B, H]` of sequences: their seeds, and how many tokens each has."""
        part = self._decoder.logits_part(hidden)
        barred = (counts < self._config.min_new_tokens, self._enders) if self._bars else None
        tokens = draw(self._decoder.logits(part), uniforms(seeds, counts), self._config, barred=barred)
        raw = self._decoder.label_logprobs(part, tokens, 1.0)
        temperature = self._config.training_temperature
        scaled = raw if temperature == 1 else self._decoder.label_logprobs(part, tokens, temperature)
        return Drawn(tokens, scaled, raw)


def draw(
    logits: Tensor,
    uniforms: Tensor,
    config: GenerationConfig,
    *,
    barred: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A token, int64 `[B]`, for each row of `logits [B, V]`, by its number in [0, 1) of `uniforms [B]`.

    A row's token depends on its own logits and number alone, not on the batch around it. `barred`: which
    rows, bool `[B]`, and the tokens that may not be drawn there, int64.
    """
    if barred is None:
        return _chosen(logits, uniforms, config)
    rows, tokens = barred
    before = logits.index_select(1, tokens)
    logits.index_copy_(1, tokens, before.masked_fill(rows[:, None], float("-inf")))
    chosen = _chosen(logits, uniforms, config)
    logits.index_copy_(1, tokens, before)
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
    return draw_tokens(_top_k(logits, config.top_k), uniforms, config.temperature, config.top_p)


def _top_k(logits: Tensor, top_k: int) -> Tensor:
    """-inf for what top-k leaves out."""
    if top_k not in range(1, logits.shape[-1]):
        return logits
    kept, tokens = logits.topk(top_k, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, tokens, kept)
