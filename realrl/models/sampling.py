"""Draws the next token of each sequence, and returns its log-probabilities.

Shapes: B sequences, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.models.decoder import Decoder
from realrl.ops.draw import draw_tokens


class Drawn(NamedTuple):
    """One token per sequence, int64 `[B]`, and two log-probabilities of each, float32 `[B]`."""

    tokens: Tensor
    logprobs: Tensor
    """At the sampling temperature, before top-k and top-p."""
    raw_logprobs: Tensor
    """At temperature 1."""


class Sampler:
    """Draws tokens from hidden states, as a config says. A CUDA graph can capture it."""

    def __init__(self, decoder: Decoder, config: GenerationConfig, device: torch.device) -> None:
        self._decoder = decoder
        self._config = config
        enders = (*decoder.config.eos_token_ids, *config.stop_token_ids)
        vocab_size = decoder.config.vocab_size
        # A dict keeps the order, and each token once.
        real = [token for token in dict.fromkeys(enders) if token < vocab_size]
        # Created here, because a graph cannot capture a copy from the host.
        self._enders = torch.tensor(real, dtype=torch.int64, device=device)
        self._bars_enders = config.min_new_tokens > 0 and len(real) > 0

    def __call__(self, hidden: Tensor, seeds: Tensor, counts: Tensor) -> Drawn:
        """Draw from the last hidden states of sequences.

        Shapes: hidden `[B, H]`; int64 `[B]`: the seeds, and how many tokens each sequence has drawn.
        """
        part = self._decoder.logits_part(hidden)
        tokens = self._draw(part, seeds, counts)
        raw_logprobs = self._decoder.label_logprobs(part, tokens, 1.0)
        temperature = self._config.training_temperature
        if temperature == 1:
            logprobs = raw_logprobs
        else:
            logprobs = self._decoder.label_logprobs(part, tokens, temperature)
        return Drawn(tokens, logprobs, raw_logprobs)

    def _draw(self, logits_part: Tensor, seeds: Tensor, counts: Tensor) -> Tensor:
        """Return the drawn tokens, int64 `[B]`; the whole logits are freed before log-probabilities."""
        barred: Barred | None = None
        if self._bars_enders:
            is_short = counts < self._config.min_new_tokens
            barred = is_short, self._enders
        numbers = uniforms(seeds, counts)
        logits = self._decoder.logits(logits_part)
        return draw(logits, numbers, self._config, barred=barred)


Barred = tuple[Tensor, Tensor]
"""Rows, bool `[B]`, and the tokens that may not be drawn there, int64."""


def draw(
    logits: Tensor,
    uniforms: Tensor,
    config: GenerationConfig,
    *,
    barred: Barred | None = None,
) -> Tensor:
    """Return a token for each row of logits, by the row's number in [0, 1) of `uniforms`.

    A row's token depends only on its own logits and number, not on the batch around it.

    Shapes: logits `[B, V]`, uniforms `[B]`; returns int64 `[B]`.
    """
    if barred is None:
        return _chosen(logits, uniforms, config)
    rows, tokens = barred
    before = logits.index_select(1, tokens)
    without = before.masked_fill(rows[:, None], float("-inf"))
    logits.index_copy_(1, tokens, without)
    chosen = _chosen(logits, uniforms, config)
    # Log-probabilities, which know no bar, may be computed from the same memory.
    logits.index_copy_(1, tokens, before)
    return chosen


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """Return a number in [0, 1) for each sample's token: float64 `[B]` from int64 `[B]` each.

    Source: SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195), which gives the n-th number of a
        seed's stream without those before it.
    """
    step = (positions + 1) * _signed(0x9E3779B97F4A7C15)
    state = seeds + step
    state = state ^ _shifted(state, 30)
    state = state * _signed(0xBF58476D1CE4E5B9)
    state = state ^ _shifted(state, 27)
    state = state * _signed(0x94D049BB133111EB)
    state = state ^ _shifted(state, 31)
    # A double holds 53 bits.
    return _shifted(state, 11).double() * 2.0**-53


def _signed(constant: int) -> int:
    """Return the int64 with the same bits."""
    is_negative = constant >> 63
    return constant - (1 << 64) if is_negative else constant


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shift to the right, and fill with zeros."""
    mask = (1 << (64 - bits)) - 1
    return (state >> bits) & mask


def _chosen(logits: Tensor, uniforms: Tensor, config: GenerationConfig) -> Tensor:
    """Return the token of each row: `[B, V]` and `[B]` to int64 `[B]`."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    kept = _top_k(logits, config.top_k)
    return draw_tokens(kept, uniforms, config.temperature, config.top_p)


def _top_k(logits: Tensor, top_k: int) -> Tensor:
    """Return the logits, `[B, V]`, with -inf for tokens that top-k excludes; 0 excludes none."""
    if top_k not in range(1, logits.shape[-1]):
        return logits
    kept, tokens = logits.topk(top_k, dim=-1)
    excluded = torch.full_like(logits, float("-inf"))
    return excluded.scatter(-1, tokens, kept)
